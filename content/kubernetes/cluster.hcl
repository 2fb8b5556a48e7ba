// A key on each node of a role, with a client certificate of one subject, and the folder where the certificate is kept
// fresh: a renewal changes a file in it, and wakes nobody.
workflow "client" {
  role "holder" { min = 1 }
  input "purpose" { type = string }
  input "authority" { type = string }
  input "common_name" { type = string }
  input "groups" {
    type    = list(string)
    default = []
  }
  output "key" {
    each  = role.holder
    value = task.key.path
  }
  output "certificate" {
    each  = role.holder
    value = task.cert.certificate
  }
  output "folder" {
    each  = role.holder
    value = task.files.folder
  }

  task "key" {
    step = base.node_key
    each = role.holder
    with = { purpose = input.purpose }
  }
  task "cert" {
    step = base.certificate
    each = role.holder
    with = {
      csr         = task.key.csr
      profile     = "client"
      authority   = input.authority
      common_name = input.common_name
      groups      = input.groups
    }
  }
  task "files" {
    step = identity
    each = role.holder
    with = { name = input.purpose, certificate = task.cert.certificate }
  }
}

// What a cluster is for, tried from end to end: every control-plane node's ways in, then the cluster from one of them.
workflow "smoke" {
  role "control" { min = 1 }
  input "url" {
    type = url
    each = role.control
  }
  input "key" {
    type = path
    each = role.control
  }
  input "identity" {
    type = certificate
    each = role.control
  }
  input "etcd" { type = url }
  input "etcd_key" {
    type = path
    each = role.control
  }
  input "etcd_client" {
    type = path
    each = role.control
  }
  input "cluster_domain" { type = fqdn }
  input "outside" {
    type = fqdn
    doc  = "a name that the engine answers for, which pods have to find as well"
  }

  task "access" {
    step = smoke_access
    each = role.control
    with = {
      url         = input.url
      key         = input.key
      identity    = input.identity
      etcd        = input.etcd
      etcd_key    = input.etcd_key
      etcd_client = input.etcd_client
    }
  }
  task "test" {
    step = smoke_test
    on   = role.control
    with = {
      url            = host.access.url
      key            = host.access.key
      identity       = host.access.identity
      etcd           = input.etcd
      etcd_key       = host.access.etcd_key
      etcd_client    = host.access.etcd_client
      cluster_domain = input.cluster_domain
      outside        = input.outside
    }
    after = [all.access]
  }
}

workflow "cluster" {
  // 2.8 and 1.8 GiB of what the kernel can use: what machines of 3 and 2 GiB have, on which all of this is tried. Image, bundles
  // and, without a data disk, what lies in tmpfs are in it.
  role "control" {
    min    = 1
    max    = 7
    memory = 3006477107
  }
  role "worker" {
    min      = 1
    memory   = 1932735283
    tolerate = "5%"
  }

  input "domain" {
    type = fqdn
    doc  = "of the nodes' names and of the API's: api.DOMAIN"
  }
  input "service_cidr" {
    type    = cidr
    default = "10.32.0.0/16"
    doc     = "addresses of Services; the API has the first one, cluster DNS the tenth"
  }
  input "pod_cidr" {
    type    = cidr
    default = "10.200.0.0/16"
    doc     = "addresses of pods; each worker gets a part of it"
  }
  input "pod_prefix" {
    type    = number
    default = 24
    doc     = "length of the prefix of each worker's part"
  }
  input "max_pods" {
    type    = number
    default = 110
  }
  input "cluster_domain" {
    type    = fqdn
    default = "cluster.local"
  }
  input "drain" {
    type    = duration
    default = "2m"
    doc     = "how long pods get to leave a worker"
  }
  input "token_hours" {
    type    = number
    default = 24
    doc     = "how long service-account tokens live at most"
  }

  output "access" {
    value = { url = task.front.url, authority = "kubernetes", groups = ["joist:operators"] }
  }

  // Names, and the API's endpoint: they are there before the first apiserver is.
  task "name" {
    step = base.dns_record
    each = [role.control, role.worker]
    with = { name = "${node.name}.${input.domain}", addresses = [node.address] }
  }
  task "front" {
    step = base.balancer
    with = { name = "api.${input.domain}", port = 6443, ready = "/readyz" }
  }
  task "inner" {
    step = base.names
    with = {
      names = [
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.${input.cluster_domain}",
        cidrhost(input.service_cidr, 1), "127.0.0.1",
      ]
    }
  }
  task "hosts" {
    step = base.hosts
    each = [role.control, role.worker]
    with = { entries = all.name, section = "kubernetes" }
  }
  task "host" {
    step = host
    each = [role.control, role.worker]
  }
  slot "endpoint" {
    step  = endpoint
    each  = [role.control, role.worker]
    with  = { servers = { for name, n in role.control : name => n.address } }
    after = [task.host]
  }

  // etcd, with an authority of its own.
  task "programs" {
    step = programs
    each = role.control
  }
  task "etcd" {
    step  = etcd.cluster
    roles = { member = role.control }
    with  = { domain = "etcd.${input.domain}", authority = "etcd", programs = values(all.programs)[0].folder }
  }

  // Keys stay where they are made; only requests travel.
  task "serving_key" {
    step = base.node_key
    each = role.control
    with = { purpose = "kube-apiserver" }
  }
  task "serving" {
    step = base.certificate
    each = role.control
    with = {
      csr         = task.serving_key.csr
      profile     = "server"
      authority   = "kubernetes"
      common_name = "kube-apiserver"
      names       = concat([task.name.fqdn, node.address, "api.${input.domain}"], task.inner.names)
    }
    after = [task.front]
  }
  task "serving_files" {
    step = identity
    each = role.control
    with = { name = "kube-apiserver", certificate = task.serving.certificate }
  }
  task "etcd_client" {
    step  = client
    roles = { holder = role.control }
    with  = { purpose = "kube-apiserver-etcd", authority = "etcd", common_name = "kube-apiserver-etcd-client" }
  }
  task "kubelet_client" {
    step  = client
    roles = { holder = role.control }
    with  = { purpose = "kube-apiserver-kubelet", authority = "kubernetes", common_name = "kube-apiserver-kubelet-client" }
  }
  task "proxy_client" {
    step  = client
    roles = { holder = role.control }
    with  = { purpose = "front-proxy", authority = "front-proxy", common_name = "front-proxy-client" }
  }
  task "manager" {
    step  = client
    roles = { holder = role.control }
    with  = { purpose = "kube-controller-manager", authority = "kubernetes", common_name = "system:kube-controller-manager" }
  }
  task "scheduler" {
    step  = client
    roles = { holder = role.control }
    with  = { purpose = "kube-scheduler", authority = "kubernetes", common_name = "system:kube-scheduler" }
  }
  task "steps" {
    step  = client
    roles = { holder = role.control }
    with  = { purpose = "joist-steps", authority = "kubernetes", common_name = "joist:steps", groups = ["system:masters"] }
  }
  // What signs tokens is the same after a boot, as is what is known of keys before: every other apiserver is started anew for
  // a new one, and tokens would end with the boot.
  task "tokens" {
    step = base.data_disk
    each = role.control
    with = { mount = "/var/lib/joist/service-accounts", storage = node.storage, size = "4m" }
  }
  task "token_key" {
    step  = base.node_key
    each  = role.control
    with  = { purpose = "service-accounts", folder = "/var/lib/joist/service-accounts" }
    after = [task.tokens]
  }
  task "token_keys" {
    step  = token_keys
    each  = role.control
    with  = { keys = { for name, k in all.token_key : name => k.csr }, life = input.token_hours }
    after = [task.host]
  }
  task "token_file" {
    step = token_file
    each = role.control
    with = { folder = task.token_keys.folder, known = task.token_keys.known, left = [for name, k in all.token_keys : k.left] }
  }
  task "encryption" { step = base.secret }

  // Each apiserver asks the etcd member beside it and no other. So it knows nothing of the list of members, which may
  // change without it; and a member that dies takes one apiserver with it, which the balancers leave, instead of a part of
  // what every apiserver asks.
  task "apiserver" {
    step = apiserver
    each = role.control
    with = {
      address        = node.address
      service_cidr   = input.service_cidr
      issuer         = "https://kubernetes.default.svc.${input.cluster_domain}"
      token_hours    = input.token_hours
      etcd           = task.etcd.client_url
      encryption     = task.encryption.value
      serving_key    = task.serving_key.path
      serving        = task.serving_files.folder
      etcd_key       = task.etcd_client.key
      etcd_client    = task.etcd_client.folder
      kubelet_key    = task.kubelet_client.key
      kubelet_client = task.kubelet_client.folder
      proxy_key      = task.proxy_client.key
      proxy_client   = task.proxy_client.folder
      token_key      = task.token_key.path
      token_keys     = task.token_file.file
    }
    after = [task.hosts, task.network, task.etcd, all.token_file]
  }
  task "controllers" {
    step = controllers
    each = role.control
    with = {
      url           = task.endpoint.url
      manager_key   = task.manager.key
      manager       = task.manager.folder
      scheduler_key = task.scheduler.key
      scheduler     = task.scheduler.folder
    }
    after = [task.apiserver]
  }
  task "backend" {
    step  = base.balancer_backend
    each  = role.control
    with  = { front = task.front.url, address = node.address, port = 6443 }
    after = [task.apiserver]

    // Keys of tokens are read when an apiserver starts, so a change restarts it.
    except_during = [task.apiserver, task.token_file]
  }

  // Pods' network: each worker has a part of it, and every node knows the way there.
  task "pods" {
    step = base.network
    each = role.worker
    with = { within = input.pod_cidr, prefix = input.pod_prefix }
  }
  slot "network" {
    step = static_routes
    each = [role.control, role.worker]
    with = {
      own     = node.name
      address = node.address
      routes  = { for name, p in all.pods : name => { network = p.network, via = role.worker[name].address } }
    }
    after = [task.host]
  }
  task "bridge" {
    step  = bridge
    each  = role.worker
    with  = { network = task.pods.network, cluster = input.pod_cidr }
    after = [task.host]
  }

  // Workers. An enrolled node is who it says it is, so its kubelet's certificate comes straight from the engine: unlike
  // with bootstrap tokens, nothing secret travels, and nobody can join who is not enrolled.
  task "layers" {
    step = base.data_disk
    each = role.worker
    with = { mount = "/var/lib/containerd", storage = node.storage, size = "600m", overlay = true }
  }
  task "volumes" {
    step = base.data_disk
    each = role.worker
    with = { mount = "/var/lib/kubelet", storage = node.storage, size = "200m" }
  }
  slot "runtime" {
    step  = containerd
    each  = role.worker
    after = [task.host, task.layers]
  }
  task "kubelet_key" {
    step = base.node_key
    each = role.worker
    with = { purpose = "kubelet" }
  }
  task "kubelet_cert" {
    step = base.certificate
    each = role.worker
    with = {
      csr         = task.kubelet_key.csr
      profile     = "client"
      authority   = "kubernetes"
      common_name = "system:node:${node.name}"
      groups      = ["system:nodes"]
    }
  }
  task "kubelet_files" {
    step = identity
    each = role.worker
    with = { name = "kubelet", certificate = task.kubelet_cert.certificate }
  }
  task "kubelet_serving_key" {
    step = base.node_key
    each = role.worker
    with = { purpose = "kubelet-serving" }
  }
  task "kubelet_serving" {
    step = base.certificate
    each = role.worker
    with = {
      csr       = task.kubelet_serving_key.csr
      profile   = "server"
      authority = "kubernetes"
      names     = [task.name.fqdn, node.address]
    }
  }
  task "kubelet_serving_files" {
    step = identity
    each = role.worker
    with = { name = "kubelet-serving", certificate = task.kubelet_serving.certificate }
  }
  task "kubelet" {
    step = kubelet
    each = role.worker
    with = {
      name           = node.name
      address        = node.address
      url            = task.endpoint.url
      client_key     = task.kubelet_key.path
      client         = task.kubelet_files.folder
      serving_key    = task.kubelet_serving_key.path
      serving        = task.kubelet_serving_files.folder
      cluster_dns    = cidrhost(input.service_cidr, 10)
      cluster_domain = input.cluster_domain
      max_pods       = input.max_pods
    }
    after = [task.hosts, task.runtime, task.volumes, task.bridge]
  }
  task "proxy_user" {
    step  = client
    roles = { holder = role.worker }
    with  = { purpose = "kube-proxy", authority = "kubernetes", common_name = "system:kube-proxy" }
  }
  task "proxy" {
    step = proxy
    each = role.worker
    with = {
      name     = node.name
      url      = task.endpoint.url
      pod_cidr = input.pod_cidr
      key      = task.proxy_user.key
      client   = task.proxy_user.folder
    }
    after = [task.host]
  }

  // The cluster's own objects.
  task "roles" {
    step = manifest
    on   = role.control
    with = {
      url      = host.endpoint.url
      key      = host.steps.key
      identity = host.steps.certificate
      objects  = <<-YAML
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: { name: "joist:operators" }
        roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }
        subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: "joist:operators" }]
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: { name: "joist:apiserver-to-kubelets" }
        roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:kubelet-api-admin" }
        subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client }]
      YAML
    }
    after = [any.apiserver]
  }
  task "dns" {
    step = manifest
    on   = role.control
    with = {
      url      = host.endpoint.url
      key      = host.steps.key
      identity = host.steps.certificate
      objects  = <<-YAML
        apiVersion: v1
        kind: ServiceAccount
        metadata: { name: coredns, namespace: kube-system }
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: { name: "joist:coredns" }
        rules:
        - { apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch] }
        - { apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch] }
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: { name: "joist:coredns" }
        roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "joist:coredns" }
        subjects: [{ kind: ServiceAccount, name: coredns, namespace: kube-system }]
        ---
        apiVersion: v1
        kind: ConfigMap
        metadata: { name: coredns, namespace: kube-system }
        data:
          Corefile: |
            .:53 {
              errors
              health :8080
              ready :8181
              kubernetes ${input.cluster_domain} in-addr.arpa ip6.arpa {
                pods insecure
                fallthrough in-addr.arpa ip6.arpa
              }
              forward . /etc/resolv.conf
              cache 30
              loadbalance
              reload
            }
        ---
        apiVersion: v1
        kind: Service
        metadata: { name: kube-dns, namespace: kube-system, labels: { k8s-app: kube-dns } }
        spec:
          clusterIP: ${cidrhost(input.service_cidr, 10)}
          selector: { k8s-app: kube-dns }
          ports:
          - { name: dns, port: 53, protocol: UDP }
          - { name: dns-tcp, port: 53, protocol: TCP }
        ---
        apiVersion: apps/v1
        kind: Deployment
        metadata: { name: coredns, namespace: kube-system, labels: { k8s-app: kube-dns } }
        spec:
          replicas: 2
          selector: { matchLabels: { k8s-app: kube-dns } }
          strategy: { rollingUpdate: { maxUnavailable: 1 } }
          template:
            metadata: { labels: { k8s-app: kube-dns } }
            spec:
              serviceAccountName: coredns
              priorityClassName: system-cluster-critical
              dnsPolicy: Default
              topologySpreadConstraints:
              - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: { matchLabels: { k8s-app: kube-dns } } }
              containers:
              - name: coredns
                image: joist.internal/coredns:1.14.2
                imagePullPolicy: Never
                args: ["-conf", "/etc/coredns/Corefile"]
                resources: { requests: { cpu: 50m, memory: 32Mi }, limits: { memory: 170Mi } }
                ports: [{ containerPort: 53, name: dns, protocol: UDP }, { containerPort: 53, name: dns-tcp, protocol: TCP }]
                securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { add: [NET_BIND_SERVICE], drop: [ALL] } }
                readinessProbe: { httpGet: { path: /ready, port: 8181 }, periodSeconds: 5 }
                livenessProbe: { httpGet: { path: /health, port: 8080 }, initialDelaySeconds: 60, timeoutSeconds: 5 }
                volumeMounts: [{ name: config, mountPath: /etc/coredns, readOnly: true }]
              volumes: [{ name: config, configMap: { name: coredns, items: [{ key: Corefile, path: Corefile }] } }]
      YAML
    }
    after = [any.apiserver]
  }
  task "member" {
    step = member
    each = role.worker
    on   = role.control
    with = {
      name     = node.name
      id       = node.incarnation
      url      = host.endpoint.url
      key      = host.steps.key
      identity = host.steps.certificate
    }
    after = [task.kubelet, task.proxy, task.network, any.apiserver]
  }
  // Pods leave before what they run on changes, and come back when it is in place again.
  task "in_service" {
    step = in_service
    each = role.worker
    on   = role.control
    with = {
      name     = node.name
      id       = node.incarnation
      url      = host.endpoint.url
      key      = host.steps.key
      identity = host.steps.certificate
      drain    = input.drain
    }
    after = [task.member]

    except_during = [task.runtime, task.kubelet]
  }

  // The cluster's own test, at any time: joist force CLUSTER/smoke --wait
  task "smoke" {
    step  = smoke
    roles = { control = role.control }
    with = {
      url            = task.endpoint.url
      key            = task.steps.key
      identity       = task.steps.certificate
      etcd           = task.etcd.endpoints[0]
      etcd_key       = task.etcd_client.key
      etcd_client    = task.etcd_client.folder
      cluster_domain = input.cluster_domain
      outside        = "api.${input.domain}"
    }
    after     = [task.roles, task.dns, all.member, all.controllers]
    on_demand = true
  }

  check "members" {
    that    = length(role.control) % 2 == 1
    message = "An even number of control-plane members (${length(role.control)}) survives no more failures than one fewer: give control 1, 3, 5 or 7 machines."
  }
  check "names" {
    that    = trimsuffix(".api.${input.domain}", ".${input.cluster_domain}") == ".api.${input.domain}"
    message = "domain (${input.domain}), or the API's name in it, lies in cluster_domain (${input.cluster_domain}), for which cluster DNS answers: nobody inside would find api.${input.domain}. Change one of them."
  }
  check "networks" {
    that    = !cidrcontains(input.service_cidr, cidrhost(input.pod_cidr, 0)) && !cidrcontains(input.pod_cidr, cidrhost(input.service_cidr, 0))
    message = "service_cidr (${input.service_cidr}) and pod_cidr (${input.pod_cidr}) overlap: change one of them."
  }
  check "families" {
    that    = cidrcontains("0.0.0.0/0", cidrhost(input.service_cidr, 0)) && cidrcontains("0.0.0.0/0", cidrhost(input.pod_cidr, 0))
    message = "service_cidr (${input.service_cidr}) and pod_cidr (${input.pod_cidr}) have to be networks of IPv4, as the pods' bridge and routes are: choose one such as 10.32.0.0/16."
  }
  check "services" {
    that    = !cidrcontains("0.0.0.0/0", cidrhost(input.service_cidr, 0)) || cidrprefix(input.service_cidr) >= 12 && cidrprefix(input.service_cidr) <= 24
    message = "service_cidr is ${input.service_cidr}: give it a prefix from /12 to /24."
  }
  check "pods" {
    that    = !cidrcontains("0.0.0.0/0", cidrhost(input.pod_cidr, 0)) || input.pod_prefix == floor(input.pod_prefix) && input.pod_prefix > cidrprefix(input.pod_cidr) && input.pod_prefix - cidrprefix(input.pod_cidr) <= 16 && input.pod_prefix <= 28
    message = "pod_cidr (${input.pod_cidr}) cannot be divided into parts of pod_prefix ${input.pod_prefix}: choose one from /${cidrprefix(input.pod_cidr) + 1} to /28."
  }
  check "parts" {
    that    = length(role.worker) * cidrsize("0.0.0.0/${max(0, min(32, floor(input.pod_prefix)))}") <= cidrsize(input.pod_cidr)
    message = "pod_cidr (${input.pod_cidr}) has too few parts of /${input.pod_prefix} for ${length(role.worker)} workers: make it larger, or the parts smaller."
  }
  check "room" {
    that    = input.max_pods >= 1 && input.max_pods == floor(input.max_pods) && input.max_pods <= cidrsize("0.0.0.0/${max(0, min(32, floor(input.pod_prefix)))}") - 3
    message = "max_pods (${input.max_pods}) pods do not fit into a part of /${input.pod_prefix}: choose a whole number from 1 to what a part has, less 3, or make the parts larger."
  }
  check "tokens" {
    that    = input.token_hours >= 1 && input.token_hours == floor(input.token_hours) && input.token_hours <= 8760
    message = "token_hours is ${input.token_hours}: choose a whole number of hours from 1, the least that an apiserver takes, to 8760, a year."
  }

  // token_file stands in no rollout: where an apiserver runs that it restarts, its backend makes way first, which takes a
  // place in this one.
  // One after the other from the beginning: the first apiserver fills the empty etcd, and those that do the same at the same
  // time get in its way; on slow machines they run into their own time limits.
  rollout "control" {
    tasks         = [task.apiserver, task.controllers]
    max_in_flight = 1
    stop_after    = 1
  }
  rollout "workers" {
    tasks         = [task.runtime, task.kubelet, task.proxy]
    canaries      = 1
    max_in_flight = "20%"
    stop_after    = 1
    founding      = "together"
  }
}
