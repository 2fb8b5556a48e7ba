# The steps of this pack, each called once by a workflow of the tests' own.

fake "hosts" {}

workflow "site" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }
  input "motd" {
    type    = string
    default = "hello"
  }
  output "front" { value = task.front.url }
  output "founder" { value = task.founder.value }

  task "name" {
    step = base.dns_record
    each = role.member
    with = { name = "${node.name}.${input.domain}", addresses = [node.address] }
  }
  task "hosts" {
    step = base.hosts
    each = role.member
    with = { entries = all.name }
  }
  task "key" {
    step = base.node_key
    each = role.member
    with = { purpose = "site" }
  }
  task "cert" {
    step = base.certificate
    each = role.member
    with = { csr = task.key.csr, profile = "server", names = [task.name.fqdn] }
  }
  task "front" {
    step = base.balancer
    with = { name = "www.${input.domain}", port = 443 }
  }
  task "motd" {
    step = base.file
    each = role.member
    with = { name = "/etc/motd", content = input.motd }
  }
  task "unit" {
    step  = base.systemd_unit
    each  = role.member
    with  = { name = "site.service", content = "[Service]\nExecStart=/bin/true\n" }
    after = [task.motd, task.cert]
  }
  task "founder" {
    step = base.keep
    on   = role.member
    with = { value = input.motd }
  }
  task "ready" {
    step = base.wait
    with = { until = length(all.unit) > 0 }
  }
  task "backend" {
    step  = base.balancer_backend
    each  = role.member
    with  = { front = task.front.url, address = node.address, port = 443 }
    after = [task.unit, task.ready]
  }
}

test "names, files, units, keys and balancers" {
  workflow = test.site
  nodes    = { member = ["a", "b"] }
  with     = { domain = "demo.lab" }

  order   = ["name[a]", "hosts[b]"]
  outputs = { front = "https://www.demo.lab:443", founder = "hello" }
  given = {
    "backend[b]" = { front = "https://www.demo.lab:443", address = "10.0.0.2", port = 443 }
    "cert[a]"    = { names = ["a.demo.lab"] }
  }

  change "a file changes: it alone is written, and the decision is kept" {
    with    = { domain = "demo.lab", motd = "bye" }
    plan    = { "motd[*]" = "run", founder = "kept", "unit[*]" = "unchanged" }
    runs    = ["motd[a]", "motd[b]"]
    removes = []
    outputs = { founder = "hello" }
  }

  change "b is lost for good and leaves" {
    kill       = ["b"]
    nodes      = { member = ["a"] }
    with       = { domain = "demo.lab", motd = "bye" }
    runs       = ["hosts[a]"]
    removes    = ["name[b]", "cert[b]", "backend[b]"]
    discharges = ["hosts[b]", "key[b]", "motd[b]", "unit[b]"]
  }

  change "all of it is taken back" {
    destroy    = true
    removes    = ["name[a]", "cert[a]", "backend[a]", "front"]
    discharges = ["*[a]", "founder", "ready"]
  }
}

test "a file that cannot be written at first is written at the third attempt" {
  workflow = test.site
  nodes    = { member = ["a"] }
  with     = { domain = "demo.lab" }

  fake "file" {
    fails   = 2
    error   = "no space left"
    outputs = { path = "/etc/motd" }
  }
  runs = ["*"]
}

test "a file that can never be written stops what is ordered after it" {
  workflow = test.site
  nodes    = { member = ["a"] }
  with     = { domain = "demo.lab" }

  fake "file" {
    fails = 1000
    error = "no space left"
  }
  outcome = "stopped"
  fails   = { "motd[a]" = "no space" }
  runs    = ["name[a]", "hosts[a]", "key[a]", "cert[a]", "front", "founder", "motd[a]"]
}
