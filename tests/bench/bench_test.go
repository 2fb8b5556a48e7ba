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
		for _, name := range []string{"journalled_completions", "resume_after_kill", "plan_unchanged", "plan_unchanged_peak_memory", "replan_node_joined", "replan_input_changed"} {
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

func TestAgainst(t *testing.T) {
	for _, test := range []struct {
		unit       string
		ours, peer float64
		want       float64
	}{
		{"s", 2, 10, 5}, {"1/s", 10, 2, 5}, {"MiB/s", 1, 2, 0.5}, {"ms", 4, 2, 0.5}, {"MiB", 1, 4, 4}, {"s", 0, 1, 0}, {"s", 1, 0, 0},
	} {
		if got := (line{Value: test.ours, Unit: test.unit}).against("peer", test.peer); got.Ratio != test.want || got.PeerValue != test.peer {
			t.Errorf("%v %s against %v: %+v", test.ours, test.unit, test.peer, got)
		}
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
	for v, want := range map[float64]float64{123456: 123500, 0.00123456: 0.001235, 0: 0, 9.9999: 10} {
		if got := round(v); got != want {
			t.Errorf("%v rounds to %v, want %v", v, got, want)
		}
	}
}
