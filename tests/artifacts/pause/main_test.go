package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Pause is tried as what it is, a process: it takes in children that it did not start, and ends when told to.
func TestPause(t *testing.T) {
	program := filepath.Join(t.TempDir(), "pause")
	if said, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		// The shell leaves two children to what it becomes; each waits to read what nobody writes.
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `exec 3<&0; (read -r _ <&3) & echo $!; (read -r _ <&3) & echo $!; exec "$0"`, program)
		hold, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var children [2]int
		if _, err := fmt.Fscan(bufio.NewReader(out), &children[0], &children[1]); err != nil {
			t.Fatal(err)
		}
		until(t, "the shell has become another program", func() bool { // otherwise it may take its children in itself
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
			return err == nil && string(name) == "pause\n"
		})
		if err := hold.Close(); err != nil {
			t.Fatal(err)
		}
		for _, child := range children { // a child that is nobody's stays as a zombie, which has an entry too
			until(t, fmt.Sprintf("child %d is taken in", child), func() bool {
				_, err := os.Stat(fmt.Sprintf("/proc/%d", child))
				return err != nil
			})
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("at %s it ends with %v", signal, err)
		}
	}
}

// until waits for something of which no event reaches a process that is not the parent.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 10_000 {
		if is() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("it was waited in vain until %s", what)
}
