pack "board" {
  version  = "0.1.0"
  summary  = "What is done to a machine before it becomes a node, and what reboots it afterwards."
  requires = { base = ">= 0.1.0" }
}

step "firmware" {
  scope        = "node"
  stage        = "scout"
  doc          = "Says which boot set it up to this level, and what was process 1 then."
  irreversible = "a setting of the board stays until another one replaces it"

  input "level" { type = number }
  output "level" { type = number }
  output "boot" { type = string }
  output "init" { type = string }

  apply { script = "files/firmware.sh" }
  verify { script = "files/tools.sh" }
}

step "report" {
  scope = "node"
  doc   = "Repeats what the firmware's boot was, beside its own."

  input "firmware" { type = object({ level = number, boot = string, init = string }) }
  output "scout" { type = object({ level = number, boot = string, init = string }) }
  output "boot" { type = string }
  output "init" { type = string }

  apply { script = "files/report.sh" }
  remove { script = "files/nothing.sh" }
}

step "loader" {
  scope   = "node"
  reboots = true
  doc     = "Leaves the boot's id on the data disk, for what runs after the reboot."

  input "file" { type = string }
  output "boot" { type = string }

  apply { script = "files/loader.sh" }
  verify { script = "files/loaded.sh" }
  remove { script = "files/nothing.sh" }
}

workflow "cluster" {
  role "board" { min = 1 }
  input "level" {
    type    = number
    default = 1
  }
  output "reports" { value = { for name, r in all.report : name => r } }

  task "firmware" {
    step = firmware
    each = role.board
    with = { level = input.level }
  }
  task "report" {
    step = report
    each = role.board
    with = { firmware = { level = task.firmware.level, boot = task.firmware.boot, init = task.firmware.init } }
  }
}

workflow "rebooted" {
  role "board" { min = 1 }
  output "reports" { value = { for name, r in all.report : name => { loader = all.loader[name].boot, boot = r.boot } } }

  task "firmware" {
    step = firmware
    each = role.board
    with = { level = 1 }
  }
  task "disk" {
    step = base.data_disk
    each = role.board
    with = { mount = "/var/lib/board", storage = node.storage }
  }
  task "loader" {
    step  = loader
    each  = role.board
    with  = { file = "/var/lib/joist/data/loader" }
    after = [task.disk]
  }
  task "report" {
    step  = report
    each  = role.board
    with  = { firmware = { level = task.firmware.level, boot = task.firmware.boot, init = task.firmware.init } }
    after = [task.loader]
  }
}
