# What tapes are recorded with that need more than the packs that ship. Each tape has its own copy: this one may change.
pack "team" {
  version = "0.1.0"
  summary = "A service on every node, updated when a person has approved it."
  trust   = "claimed"
}

step "go_ahead" {
  scope = "cluster"
  input "version" { type = string }
  apply { approve = "Take all nodes to ${input.version}?" }
}

step "serve" {
  scope = "node"
  input "version" { type = string }
  output "out" { type = string }
  apply { script = "files/serve.sh" }
  verify { script = "files/serve.sh" }
  remove { script = "files/serve.sh" }
}

step "use" {
  scope = "node"
  input "served" { type = map(object({ out = string })) }
  apply { script = "files/serve.sh" }
  remove { script = "files/serve.sh" }
}

workflow "cluster" {
  role "node" { min = 1 }
  input "version" { type = string }

  task "go_ahead" {
    step = go_ahead
    with = { version = input.version }
  }
  task "serve" {
    step  = serve
    each  = role.node
    with  = { version = input.version }
    after = [task.go_ahead]
  }
  task "use" {
    step = use
    each = role.node
    with = { served = all.serve }
  }

  rollout "all" {
    tasks         = [task.serve]
    max_in_flight = 1
    stop_after    = 1
  }
}
