# One control-plane machine and two workers become a Kubernetes cluster. containerd, kubelets and etcd keep what they have on a
# data disk: machines without one need storage = "memory".
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
  storage = "disk"
}
