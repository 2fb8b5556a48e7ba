# The steps of this pack, each called once by a workflow of the tests' own.

fake "hosts" {}

workflow "site" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }
  input "motd" {
    type    = string
    default = "hello"
  }
  input "aliases" {
    type    = map(address)
    default = {}
  }
  input "files" {
    type    = map(string)
    default = {}
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
  task "alias" {
    step = base.dns_record
    for  = input.aliases
    with = { name = "${item.key}.${input.domain}", addresses = [item.value] }
  }
  task "file" {
    step  = base.file
    each  = role.member
    for   = input.files
    with  = { name = "/etc/site.d/${item.key}", content = item.value }
    after = [task.alias]
  }
  task "index" {
    step = base.file
    each = role.member
    with = { name = "/etc/site.d/index", content = join(" ", [for key, a in task.alias : "${key}=${a.fqdn}"]) }
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
    discharges = ["hosts[b]", "key[b]", "motd[b]", "unit[b]", "index[b]"]
  }

  change "all of it is taken back" {
    destroy    = true
    removes    = ["name[a]", "cert[a]", "backend[a]", "front"]
    discharges = ["*[a]", "founder", "ready"]
  }
}

test "an instance for each item" {
  workflow = test.site
  nodes    = { member = ["a", "b"] }
  with     = { domain = "demo.lab", aliases = { www2 = "10.0.0.9", ftp = "10.0.0.8" }, files = { one = "1", two = "2" } }

  order = ["alias[\"ftp\"]", "file[a][one]"]
  given = {
    "alias[\"www2\"]" = { name = "www2.demo.lab", addresses = ["10.0.0.9"] }
    "file[b][two]"    = { name = "/etc/site.d/two", content = "2" }
    "index[a]"        = { content = "ftp=ftp.demo.lab www2=www2.demo.lab" }
  }

  change "one item changes, one comes and one goes" {
    with    = { domain = "demo.lab", aliases = { www2 = "10.0.0.9" }, files = { one = "1", two = "second", three = "3" } }
    plan    = { "file[a][one]" = "unchanged", "file[a][two]" = "run", "alias[\"ftp\"]" = "remove" }
    runs    = ["file[a][two]", "file[b][two]", "file[a][three]", "file[b][three]", "index[a]", "index[b]"]
    removes = ["alias[\"ftp\"]"]
  }

  change "b is lost for good and leaves, with its items" {
    kill       = ["b"]
    nodes      = { member = ["a"] }
    with       = { domain = "demo.lab", aliases = { www2 = "10.0.0.9" }, files = { one = "1", two = "second", three = "3" } }
    removes    = ["name[b]", "cert[b]", "backend[b]"]
    discharges = ["hosts[b]", "key[b]", "motd[b]", "unit[b]", "index[b]", "file[b][one]", "file[b][two]", "file[b][three]"]
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
  runs    = ["name[a]", "hosts[a]", "key[a]", "cert[a]", "front", "founder", "motd[a]", "index[a]"]
}
