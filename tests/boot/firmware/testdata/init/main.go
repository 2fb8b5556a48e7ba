// Command init is the whole userland of the firmware test: it prints the kernel's command line and switches off.
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

func main() {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Println("cannot mount /proc:", err)
	}
	line, err := os.ReadFile("/proc/cmdline")
	fmt.Println("SCOUT REACHED", string(line), "END", err)
	time.Sleep(time.Second) // the serial line drains
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("cannot switch off:", err)
	}
	select {}
}
