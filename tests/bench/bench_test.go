package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMain lets the test binary be the program's roles.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestEngine: small clusters go through everything that large ones are measured with, the checks of counts included.
func TestEngine(t *testing.T) {
	for _, gathers := range []bool{false, true} {
		var out bytes.Buffer
		s := &suite{out: &printer{kept: &out}, dir: t.TempDir(), results: t.TempDir(), ends: time.Now().Add(time.Minute)}
		a := arguments{Dir: filepath.Join(s.dir, "data"), Nodes: 3, Gather: gathers}
		if err := first(t.Context(), s, 3, ""); err != nil {
			t.Fatal(err)
		}
		if err := converged(t.Context(), s, a, ""); err != nil {
			t.Fatal(err)
		}
		if err := reopened(t.Context(), s, a, ""); err != nil {
			t.Fatal(err)
		}
		if err := planned(t.Context(), s, a, ""); err != nil {
			t.Fatal(err)
		}
		figures := map[string]float64{}
		for _, text := range bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n")) {
			var l map[string]any
			if err := json.Unmarshal(text, &l); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			for _, key := range []string{"name", "value", "unit", "peer", "peer_value", "ratio"} {
				if _, ok := l[key]; !ok {
					t.Errorf("%s lacks %s", text, key)
				}
			}
			figures[l["name"].(string)] = l["value"].(float64)
		}
		for _, name := range []string{"journalled_completions", "resume_after_kill", "plan_first", "plan_first_peak_memory", "plan_unchanged", "plan_unchanged_peak_memory", "replan_node_joined", "replan_node_joined_with_compile", "replan_input_changed"} {
			if figures[name] <= 0 {
				t.Errorf("%s is %v", name, figures[name])
			}
		}
	}
}

// TestCrowd: clusters converge side by side, each to the end.
func TestCrowd(t *testing.T) {
	var out bytes.Buffer
	s := &suite{out: &printer{kept: &out}, dir: t.TempDir(), results: t.TempDir(), ends: time.Now().Add(time.Minute)}
	if err := crowd(t.Context(), s, 3); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out.Bytes(), []byte(`"clusters_converged_3x5x20"`)) {
		t.Errorf("printed %s", out.Bytes())
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		list []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(test.list); got != test.want {
			t.Errorf("median of %v is %v", test.list, got)
		}
	}
}

// TestScripts: nodes that run what their steps say come to rest like those that only answer.
func TestScripts(t *testing.T) {
	a := arguments{Dir: filepath.Join(t.TempDir(), "data"), Nodes: 2, Scripts: true}
	if _, err := applyOnce(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var got planning
	if _, _, err := perform(t.Context(), "plan", a, &got); err != nil || got.Counts["unchanged"] != 2*tasksPerNode {
		t.Errorf("after that, the plan says %v, %v", got.Counts, err)
	}
}

// TestSimulations: the packs converge in spite of what befalls their machines, and write the same journal twice.
func TestSimulations(t *testing.T) {
	var out bytes.Buffer
	s := &suite{out: &printer{kept: &out}, dir: t.TempDir(), results: t.TempDir(), ends: time.Now().Add(time.Minute)}
	if err := simulations(t.Context(), s, 12); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"simulate_base_12", "simulate_etcd_12", "simulate_kubernetes_12"} {
		if !bytes.Contains(out.Bytes(), []byte(`"`+name+`"`)) {
			t.Errorf("%s is not there:\n%s", name, out.Bytes())
		}
	}
}

// TestMachines: figures are found among what a test prints, and numbers of machines are read.
func TestMachines(t *testing.T) {
	if l, ok := printed(`{"name":"a","value":2.5,"unit":"s","peer":"","peer_value":0,"ratio":0}`); !ok || l.Name != "a" || l.Value != 2.5 {
		t.Errorf("%+v, %v", l, ok)
	}
	for _, text := range []string{"", "=== RUN TestCluster", `{"name":`, `{"name":""}`, `    x.go:1: {"name":"a"}`} {
		if l, ok := printed(text); ok {
			t.Errorf("%q is the figure %+v", text, l)
		}
	}
	if got, err := parseControl("1, 3"); err != nil || len(got) != 2 || got[1] != 3 {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"0", "2", "-1", "x", "1,,y"} {
		if got, err := parseControl(text); err == nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
}
