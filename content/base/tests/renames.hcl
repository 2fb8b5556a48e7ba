# Tasks and roles of a workflow are renamed from one version to the next: what stands, stands.

fake "hosts" {}

workflow "first" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }
  input "files" { type = map(string) }

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
  task "file" {
    step  = base.file
    each  = role.member
    for   = input.files
    with  = { name = "/etc/site.d/${item.key}", content = item.value }
    after = [task.hosts]
  }
  task "site" {
    step  = part
    roles = { node = role.member }
  }
  rollout "files" { tasks = [task.hosts, task.file] }
}

workflow "part" {
  role "node" { min = 1 }
  task "motd" {
    step = base.file
    each = role.node
    with = { name = "/etc/motd", content = "hello" }
  }
}

workflow "second" {
  role "machine" {
    min = 1
    was = ["member"]
  }
  input "domain" { type = fqdn }
  input "files" { type = map(string) }

  task "record" {
    was  = ["name"]
    step = base.dns_record
    each = role.machine
    with = { name = "${node.name}.${input.domain}", addresses = [node.address] }
  }
  task "table" {
    was  = ["hosts"]
    step = base.hosts
    each = role.machine
    with = { entries = all.record }
  }
  task "page" {
    was   = ["file"]
    step  = base.file
    each  = role.machine
    for   = input.files
    with  = { name = "/etc/site.d/${item.key}", content = item.value }
    after = [task.table]
  }
  task "greeting" {
    was   = ["site"]
    step  = text
    roles = { host = role.machine }
  }
  rollout "files" { tasks = [task.table, task.page] }
}

workflow "text" {
  role "host" {
    min = 1
    was = ["node"]
  }
  task "today" {
    was  = ["motd"]
    step = base.file
    each = role.host
    with = { name = "/etc/motd", content = "hello" }
  }
}

test "tasks and roles are renamed, and nothing is done" {
  workflow = test.first
  nodes    = { member = ["a", "b"] }
  with     = { domain = "demo.lab", files = { one = "1" } }

  runs = ["name[*]", "hosts[*]", "file[*][one]", "site.motd[*]"]

  change "everything has another name" {
    workflow = test.second
    nodes    = { machine = ["a", "b"] }
    plan     = { "record[*]" = "unchanged", "table[*]" = "unchanged", "page[*][one]" = "unchanged", "greeting.today[*]" = "unchanged" }
    runs     = []
    removes  = []
    given    = { "page[b][one]" = { content = "1" } }
  }

  change "a node joins, and another item: both go by the new names" {
    nodes   = { machine = ["a", "b", "c"] }
    with    = { domain = "demo.lab", files = { one = "1", two = "2" } }
    runs    = ["record[c]", "table[*]", "page[*][two]", "page[c][one]", "greeting.today[c]"]
    removes = []
  }

  change "and back to the first version" {
    workflow = test.first
    nodes    = { member = ["a", "b", "c"] }
    runs     = []
    removes  = []
  }

  change "all of it is taken back" {
    destroy    = true
    removes    = ["name[*]"]
    discharges = ["hosts[*]", "file[*][*]", "site.motd[*]"]
  }
}
