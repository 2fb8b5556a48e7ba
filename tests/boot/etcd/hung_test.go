package etcd_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/tests/boot/lab"
)

// TestHungBoot has a machine stand still in its firmware, as hardware does now and then: the engine, which switched it on and
// hears nothing of it, switches it off and on again by itself, and says so, also if it was killed meanwhile. A kernel that panics later starts over by itself.
func TestHungBoot(t *testing.T) {
	l := newLab(t, 1)
	l.Must("apply", "--no-wait", l.file("green", "proof.plain", 1, ""))
	record := filepath.Join(filepath.Dir(l.Socket), "pids", "vm-n1.json")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(record); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the machine is not switched on after a minute")
		}
	}
	hung := l.PID("vm-n1")
	if err := syscall.Kill(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.End("engine", syscall.SIGKILL) // it knows after its start that it had switched the machine on
	l.Up(rack(1))
	l.Pursue("converged", "watch", "green")
	if pid := l.PID("vm-n1"); pid == hung {
		t.Error("the machine was not started anew")
	}
	if said := l.Must("status"); !strings.Contains(said, "it is switched off and on again") {
		t.Errorf("nobody is told:\n%s", said)
	}
	l.Unchanged("green")
	green := l.Status("green").Members
	l.once("green", green, "one\ntwo\nthree")

	up := l.PID("vm-n1")
	_, _ = l.Inside("timeout", "5", "bash", "-c", `exec 3<>"/dev/tcp/$1/9900"; echo panic >&3; cat <&3`, "probe", green[0].Address)
	l.Await("a new incarnation of n1", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/green" && e.Kind == "node.seen" && e.Online && e.Incarnation != "" && e.Incarnation != green[0].Incarnation
	})
	l.Pursue("converged", "watch", "green")
	l.once("green", l.Status("green").Members, "one\ntwo\nthree")
	if pid := l.PID("vm-n1"); pid != up {
		t.Error("the machine whose kernel panicked was switched off and on")
	}
}
