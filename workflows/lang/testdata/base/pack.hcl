pack "base" {
  version = "0.1.0"
  summary = "Just enough of the shipped base pack for the tests of the language."
}

step "dns_record" {
  scope = "service"
  input "name" { type = fqdn }
  input "addresses" { type = list(address) }
  output "fqdn" { type = fqdn }
  apply { call = "names.put" }
}

step "node_key" {
  scope = "node"
  input "purpose" { type = string }
  output "path" { type = path }
  output "csr" { type = csr }
  apply { builtin = "key" }
  remove { builtin = "file" }
}

step "certificate" {
  scope = "service"
  input "csr" { type = csr }
  input "profile" { type = string }
  input "names" { type = list(fqdn) }
  output "certificate" { type = certificate }
  apply { call = "certs.sign" }
}

step "hosts" {
  scope = "node"
  input "entries" { type = map(object({ fqdn = fqdn })) }
  apply { script = "files/hosts.sh" }
  remove { script = "files/hosts.sh" }
}

step "data_disk" {
  scope = "node"
  input "mount" { type = path }
  apply { script = "files/hosts.sh" }
  irreversible = "the disk outlives the cluster"
}

step "balancer" {
  scope = "service"
  input "name" { type = fqdn }
  input "port" { type = number }
  output "url" { type = url }
  apply { call = "balance.front" }
}

step "balancer_backend" {
  scope = "service"
  input "front" { type = url }
  input "address" { type = address }
  input "port" { type = number }
  apply { call = "balance.back" }
}

step "keep" {
  scope = "cluster"
  once  = true
  input "value" { type = any }
  output "value" { type = any }
  apply { outputs = { value = input.value } }
}
