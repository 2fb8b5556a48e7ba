package qemu

import (
	"bytes"
	"context"
	"encoding/json"
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
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false, err.Error()
	}
	_ = f.Close()
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	return tryKernel(ctx, KVM, qemu, kernel)
}

// trial is a remembered answer of probeKVM, and what it holds for.
type trial struct {
	HostBoot string `json:"host_boot"` // the host's boot id: modules and nesting may differ at the next one
	QEMU     string `json:"qemu"`
	Kernel   string `json:"kernel"`
	OK       bool   `json:"ok"`
	Why      string `json:"why"`
}

// rememberedKVM is probeKVM, asked once for a start of the host, an emulator and a kernel: a restarted engine must not
// spend 10 s on what is known.
func rememberedKVM(ctx context.Context, dataDir, qemu, kernel string) (ok bool, why string, err error) {
	now := trial{QEMU: fileStamp(qemu), Kernel: fileStamp(kernel)}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, "", fmt.Errorf("cannot read the host's boot id: %w", err)
	}
	now.HostBoot = strings.TrimSpace(string(bootID))
	path := filepath.Join(dataDir, "accel.json")
	if raw, err := os.ReadFile(path); err == nil {
		var old trial
		if json.Unmarshal(raw, &old) == nil {
			now.OK, now.Why = old.OK, old.Why
			if now == old {
				return old.OK, old.Why, nil
			}
		}
	}
	now.OK, now.Why = probeKVM(ctx, qemu, kernel)
	raw, err := json.Marshal(now)
	if err == nil {
		err = writeDurably(path, raw)
	}
	if err != nil {
		return false, "", fmt.Errorf("cannot remember whether KVM works: %w", err)
	}
	return now.OK, now.Why, nil
}

// fileStamp tells one content of a file from another as well as its times do.
func fileStamp(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return path
	}
	return fmt.Sprintf("%s %d %d", path, st.Size(), st.ModTime().UnixNano())
}

// tryKernel starts the kernel and waits for the end of its machine, or of ctx.
func tryKernel(ctx context.Context, accel Accel, qemu, kernel string) (ok bool, why string) {
	dir, err := os.MkdirTemp("", "joist-probe-")
	if err != nil {
		return false, err.Error()
	}
	defer func() { _ = os.RemoveAll(dir) }()
	console := filepath.Join(dir, "console")
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
		return false, "our kernel did not start under KVM in time"
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
