# The same on data disks: members keep their data and their seats when a machine loses its power.
cluster "lasting" {
  workflow = etcd.cluster
  packs = {
    base = { source = "builtin" }
    etcd = { source = "builtin" }
  }
  nodes   = { member = select(facts.memory >= gib(1), 3) }
  with    = { domain = "lasting.lab" }
  storage = "disk"
}
