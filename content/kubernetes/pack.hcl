pack "kubernetes" {
  version  = "0.1.0"
  summary  = "Kubernetes 1.36 from plain binaries under systemd: no key leaves the machine that uses it, and no node needs the engine to run."
  requires = { base = ">= 0.1.0", etcd = ">= 0.1.0" }
  trust    = "vouched"
}

// Versions go up one minor version at a time, and never back; a kubelet may be three behind the apiserver (Kubernetes'
// version skew policy, etcd's upgrade guides).
artifact "etcd" {
  version = "3.6.8"
  kind    = "bundle"
  licence = "Apache-2.0"
  steps   = 1
}

artifact "kubernetes-control" {
  version = "1.36.3"
  kind    = "bundle"
  licence = "Apache-2.0"
  steps   = 1
}

artifact "kubernetes-node" {
  version = "1.36.3"
  kind    = "bundle"
  licence = "Apache-2.0"
  follows = "kubernetes-control"
  behind  = 3
}

artifact "containerd" {
  version = "2.2.9"
  kind    = "bundle"
  licence = "Apache-2.0"
}

artifact "images" {
  version = "1"
  kind    = "bundle"
  licence = "Apache-2.0"
}
