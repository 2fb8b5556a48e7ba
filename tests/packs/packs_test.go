// Package packs_test runs the tests that the shipped packs have, as joist pack test does.
package packs_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"joist/cmd/system/simulation"
	"joist/content"
	"joist/engine/journal"
)

// TestShipped runs every test of every shipped pack. Each takes well under a second.
func TestShipped(t *testing.T) {
	for _, name := range content.Shipped() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, err := content.Find(name, content.Builtin, "")
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			results, diags, err := simulation.TestPack(t.Context(), simulation.PackUnderTest{Files: files})
			if err != nil {
				t.Fatal(err)
			}
			if text := diags.Text(); text != "" {
				t.Errorf("%s", text)
			}
			for _, r := range results {
				t.Logf("%s: %v, %d runs in %.0f virtual seconds, %.3f s", r.Name, r.Passed, r.Runs, r.Virtual, r.Real)
				if r.Real > 5 { // with room for a busy machine; usual are a few hundredths
					t.Errorf("%s took %.1f s", r.Name, r.Real)
				}
			}
			if len(results) == 0 {
				t.Error("no test ran")
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
