package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Accel is how a machine's processors are run.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // hardware virtualisation
	TCG Accel = "tcg" // emulation; always works
)

// cpuModel is the same for both accelerators: everything that the accelerator can offer.
const cpuModel = "max"

func (a Accel) args() []string {
	if a == KVM {
		return []string{"-accel", "kvm"}
	}
	return []string{"-accel", "tcg,thread=multi"}
}

// probeLimit bounds the trial of KVM.
const probeLimit = 10 * time.Second

// probeSuccess is what a kernel without a root filesystem says last, when everything before went well.
const probeSuccess = "VFS: Unable to mount root fs"

// probeKVM finds out whether KVM can run our kernel with our processor model, by doing it. That /dev/kvm exists says
// little: nested and partial implementations abort QEMU, or stall the guest. The answer is no unless the kernel came
// through its whole start within the limit; why says what was seen.
func probeKVM(ctx context.Context, qemu, kernel string) (ok bool, why string) {
	if kernel == "" {
		return false, "no kernel to try KVM with"
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return false, err.Error()
	} else {
		_ = f.Close()
	}
	return tryKernel(ctx, KVM, qemu, kernel)
}

func tryKernel(ctx context.Context, accel Accel, qemu, kernel string) (ok bool, why string) {
	dir, err := os.MkdirTemp("", "joist-probe-")
	if err != nil {
		return false, err.Error()
	}
	defer func() { _ = os.RemoveAll(dir) }()
	console := filepath.Join(dir, "console")
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, append(accel.args(),
		"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-cpu", cpuModel, "-m", "256M", "-smp", "2",
		"-no-reboot", "-kernel", kernel, "-append", "console=ttyS0 panic=-1", "-serial", "file:"+comma(console))...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	out, _ := os.ReadFile(console)
	if err == nil && bytes.Contains(out, []byte(probeSuccess)) {
		return true, "our kernel starts under KVM"
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return false, fmt.Sprintf("our kernel did not start under KVM within %v", probeLimit)
	case err != nil:
		return false, fmt.Sprintf("QEMU with KVM ended with %v: %s", err, lastLine(said.String()))
	default:
		return false, "our kernel does not come up under KVM"
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
