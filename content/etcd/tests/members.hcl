# A cluster of three members is founded, grows, loses a member, shrinks, and is taken back.

fake "seat" {
  outputs = {
    initial = { for name, f in input.founders : name => f.url }
    state   = contains(keys(input.founders), input.name) ? "new" : "existing"
  }
}

fake "member" {
  outputs = { client_url = "https://${node.name}.demo.lab:2379" }
}

test "three members found a cluster together" {
  workflow = etcd.cluster
  nodes    = { member = ["n1", "n2", "n3"] }
  with     = { domain = "demo.lab" }

  plan = {
    "seat[*]"    = "run"
    "backend[*]" = "run"
    founders     = "run"
  }
  order = ["founders", "seat[n2]", "member[n2]", "voter[n2]", "backend[n2]"]
  given = {
    "hosts[n1]" = {
      entries = {
        n1 = { fqdn = "n1.demo.lab", addresses = ["10.0.0.1"] }
        n2 = { fqdn = "n2.demo.lab", addresses = ["10.0.0.2"] }
        n3 = { fqdn = "n3.demo.lab", addresses = ["10.0.0.3"] }
      }
    }
    "member[n1]" = { state = "new" }
  }
  outputs = {
    url       = "https://etcd.demo.lab:2379"
    endpoints = ["https://n1.demo.lab:2379", "https://n2.demo.lab:2379", "https://n3.demo.lab:2379"]
  }

  change "nothing changed" {
    plan = { "*" = "unchanged" }
    runs = []
  }

  change "n4 joins" {
    nodes   = { member = ["n1", "n2", "n3", "n4"] }
    plan    = { "member[n1]" = "unchanged", "member[n4]" = "run" }
    runs    = ["*[n4]", "hosts[*]"]
    removes = []
    order   = ["seat[n4]", "member[n4]", "voter[n4]", "backend[n4]"]
    given   = { "member[n4]" = { state = "existing" } }
  }

  change "n2 loses power, and comes back with nothing" {
    crash   = ["n2"]
    runs    = ["*[n2]"]
    removes = ["voter[n2]", "seat[n2]", "backend[n2]", "cert[n2]", "name[n2]"]
    order   = ["remove backend[n2]", "remove voter[n2]", "remove seat[n2]", "seat[n2]", "member[n2]"]
  }

  change "n4 leaves" {
    nodes   = { member = ["n1", "n2", "n3"] }
    runs    = ["hosts[n1]", "hosts[n2]", "hosts[n3]"]
    removes = ["*[n4]"]
    order   = ["remove backend[n4]", "remove voter[n4]", "remove member[n4]", "remove seat[n4]"]
  }

  change "n4, which was erased, comes back" {
    nodes   = { member = ["n1", "n2", "n3", "n4"] }
    runs    = ["*[n4]", "hosts[*]"]
    removes = []
  }

  change "everything is taken back" {
    destroy = true
    removes = ["name[*]", "cert[*]", "backend[*]", "front"]
  }
}

test "a new member that cannot become a voter stops the rollout" {
  workflow = etcd.cluster
  nodes    = { member = ["n1", "n2", "n3"] }
  with     = { domain = "demo.lab" }

  change "n4 and n5 join, and n4 never catches up" {
    fake "voter" {
      fails = 1000
      error = "not a learner in sync yet"
    }
    nodes   = { member = ["n1", "n2", "n3", "n4", "n5"] }
    outcome = "stopped"
    fails   = { "voter[n4]" = "in sync" }
    removes = []
  }

  change "the fault is mended, and the goal set again" {
    fake "voter" {}
    runs = ["voter[n4]", "backend[n4]", "seat[n5]", "member[n5]", "voter[n5]", "backend[n5]"]
  }
}

test "crashes, partitions and slowness do not keep five members from founding a cluster" {
  workflow = etcd.cluster
  nodes    = { member = ["n1", "n2", "n3", "n4", "n5"] }
  with     = { domain = "demo.lab" }
  faults   = ["crash", "partition", "slow", "lose", "duplicate"]
  seed     = 7
}
