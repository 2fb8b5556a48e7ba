package qemu

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// emulator writes a program that stands in for QEMU; its arguments are QEMU's, $console the file of its first serial port.
func emulator(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	head := "#!/bin/sh\nfor a; do case $a in file:*) console=${a#file:};; esac; done\n"
	if err := os.WriteFile(path, []byte(head+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTryKernel(t *testing.T) {
	for _, c := range []struct {
		name, script string
		ok           bool
		why          string
	}{
		{"comes up", `echo "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)" >$console`, true, "our kernel starts"},
		{"aborts", `echo "KVM: entry failed, hardware error 0x7" >&2; kill -ABRT $$`, false, "hardware error 0x7"},
		{"aborts after the kernel came up", `echo "VFS: Unable to mount root fs" >$console; kill -ABRT $$`, false, "signal: aborted"},
		{"stops early", `echo "Probing EDD" >$console`, false, "does not come up"},
		{"stalls", `exec sleep 100`, false, "in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ok, why := tryKernel(ctx, KVM, emulator(t, c.script), "/kernel")
			if ok != c.ok || !strings.Contains(why, c.why) {
				t.Errorf("%v, %q", ok, why)
			}
			if took := time.Since(begin); took > 4*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestKVMWithoutKernel(t *testing.T) {
	if ok, why := probeKVM(t.Context(), "/nowhere", ""); ok || why == "" {
		t.Errorf("%v, %q", ok, why)
	}
}

func TestKVMAnswerIsRemembered(t *testing.T) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("no /dev/kvm: the answer is no before anything is tried")
	}
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	tried := filepath.Join(dir, "tried")
	qemu := emulator(t, "echo x >>"+tried+"; echo '"+probeSuccess+"' >$console")
	ask := func(want int) {
		t.Helper()
		ok, _, err := rememberedKVM(t.Context(), dir, qemu, kernel)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := os.ReadFile(tried)
		if got := strings.Count(string(raw), "x"); got != want || !ok {
			t.Errorf("tried %d times, want %d; answer %v", got, want, ok)
		}
	}
	if err := os.WriteFile(kernel, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(1)
	ask(1)
	if err := os.WriteFile(kernel, []byte("22"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(2)
	if err := os.WriteFile(filepath.Join(dir, "accel.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(3)
}
