# Three machines that boot from the network become an etcd cluster.
cluster "demo" {
  workflow = etcd.cluster
  packs = {
    base = { source = "builtin" }
    etcd = { source = "builtin" }
  }
  nodes   = { member = select(facts.memory >= gib(1), 3) }
  with    = { domain = "demo.lab" }
  storage = "memory"
}
