package planview_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"joist/cmd/joist/planview"
	v1 "joist/services/api/v1"
)

// TestLoad: a plan is one in whatever form its JSON was written since; what is JSON and no plan says so, and nothing is taken away
// from what can be read only once.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	if err := os.WriteFile(kept, []byte("something that others may read"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := planview.Keep(kept, v1.PlanFile{Format: v1.PlanFileFormat, Plan: v1.Plan{Cluster: "demo"}}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the plan's file has mode %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	pretty, err := json.MarshalIndent(all, " ", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, text, says string }{
		{"as it was kept", string(data), ""},
		{"written anew", "\n " + string(pretty), ""},
		{"cut off at once", string(data[:8]), "it is damaged"},
		{"cut off", string(data[:len(data)-9]), "it is damaged"},
		{"a plan for programs", `{"format": "joist-plan/1"}`, "keep the plan with --out"},
	} {
		if err := os.WriteFile(kept, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := planview.Load(kept)
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: it says %v, want %q", c.what, err, c.says)
		case c.says == "" && (err != nil || p == nil || p.Plan.Cluster != "demo"):
			t.Errorf("%s: it gives %v and says %v", c.what, p, err)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := planview.Load(pipe); p != nil || err != nil { // to open it would wait for ever
		t.Errorf("a pipe gives %v and says %v", p, err)
	}
}
