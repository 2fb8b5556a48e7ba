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
  output "path" { type = path }
  output "csr" { type = csr }

  apply { builtin = "key" }
  verify { builtin = "key" }
  remove { builtin = "key" }
}

step "certificate" {
  scope = "service"
  doc   = "A certificate by the cluster's authority, for names that the inventory says are this node's or the cluster's. Its remove revokes it."

  input "csr" { type = csr }
  input "profile" {
    type = string
    doc  = "peer, server or client"
  }
  input "names" {
    type    = list(string)
    default = []
  }
  output "certificate" { type = certificate }

  apply {
    call     = "certs.sign"
    attempts = 3
  }
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
}

step "balancer" {
  scope = "service"
  doc   = "A name, an address and a port at which clients outside the cluster reach whatever backends there are."

  input "name" { type = fqdn }
  input "port" { type = number }
  output "url" { type = url }

  apply {
    call     = "balance.front"
    attempts = 3
  }
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
}

step "hosts" {
  scope = "node"
  doc   = "Names that the node must know without asking anybody, in /etc/hosts."

  input "entries" { type = map(object({ fqdn = fqdn, addresses = list(address) })) }

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
  doc   = "A place for data at mount. In memory it is a tmpfs of limited size, which ends with the boot."

  input "mount" { type = path }
  input "size" {
    type    = string
    default = "512m"
    doc     = "limit, as mount's size= takes it"
  }

  apply {
    script   = "files/data-disk.sh"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/data-disk.sh"
    timeout = "1m"
  }
  remove { script = "files/data-disk.sh" }
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
