package supervisor

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHandover(t *testing.T) {
	exited := func(code int) syscall.WaitStatus { return syscall.WaitStatus(code << 8) }
	for _, tt := range []struct {
		name   string
		status syscall.WaitStatus
		left   string // content of the hand-over file; empty for none
		root   string
		err    string
	}{
		{"ready", exited(0), "/newroot\n", "/newroot", ""},
		{"nothing left", exited(0), "", "", "the agent ended without a new root"},
		{"failed, whatever it left", exited(1), "/newroot\n", "", "the agent ended with status 1"},
		{"killed, whatever it left", syscall.WaitStatus(syscall.SIGKILL), "/newroot\n", "", "the agent was killed by signal 9 (killed)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &supervisor{Config: Config{Handover: filepath.Join(t.TempDir(), "handover")}}
			if tt.left != "" {
				if err := os.WriteFile(s.Handover, []byte(tt.left), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			root, err := s.handover(tt.status)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) || root != tt.root {
				t.Fatalf("%q, %v; want %q, %q", root, err, tt.root, tt.err)
			}
			if err == nil {
				if _, err := s.handover(exited(0)); err == nil {
					t.Error("one new root serves twice")
				}
			}
		})
	}
}

func TestListen(t *testing.T) {
	s := &supervisor{reports: make(chan report, 8)}
	s.listen(io.NopCloser(strings.NewReader("ok\nfail no address\nsay key abcd\n")))
	for _, want := range []report{{"ok", ""}, {"fail", "no address"}, {"say", "key abcd"}} {
		if got := <-s.reports; got != want {
			t.Errorf("report %+v, want %+v", got, want)
		}
	}
}

// Nothing but a mounted root with an init is handed over to, and only an initramfs is deleted for it.
func TestSwitchRootRefuses(t *testing.T) {
	s := &supervisor{Config: Config{Init: "/lib/systemd/systemd"}}
	dir := t.TempDir()
	if err := s.switchRoot(dir); err == nil || !strings.Contains(err.Error(), "is not a mounted root") {
		t.Errorf("a plain folder: error %v", err)
	}
	if err := s.switchRoot("/proc"); err == nil || !strings.Contains(err.Error(), "the new root has no init") {
		t.Errorf("a root without init: error %v", err)
	}
}

// What is removed lies on one device; a link's target stays.
func TestRemoveTree(t *testing.T) {
	root, outside := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(root, "a/b/file"), outside} {
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(root, "a/link")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		t.Fatal(err)
	}
	removeTree(root, uint64(st.Dev)+1)
	if _, err := os.Stat(filepath.Join(root, "a/b/file")); err != nil {
		t.Errorf("a file on another device was removed: %v", err)
	}
	removeTree(root, uint64(st.Dev))
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("the link's target was removed: %v", err)
	}
}
