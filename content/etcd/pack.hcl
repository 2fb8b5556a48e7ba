pack "etcd" {
  version  = "0.1.0"
  summary  = "A replicated etcd cluster under systemd, mutual TLS between all parties."
  requires = { base = ">= 0.1.0" }
}

step "seat" {
  scope = "cluster"
  doc   = "A seat in the cluster's membership: a founder has one and contacts nobody; others are added as learners through a living member."

  input "name" { type = string }
  input "url" { type = url }
  input "id" { type = string }
  input "founders" { type = map(object({ id = string, url = url })) }
  input "endpoint" { type = url }
  input "key" { type = path }
  input "identity" { type = certificate }
  output "initial" {
    type = map(url)
    doc  = "what the member must be started with: name to peer URL"
  }
  output "state" {
    type = string
    doc  = "new for a founder, existing for a member that joins"
  }

  apply {
    script   = "files/seat-add.sh"
    files    = ["files/etcdctl.sh"]
    attempts = 10
    backoff  = "5s"
  }
  remove {
    script   = "files/seat-remove.sh"
    files    = ["files/etcdctl.sh"]
    attempts = 10
    backoff  = "5s"
  }
}

step "voter" {
  scope = "cluster"
  doc   = "Asks client_url for its status: a voter is done, a learner is promoted through endpoint. Its remove takes the vote away before the member stops."

  input "client_url" { type = url }
  input "endpoint" { type = url }
  input "key" { type = path }
  input "identity" { type = certificate }

  apply {
    script   = "files/promote.sh"
    files    = ["files/etcdctl.sh"]
    attempts = 10
    backoff  = "5s"
  }
  verify {
    script  = "files/votes.sh"
    files   = ["files/etcdctl.sh"]
    timeout = "1m"
  }
  remove {
    script   = "files/seat-remove.sh"
    files    = ["files/etcdctl.sh"]
    attempts = 10
    backoff  = "5s"
  }
}

step "member" {
  scope = "node"
  doc   = "Runs one etcd member under systemd."

  input "name" { type = string }
  input "initial" { type = map(url) }
  input "state" { type = string }
  input "programs" { type = string }
  input "key" { type = path }
  input "identity" { type = certificate }
  output "client_url" { type = url }

  apply {
    script   = "files/member.sh"
    timeout  = "5m"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/healthy.sh"
    timeout = "2m"
  }
  remove { script = "files/stop-and-erase.sh" }
}

workflow "cluster" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }
  input "authority" {
    type     = string
    optional = true
    doc      = "an authority of the cluster for etcd alone; left out, the cluster's intermediate"
  }
  input "programs" {
    type    = string
    default = "/usr/bin"
    doc     = "the folder of the program etcd"
  }
  output "url" { value = task.front.url }
  output "endpoints" { value = [for name, m in all.member : m.client_url] }
  output "client_url" {
    each  = role.member
    value = task.member.client_url
  }

  task "name" {
    step = base.dns_record
    each = role.member
    with = { name = "${node.name}.${input.domain}", addresses = [node.address] }
  }
  task "key" {
    step = base.node_key
    each = role.member
    with = { purpose = "etcd" }
  }
  task "front" {
    step = base.balancer
    with = { name = "etcd.${input.domain}", port = 2379 }
  }
  task "cert" {
    step  = base.certificate
    each  = role.member
    with  = { csr = task.key.csr, profile = "peer", names = [task.name.fqdn, "etcd.${input.domain}"], authority = input.authority }
    after = [task.front]
  }
  task "hosts" {
    step = base.hosts
    each = role.member
    with = { entries = all.name, section = "etcd" }
  }
  task "disk" {
    step = base.data_disk
    each = role.member
    with = { mount = "/var/lib/etcd", storage = node.storage }
  }
  task "founders" {
    step = base.keep
    on   = role.member
    with = { value = { for n, m in role.member : n => { id = m.incarnation, url = "https://${all.name[n].fqdn}:2380" } } }
  }
  task "seat" {
    step = seat
    each = role.member
    on   = role.member
    with = {
      name     = node.name
      url      = "https://${task.name.fqdn}:2380"
      id       = node.incarnation
      founders = task.founders.value
      endpoint = task.front.url
      key      = host.key.path
      identity = host.cert.certificate
    }
  }
  task "member" {
    step = member
    each = role.member
    with = {
      name     = node.name
      initial  = task.seat.initial
      state    = task.seat.state
      programs = input.programs
      key      = task.key.path
      identity = task.cert.certificate
    }
    after = [task.hosts, task.disk]
  }
  task "voter" {
    step = voter
    each = role.member
    on   = role.member
    with = { client_url = task.member.client_url, endpoint = task.front.url, key = host.key.path, identity = host.cert.certificate }
  }
  task "backend" {
    step  = base.balancer_backend
    each  = role.member
    with  = { front = task.front.url, address = node.address, port = 2379 }
    after = [task.voter]
  }

  rollout "members" {
    tasks         = [task.seat, task.member, task.voter]
    canaries      = 1
    max_in_flight = 1
    stop_after    = 1
    founding      = "together"
  }
}
