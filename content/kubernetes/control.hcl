// What runs on control-plane nodes.

step "programs" {
  scope     = "node"
  doc       = "Says where the programs of the etcd bundle are: the etcd pack takes them from wherever they lie."
  artifacts = [etcd]

  output "folder" { type = string }

  apply {
    script  = "files/programs.sh"
    timeout = "5m"
  }
  verify { script = "files/programs.sh" }
  remove { script = "files/programs.sh" }
}

step "token_keys" {
  scope = "node"
  doc   = "The public keys whose service-account tokens are to be accepted, as a node knows them: one that is not wanted any more stays as long as tokens it signed may live."

  input "keys" {
    type = map(csr)
    doc  = "a request by each member's key, of which the public key is used"
  }
  input "life" {
    type = number
    doc  = "hours that tokens live at most"
  }
  output "folder" { type = path }
  output "known" {
    type = list(string)
    doc  = "names of the keys' files in the folder"
  }
  output "left" {
    type = map(string)
    doc  = "of these the keys that are not wanted any more, for members that never saw them"
  }

  apply {
    script   = "files/token-keys.sh"
    timeout  = "1m"
    attempts = 3
  }
  remove { script = "files/token-keys.sh" }
}

step "token_file" {
  scope = "node"
  doc   = "The file of the keys whose service-account tokens the node's apiserver accepts. A new one is taken up before its key signs."

  input "folder" { type = path }
  input "known" { type = list(string) }
  input "left" {
    type = list(map(string))
    doc  = "what each member has seen leave"
  }
  output "file" { type = path }

  apply {
    script   = "files/token-file.sh"
    files    = ["files/lib.sh"]
    timeout  = "10m"
    attempts = 3
  }
  remove {
    script = "files/token-file.sh"
    files  = ["files/lib.sh"]
  }
}

step "apiserver" {
  scope     = "node"
  doc       = "Runs kube-apiserver. Certificates are read anew when they change; it is restarted only if its flags or files of configuration change."
  artifacts = [kubernetes-control]

  input "address" { type = address }
  input "service_cidr" { type = cidr }
  input "issuer" { type = url }
  input "token_hours" { type = number }
  input "etcd" {
    type = url
    doc  = "of the member on the same node"
  }
  input "encryption" { type = secret(string) }
  input "serving_key" { type = path }
  input "serving" { type = path }
  input "etcd_key" { type = path }
  input "etcd_client" { type = path }
  input "kubelet_key" { type = path }
  input "kubelet_client" { type = path }
  input "proxy_key" { type = path }
  input "proxy_client" { type = path }
  input "token_key" { type = path }
  input "token_keys" { type = path }
  output "url" { type = url }

  apply {
    script   = "files/apiserver.sh"
    files    = ["files/lib.sh", "files/audit-policy.yaml"]
    timeout  = "10m"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/apiserver.sh"
    files   = ["files/lib.sh", "files/audit-policy.yaml"]
    timeout = "2m"
  }
  remove {
    script = "files/apiserver.sh"
    files  = ["files/lib.sh", "files/audit-policy.yaml"]
  }
}

step "controllers" {
  scope     = "node"
  doc       = "Runs kube-controller-manager and kube-scheduler. They sign nothing: no authority's key is on a node."
  artifacts = [kubernetes-control]

  input "url" { type = url }
  input "manager_key" { type = path }
  input "manager" { type = path }
  input "scheduler_key" { type = path }
  input "scheduler" { type = path }

  apply {
    script   = "files/controllers.sh"
    files    = ["files/lib.sh"]
    timeout  = "5m"
    attempts = 3
    backoff  = "5s"
  }
  verify {
    script  = "files/controllers.sh"
    files   = ["files/lib.sh"]
    timeout = "2m"
  }
  remove {
    script = "files/controllers.sh"
    files  = ["files/lib.sh"]
  }
}

step "manifest" {
  scope     = "cluster"
  doc       = "Objects of the cluster. Its remove deletes them."
  artifacts = [kubernetes-control]

  input "url" { type = url }
  input "key" { type = path }
  input "identity" { type = certificate }
  input "objects" {
    type = string
    doc  = "YAML or JSON, as kubectl apply takes it"
  }

  apply {
    script   = "files/manifest.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "3m"
    attempts = 20
    backoff  = "3s"
  }
  verify {
    script  = "files/as-applied.sh"
    files   = ["files/kubectl.sh"]
    timeout = "2m"
  }
  remove {
    script   = "files/manifest.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "3m"
    attempts = 5
    backoff  = "5s"
  }
}

step "member" {
  scope     = "cluster"
  doc       = "A node as a member of the cluster: applied once the node is Ready. Its remove deletes the node."
  artifacts = [kubernetes-control]

  input "name" { type = string }
  input "id" {
    type = string
    doc  = "the node's incarnation: another one is another member"
  }
  input "url" { type = url }
  input "key" { type = path }
  input "identity" { type = certificate }

  apply {
    script   = "files/member.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "6m"
    attempts = 20
    backoff  = "3s"
  }
  verify {
    script  = "files/joined.sh"
    files   = ["files/kubectl.sh"]
    timeout = "2m"
  }
  remove {
    script   = "files/member.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "5m"
    attempts = 5
    backoff  = "5s"
  }
}

step "in_service" {
  scope     = "cluster"
  doc       = "A node takes pods. Its remove cordons the node, and drains it within a time."
  artifacts = [kubernetes-control]

  input "name" { type = string }
  input "id" { type = string }
  input "url" { type = url }
  input "key" { type = path }
  input "identity" { type = certificate }
  input "drain" { type = duration }

  apply {
    script   = "files/in-service.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "1m"
    attempts = 10
    backoff  = "3s"
  }
  remove {
    script   = "files/in-service.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "15m"
    attempts = 5
    backoff  = "5s"
  }
}

step "smoke_access" {
  scope        = "node"
  doc          = "The ways of a control-plane node into the API and into etcd, and what opens them, after each was tried."
  artifacts    = [kubernetes-control]
  irreversible = "it changes nothing"

  input "url" { type = url }
  input "key" { type = path }
  input "identity" { type = certificate }
  input "etcd" { type = url }
  input "etcd_key" { type = path }
  input "etcd_client" { type = path }
  output "url" { type = url }
  output "key" { type = path }
  output "identity" { type = certificate }
  output "etcd_key" { type = path }
  output "etcd_client" { type = path }

  apply {
    script   = "files/smoke-access.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "2m"
    attempts = 3
    backoff  = "5s"
  }
}

step "smoke_test" {
  scope     = "cluster"
  doc       = "Tries the cluster from end to end in a namespace of its own: pods across nodes, a Service by name and by port, a name outside of the cluster, logs, exec, port-forward, a secret in etcd."
  artifacts = [kubernetes-control]
  // Its namespace goes when it ends, however it ends; with the machine it runs on, at the next time.
  irreversible = "it leaves nothing"

  input "url" { type = url }
  input "key" { type = path }
  input "identity" { type = certificate }
  input "etcd" { type = url }
  input "etcd_key" { type = path }
  input "etcd_client" { type = path }
  input "cluster_domain" { type = fqdn }
  input "outside" { type = fqdn }

  apply {
    script   = "files/smoke.sh"
    files    = ["files/kubectl.sh"]
    timeout  = "15m"
    attempts = 2
    backoff  = "5s"
  }
}
