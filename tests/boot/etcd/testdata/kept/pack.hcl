pack "kept" {
  version  = "0.1.0"
  summary  = "A line for each boot, in a file on the data disk."
  requires = { base = ">= 0.1.0" }
}

step "line" {
  scope = "node"
  doc   = "Adds a line to the file, and says how many there are."

  input "file" { type = string }
  output "lines" { type = number }

  apply { script = "files/line.sh" }
  remove { script = "files/remove.sh" }
}

workflow "cluster" {
  role "keeper" { min = 1 }
  output "lines" { value = { for name, l in all.line : name => l.lines } }

  task "disk" {
    step = base.data_disk
    each = role.keeper
    with = { mount = "/var/lib/kept", storage = node.storage, overlay = true }
  }
  task "line" {
    step  = line
    each  = role.keeper
    with  = { file = "/var/lib/kept/log" }
    after = [task.disk]
  }
}
