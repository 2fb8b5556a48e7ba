pack "proof" {
  version  = "0.1.0"
  summary  = "An etcd cluster with windows into its nodes, for tests that must not take the engine's word."
  requires = { base = ">= 0.1.0", etcd = ">= 0.1.0" }
}

step "probe" {
  scope = "node"
  doc   = "A port of the node at which a test sees and breaks things past the agent: one word in, an answer out."

  apply {
    script = "files/probe-install.sh"
    files  = ["files/probe.sh"]
  }
  irreversible = "it ends with the node's root"
}

step "tick" {
  scope = "node"
  doc   = "Leaves a mark on the node each time it runs."

  input "name" { type = string }
  input "seconds" {
    type    = number
    default = 0
  }

  apply {
    script  = "files/tick.sh"
    timeout = "5m"
  }
  irreversible = "the marks are what is counted"
}

step "strict" {
  scope = "node"
  doc   = "Refuses a motto that begins with bad."

  input "motto" { type = string }

  apply { script = "files/strict.sh" }
  irreversible = "it changes nothing"
}

workflow "etcd" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }
  input "motto" {
    type    = string
    default = "good"
  }
  output "endpoints" { value = task.etcd.endpoints }

  task "etcd" {
    step  = etcd.cluster
    roles = { member = role.member }
    with  = { domain = input.domain }
  }
  task "probe" {
    step = probe
    each = role.member
  }
  task "one" {
    step = tick
    each = role.member
    with = { name = "one", seconds = 3 }
  }
  task "two" {
    step  = tick
    each  = role.member
    with  = { name = "two", seconds = 3 }
    after = [task.one]
  }
  task "note" {
    step  = tick
    each  = role.member
    with  = { name = "note ${input.motto}" }
    after = [task.two]
  }
  task "strict" {
    step  = strict
    each  = role.member
    with  = { motto = input.motto }
    after = [task.note]
  }
  task "last" {
    step  = tick
    each  = role.member
    with  = { name = "last ${input.motto}" }
    after = [task.strict]
  }
}

workflow "plain" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }
  output "names" { value = [for name, n in all.name : n.fqdn] }

  task "name" {
    step = base.dns_record
    each = role.member
    with = { name = "${node.name}.${input.domain}", addresses = [node.address] }
  }
  task "key" {
    step = base.node_key
    each = role.member
    with = { purpose = "proof" }
  }
  task "cert" {
    step = base.certificate
    each = role.member
    with = { csr = task.key.csr, profile = "peer", names = [task.name.fqdn] }
  }
  task "hosts" {
    step = base.hosts
    each = role.member
    with = { entries = all.name }
  }
  task "front" {
    step = base.balancer
    with = { name = "front.${input.domain}", port = 9900 }
  }
  task "probe" {
    step = probe
    each = role.member
  }
  task "backend" {
    step  = base.balancer_backend
    each  = role.member
    with  = { front = task.front.url, address = node.address, port = 9900 }
    after = [task.probe]
  }
  task "one" {
    step  = tick
    each  = role.member
    with  = { name = "one", seconds = 3 }
    after = [task.cert]
  }
  task "two" {
    step  = tick
    each  = role.member
    with  = { name = "two", seconds = 10 }
    after = [task.one]
  }
  task "three" {
    step  = tick
    each  = role.member
    with  = { name = "three", seconds = 3 }
    after = [task.two, task.backend, task.hosts]
  }
}
