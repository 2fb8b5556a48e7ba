pack "base" {
  version = "0.1.0"
  summary = "What every cluster is built of: keys, certificates, names, balancers, files, units, disks, and decisions that are kept."
}

step "node_key" {
  scope = "node"
  doc   = "A private key that is made on the node, stays there, and ends with it. Elsewhere only the request is known."

  input "purpose" {
    type = string
    doc  = "what the key is for; one key for each purpose"
  }
  input "folder" {
    type     = path
    optional = true
    doc      = "where the key lies, if it is to be the same after a boot: a place of base.data_disk. Left out, it ends with the root that the agent runs on"
  }
  output "path" { type = path }
  output "csr" { type = csr }

  apply { builtin = "key" }
  verify { builtin = "key" }
  remove { builtin = "key" }
}

step "certificate" {
  scope = "service"
  doc   = "A certificate by an authority of the cluster, for names that the inventory says are this node's or the cluster's. Its remove revokes it."

  input "csr" { type = csr }
  input "profile" {
    type = string
    doc  = "peer, server or client"
  }
  input "names" {
    type    = list(string)
    default = []
  }
  input "authority" {
    type     = string
    optional = true
    doc      = "one of the cluster's own, made when first named, which signs itself and vouches for nothing else; left out, the cluster's intermediate"
  }
  input "common_name" {
    type     = string
    optional = true
    doc      = "the subject's name; left out, the first of names, else the node's"
  }
  input "groups" {
    type    = list(string)
    default = []
    doc     = "organizations of the subject"
  }
  output "certificate" { type = certificate }

  apply {
    call     = "certs.sign"
    attempts = 3
  }
  verify { call = "certs.sign" }
}

step "dns_record" {
  scope = "service"
  doc   = "A name with its addresses, forward and reverse, served as soon as the step has succeeded."

  input "name" { type = fqdn }
  input "addresses" { type = list(address) }
  output "fqdn" { type = fqdn }
  output "addresses" { type = list(address) }

  apply {
    call     = "names.put"
    attempts = 3
  }
  verify { call = "names.put" }
}

step "names" {
  scope = "service"
  doc   = "Names and addresses that mean something inside the cluster only: no server gives them out, and certificates of the cluster may carry them."

  input "names" { type = list(string) }
  output "names" { type = list(string) }

  apply {
    call     = "reserve.names"
    attempts = 3
  }
  verify { call = "reserve.names" }
}

step "network" {
  scope = "service"
  doc   = "A part of a network for one target: the lowest that is free, and the same one as long as it is wanted."

  input "within" { type = cidr }
  input "prefix" {
    type = number
    doc  = "length of the part's prefix: 24 for 256 addresses of IPv4"
  }
  output "network" { type = cidr }

  apply {
    call     = "reserve.network"
    attempts = 3
  }
  verify { call = "reserve.network" }
}

step "secret" {
  scope = "service"
  once  = true
  doc   = "Random bytes in base64, drawn once by the engine, which keeps them encrypted."

  input "bytes" {
    type    = number
    default = 32
  }
  output "value" { type = secret(string) }

  apply { call = "secrets.draw" }
}

step "balancer" {
  scope = "service"
  doc   = "A name, an address and a port at which clients outside the cluster reach whatever backends there are."

  input "name" { type = fqdn }
  input "port" { type = number }
  input "ready" {
    type     = string
    optional = true
    doc      = "a path that backends answer over HTTPS with status 200 once they are ready, such as /readyz; left out, one is ready that takes connections"
  }
  output "url" { type = url }

  apply {
    call     = "balance.front"
    attempts = 3
  }
  verify { call = "balance.front" }
}

step "balancer_backend" {
  scope = "service"
  doc   = "One backend of a front."

  input "front" { type = url }
  input "address" { type = address }
  input "port" { type = number }

  apply {
    call     = "balance.backend"
    attempts = 3
  }
  verify { call = "balance.backend" }
}

step "hosts" {
  scope = "node"
  doc   = "Names that the node must know without asking anybody, in /etc/hosts."

  input "entries" { type = map(object({ fqdn = fqdn, addresses = list(address) })) }
  input "section" {
    type    = string
    default = ""
    doc     = "tells apart what several tasks write on one node"
  }

  apply {
    script   = "files/hosts.sh"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/hosts.sh"
    timeout = "1m"
  }
  remove { script = "files/hosts.sh" }
}

step "data_disk" {
  scope = "node"
  doc   = "A place for data at mount: a folder of the node's data disk, which is kept as long as the node's incarnation; or, in memory, a tmpfs of limited size, which ends with the boot. Only a blank disk, or one with our label, is written to. Its remove erases what was kept there."

  input "mount" { type = path }
  input "storage" {
    type    = string
    default = "memory"
    doc     = "disk or memory; pass node.storage, which the cluster file decides"
  }
  input "size" {
    type    = string
    default = "512m"
    doc     = "limit of a place in memory, as mount's size= takes it"
  }
  input "overlay" {
    type    = bool
    default = false
    doc     = "verify that an overlay works there, as a container runtime needs it"
  }

  apply {
    builtin  = "data_disk"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    builtin = "data_disk"
    timeout = "1m"
  }
  remove { builtin = "data_disk" }
}

step "file" {
  scope = "node"
  doc   = "A file with exactly this content."

  input "name" { type = string }
  input "content" { type = string }
  input "mode" {
    type    = string
    default = "0644"
  }
  output "path" { type = path }

  apply {
    script   = "files/file.sh"
    attempts = 3
    backoff  = "5s"
  }
  verify { script = "files/file.sh" }
  remove { script = "files/file.sh" }
}

step "systemd_unit" {
  scope = "node"
  doc   = "A systemd unit that is enabled and running; it is restarted when its content changes."

  input "name" { type = string }
  input "content" { type = string }

  apply {
    script   = "files/unit.sh"
    attempts = 3
    backoff  = "5s"
  }
  verify { script = "files/unit.sh" }
  remove { script = "files/unit.sh" }
}

step "keep" {
  scope = "cluster"
  doc   = "Keeps the first value it is given: a founding decision."
  once  = true

  input "value" { type = any }
  output "value" { type = any }

  apply { outputs = { value = input.value } }
}

step "wait" {
  scope = "cluster"
  doc   = "A gate: whatever is ordered after it waits until the condition is true."

  input "until" { type = bool }

  apply {
    when     = input.until
    attempts = 60
    backoff  = "5s"
  }
}
