# What is in place only while something else runs: a name by which a node is known while its file is written.

workflow "passing" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }
  input "motd" {
    type    = string
    default = "hello"
  }

  task "pass" {
    step   = base.dns_record
    each   = role.member
    with   = { name = "pass-${node.name}.${input.domain}", addresses = [node.address] }
    during = [task.motd]
  }
  task "motd" {
    step = base.file
    each = role.member
    with = { name = "/etc/motd", content = "${input.motd} from ${task.pass.fqdn}" }
  }
  task "hosts" {
    step  = base.file
    each  = role.member
    with  = { name = "/etc/issue", content = input.motd }
    after = [task.motd]
  }
}

test "a name that stands only while a file is written" {
  workflow = test.passing
  nodes    = { member = ["n1", "n2"] }
  with     = { domain = "demo.lab" }

  plan    = { "pass[*]" = "run", "motd[*]" = "run" }
  order   = ["pass[n1]", "motd[n1]", "remove pass[n1]"]
  runs    = ["pass[*]", "motd[*]", "hosts[*]"]
  removes = ["pass[*]"]

  change "nothing changed" {
    runs    = []
    removes = []
  }

  change "another name, of which nothing that is in place was made" {
    with    = { domain = "other.lab" }
    runs    = []
    removes = []
  }

  change "another text" {
    with    = { domain = "other.lab", motd = "good morning" }
    order   = ["pass[n2]", "motd[n2]", "remove pass[n2]"]
    runs    = ["pass[*]", "motd[*]", "hosts[*]"]
    removes = ["pass[*]"]
  }

  change "n2 crashes, and comes back with nothing" {
    with    = { domain = "other.lab", motd = "good morning" }
    crash   = ["n2"]
    runs    = ["*[n2]"]
    removes = ["pass[n2]"]
  }

  change "all goes" {
    destroy = true
  }
}
