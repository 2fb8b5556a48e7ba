# A cluster of one control-plane machine and two workers comes up, gets a worker, and loses it again.

fake "etcd.seat" {
  outputs = {
    initial = { for name, f in input.founders : name => f.url }
    state   = "new"
  }
}

fake "etcd.member" {
  outputs = { client_url = "https://${node.name}.etcd.demo.lab:2379" }
}

test "a cluster comes up" {
  workflow = kubernetes.cluster
  nodes    = { control = ["c1"], worker = ["w1", "w2"] }
  with     = { domain = "demo.lab" }

  order = ["front", "serving[c1]", "apiserver[c1]", "member[w1]", "in_service[w1]"]

  change "nothing changed" {
    plan = { "*" = "unchanged" }
    runs = []
  }

  change "somebody asks for the smoke test" {
    asks = ["smoke"]
    plan = { "smoke.access[c1]" = "run", "apiserver[c1]" = "unchanged" }
    runs = ["smoke.access[c1]", "smoke.test"]
  }

  change "w3 joins" {
    nodes   = { control = ["c1"], worker = ["w1", "w2", "w3"] }
    plan    = { "apiserver[c1]" = "unchanged", "kubelet[w1]" = "unchanged", "kubelet[w3]" = "run" }
    runs    = ["*[w3]", "hosts[*]", "network[*]"]
    removes = []
  }

  change "w3 leaves" {
    nodes = { control = ["c1"], worker = ["w1", "w2"] }
    order = ["remove in_service[w3]", "remove member[w3]"]
  }
}
