// Package packs_test runs the tests that the shipped packs have, as joist pack test does.
package packs_test

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/cmd/system/simulation"
	"joist/content"
	"joist/engine/journal"
)

// processor is a clock that goes on while the calling thread is on a processor: unlike any other, it does not run on while a busy
// machine lets a test wait.
func processor() time.Time {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_THREAD, &u) // cannot fail for oneself
	return time.Unix(0, u.Utime.Nano()+u.Stime.Nano())
}

// atMost is the processor time that one test of a pack may take. Usual are a few hundredths of a second; the race detector takes
// several times as much.
const atMost = 1.0

// TestShipped runs every test of every shipped pack. Each takes well under a second.
func TestShipped(t *testing.T) {
	for _, name := range content.Shipped() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, err := content.Find(name, content.Builtin, "")
			if err != nil {
				t.Fatal(err)
			}
			runtime.LockOSThread() // whose time is taken
			defer runtime.UnlockOSThread()
			begun := time.Now()
			results, diags, err := simulation.TestPack(t.Context(), simulation.PackUnderTest{Files: files, Now: processor})
			if err != nil {
				t.Fatal(err)
			}
			if text := diags.Text(); text != "" {
				t.Errorf("%s", text)
			}
			total := 0.0
			for _, r := range results {
				t.Logf("%s: %v, %d runs in %.0f virtual seconds, %.3f s of a processor", r.Name, r.Passed, r.Runs, r.Virtual, r.Real)
				if total += r.Real; r.Real > atMost {
					t.Errorf("%s took %.2f s of a processor, and may take %.1f", r.Name, r.Real, atMost)
				}
			}
			if total <= 0 { // a short one alone may fall between two ticks of the clock
				t.Errorf("%d tests ran, in no time", len(results))
			}
			t.Logf("%d tests in %v", len(results), time.Since(begun))
		})
	}
}

// TestExample: the example keeps what Kubernetes has on data disks, and the demo's machines have one.
func TestExample(t *testing.T) {
	file, err := os.ReadFile("../../content/examples/kubernetes.hcl")
	if err != nil {
		t.Fatal(err)
	}
	m, ds := compile(t, string(file), nil)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	demo, err := os.ReadFile("../demo/demo.sh")
	if err != nil {
		t.Fatal(err)
	}
	if m.Storage != "disk" || !contains(demo, `--disk "$(gib 6)"`) {
		t.Errorf("the demo's cluster keeps things in %s", m.Storage)
	}
}

type record = journal.Record

func contains(data []byte, text string) bool { return strings.Contains(string(data), text) }
