# The etcd cluster of etcd-disk.hcl, with policies: what they refuse is not planned by mistake, and does not begin by itself.
cluster "demo" {
  workflow = etcd.cluster
  packs = {
    base = { source = "builtin" }
    etcd = { source = "builtin" }
  }
  nodes   = { member = select(facts.memory >= gib(1), 3) }
  with    = { domain = "demo.lab" }
  storage = "disk"

  policy "quorum" {
    doc    = "Two members that leave at once could take the majority with them."
    refuse = "removal"
    roles  = [role.member]
    tasks  = [task.seat, task.member]
    beyond = 1
  }

  policy "wipe-hours" {
    doc      = "A wipe destroys what is stored; somebody is to be there."
    refuse   = "wipe"
    outside  = ["Mon-Fri 08:00-16:00"]
    zone     = "+01:00"
    override = true
  }
}
