package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		name, line string
		state      byte
		start      uint64
		bad        bool
	}{
		{"plain", "12 (sleep) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2", 'S', 98765, false},
		{"hostile name", "12 (a) R 9 (b) Z 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2", 'Z', 98765, false},
		{"short", "12 (sleep) S 1 2", 0, 0, true},
		{"empty", "", 0, 0, true},
		{"no number", "12 (sleep) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 x 1 2", 0, 0, true},
	} {
		state, start, err := parseStat(c.line)
		if (err != nil) != c.bad || state != c.state || start != c.start {
			t.Errorf("%s: %c %d %v", c.name, state, start, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (sleep) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2")
	f.Add(") Z")
	f.Fuzz(func(_ *testing.T, line string) { _, _, _ = parseStat(line) })
}

// TestDetach: what was open when this program was started does not stay open in a process that outlives it.
func TestDetach(t *testing.T) {
	inherited, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0) // without O_CLOEXEC, as from a shell
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(inherited) })
	cmd := exec.Command("ls", "/proc/self/fd")
	if err := Detach(cmd); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); len(got) != 4 { // and the folder itself, which ls reads
		t.Errorf("open in a detached process: %v", got)
	}
	if cmd.SysProcAttr == nil || !cmd.SysProcAttr.Setsid {
		t.Error("a detached process is in the session of its parent")
	}
}

func TestKill(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	id, err := Find(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	other := ID{PID: id.PID, Start: id.Start + 1} // the same process id, given to another process
	if other.Alive() {
		t.Error("another start time is taken for the same process")
	}
	if err := other.Kill(ctx); err != nil {
		t.Error(err)
	}
	if !id.Alive() {
		t.Fatal("Kill hit a process with another start time")
	}

	if err := id.Kill(ctx); err != nil { // nobody has reaped it: gone all the same
		t.Fatal(err)
	}
	if id.Alive() {
		t.Error("alive after Kill")
	}
	if _, err := Find(id.PID); !errors.Is(err, ErrGone) {
		t.Errorf("a zombie is found: %v", err)
	}
	if err := id.Kill(ctx); err != nil {
		t.Errorf("second Kill: %v", err)
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	id, err := Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := id.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's end", err)
	}
}

func TestFindRefusesInit(t *testing.T) {
	for _, pid := range []int{-1, 0, 1} {
		if _, err := Find(pid); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("Find(%d): %v", pid, err)
		}
	}
}

func TestRecords(t *testing.T) {
	dir := t.TempDir() + "/pids"
	if all, err := LoadAll(dir); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	for _, id := range []ID{{2, 3}, {4, 5}} {
		if err := Save(dir, "vm-n1", id); err != nil {
			t.Fatal(err)
		}
	}
	all, err := LoadAll(dir)
	if err != nil || len(all) != 1 || all[0].Name != "vm-n1" || all[0].ID != (ID{4, 5}) {
		t.Errorf("%v, %v", all, err)
	}
	if err := errors.Join(Forget(dir, "vm-n1"), Forget(dir, "vm-n1")); err != nil {
		t.Error(err)
	}
	if _, err := Load(dir, "vm-n1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
}
