// What runs on every node, and on workers.

step "host" {
  scope = "node"
  doc   = "Prepares the system: kernel modules, kernel settings, no swap, folders, a user."

  apply {
    script  = "files/host.sh"
    timeout = "2m"
  }
  verify {
    script  = "files/host.sh"
    timeout = "2m"
  }
  remove { script = "files/host.sh" }
}

step "identity" {
  scope = "node"
  doc   = "A folder with a certificate, cert.pem, and the authority that signed it, ca.pem, which programs read anew when they change."

  input "name" { type = string }
  input "certificate" { type = certificate }
  output "folder" { type = path }

  apply {
    script   = "files/identity.sh"
    files    = ["files/lib.sh"]
    attempts = 3
  }
  verify {
    script = "files/identity.sh"
    files  = ["files/lib.sh"]
  }
  remove {
    script = "files/identity.sh"
    files  = ["files/lib.sh"]
  }
}

step "endpoint" {
  scope = "node"
  doc   = "The node's own way to the API: a balancer on 127.0.0.1 over all control-plane members, which checks whether they are ready."

  input "servers" { type = map(address) }
  output "url" { type = url }

  apply {
    script   = "files/endpoint.sh"
    files    = ["files/lib.sh"]
    timeout  = "5m"
    attempts = 3
  }
  verify {
    script  = "files/endpoint.sh"
    files   = ["files/lib.sh"]
    timeout = "2m"
  }
  remove {
    script = "files/endpoint.sh"
    files  = ["files/lib.sh"]
  }
}

step "containerd" {
  scope     = "node"
  doc       = "Runs containerd with the images of the bundle. Its verify proves that an overlay can be mounted where layers lie, and a lower file deleted through it."
  artifacts = [containerd, images]

  input "runtime" {
    type    = string
    default = "runc"
    doc     = "the program that starts containers: runc or crun"
  }

  apply {
    script   = "files/containerd.sh"
    files    = ["files/lib.sh"]
    timeout  = "10m"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/containerd.sh"
    files   = ["files/lib.sh"]
    timeout = "2m"
  }
  remove {
    script = "files/containerd.sh"
    files  = ["files/lib.sh"]
  }
}

step "static_routes" {
  scope = "node"
  doc   = "Pods' networks by way of the nodes that have them, without an overlay. Routes that are not wanted any more go."

  input "routes" { type = map(object({ network = cidr, via = address })) }
  input "own" {
    type = string
    doc  = "the node's name: it routes its own pods itself"
  }
  input "address" {
    type = address
    doc  = "the node's address, which what it sends to pods comes from"
  }

  apply {
    script   = "files/routes.sh"
    attempts = 3
  }
  verify { script = "files/routes.sh" }
  remove { script = "files/routes.sh" }
}

step "vxlan" {
  scope = "node"
  doc   = "Pods' networks in an overlay, for where the network between nodes does not route them: VXLAN, from the kernel alone. Fills the slot network."

  input "routes" { type = map(object({ network = cidr, via = address })) }
  input "own" { type = string }
  input "address" { type = address }
  input "port" {
    type    = number
    default = 4789
  }
  input "id" {
    type    = number
    default = 77
    doc     = "the overlay's number; another one for each cluster on a network"
  }

  apply {
    script   = "files/vxlan.sh"
    attempts = 3
  }
  verify { script = "files/vxlan.sh" }
  remove { script = "files/vxlan.sh" }
}

step "bridge" {
  scope = "node"
  doc   = "The node's pods on a bridge with addresses of its part of the pod network; what they send out of that network leaves with the node's address."

  input "network" { type = cidr }
  input "cluster" { type = cidr }

  apply {
    script   = "files/bridge.sh"
    attempts = 3
  }
  verify { script = "files/bridge.sh" }
  remove { script = "files/bridge.sh" }
}

step "kubelet" {
  scope     = "node"
  doc       = "Runs the kubelet. Both of its certificates come from the engine and are read anew when they change, so that a renewal restarts neither it nor a pod."
  artifacts = [kubernetes-node, containerd]

  input "name" { type = string }
  input "address" { type = address }
  input "url" { type = url }
  input "client_key" { type = path }
  input "client" { type = path }
  input "serving_key" { type = path }
  input "serving" { type = path }
  input "cluster_dns" { type = address }
  input "cluster_domain" { type = fqdn }
  input "max_pods" { type = number }

  apply {
    script   = "files/kubelet.sh"
    files    = ["files/lib.sh"]
    timeout  = "5m"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/kubelet.sh"
    files   = ["files/lib.sh"]
    timeout = "2m"
  }
  remove {
    script = "files/kubelet.sh"
    files  = ["files/lib.sh"]
  }
}

step "proxy" {
  scope     = "node"
  doc       = "Runs kube-proxy with nftables."
  artifacts = [kubernetes-node]

  input "name" { type = string }
  input "url" { type = url }
  input "pod_cidr" { type = cidr }
  input "key" { type = path }
  input "client" { type = path }

  apply {
    script   = "files/proxy.sh"
    files    = ["files/lib.sh"]
    timeout  = "5m"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/proxy.sh"
    files   = ["files/lib.sh"]
    timeout = "2m"
  }
  remove {
    script = "files/proxy.sh"
    files  = ["files/lib.sh"]
  }
}
