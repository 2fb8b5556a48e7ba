pack "proof" {
  version  = "0.1.0"
  summary  = "A Kubernetes cluster with windows into its nodes, for tests that must not take the engine's word."
  requires = { base = ">= 0.1.0", etcd = ">= 0.1.0", kubernetes = ">= 0.1.0" }
}

step "probe" {
  scope = "node"
  doc   = "A port of the node at which a test runs commands past the agent: one line in, what it says out."

  apply {
    script = "files/probe-install.sh"
    files  = ["files/probe.sh"]
  }
  irreversible = "it ends with the node's root"
}

workflow "cluster" {
  role "control" { min = 1 }
  role "worker" { min = 1 }
  input "domain" { type = fqdn }
  output "access" { value = task.kube.access }

  task "probe" {
    step = probe
    each = [role.control, role.worker]
  }
  task "kube" {
    step  = kubernetes.cluster
    roles = { control = role.control, worker = role.worker }
    with  = { domain = input.domain, drain = "1m" }
  }
}
