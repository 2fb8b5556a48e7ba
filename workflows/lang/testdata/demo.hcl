cluster "demo" {
  workflow = etcd.cluster
  packs    = { etcd = { source = "./etcd", version = "~> 0.1" } }
  nodes    = { member = select(facts.memory >= gib(2), 3) }
  with     = { domain = "demo.lab" }
}
