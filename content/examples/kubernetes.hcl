# One control-plane machine and two workers become a Kubernetes cluster.
cluster "demo" {
  workflow = kubernetes.cluster
  packs = {
    base       = { source = "builtin" }
    etcd       = { source = "builtin" }
    kubernetes = { source = "builtin" }
  }
  nodes = {
    control = select(facts.memory >= gib(2.8), 1)
    worker  = select(facts.memory >= gib(1.8), 2)
  }
  with    = { domain = "demo.lab" }
  storage = "memory"
}
