package redeploy

import (
	"errors"
	"strings"
	"testing"

	v1 "joist/services/api/v1"
)

func TestRun(t *testing.T) {
	good, left, stopped := Round{Outcome: "converged", Plan: map[string]int{"unchanged": 4}}, Round{Outcome: "converged", Changes: true, Plan: map[string]int{"run": 1, "unchanged": 3}}, Round{Outcome: "stopped", Detail: "1 of 4", Failed: []v1.Item{{Instance: "a[n1]", State: "blocked"}, {Instance: "b[n1]", State: "failed", Error: "no disk\nmore"}}}
	for _, tt := range []struct {
		name   string
		rounds []Round
		times  int
		ran    int
		says   []string // of the complaint
	}{
		{"two good ones", []Round{good, good}, 2, 2, nil},
		{"one is enough", []Round{good, good}, 1, 1, nil},
		{"something is left", []Round{left, good}, 2, 1, []string{"round 1 of 2 left something to do", "1 run, 3 unchanged", "joist plan --cluster c"}},
		{"it stops", []Round{good, stopped, good}, 3, 2, []string{"round 2 of 3 did not converge: cluster c is stopped (1 of 4); b[n1] failed: no disk;", "joist retry c tries"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Report{Cluster: "c", Times: tt.times}
			told := 0
			err := r.Run(func(n int) (*Round, error) { one := tt.rounds[n-1]; return &one, nil }, func(one *Round) {
				if told++; one.Round != told {
					t.Errorf("told of round %d, want %d", one.Round, told)
				}
			})
			if err != nil || len(r.Rounds) != tt.ran || told != tt.ran || r.Good != (tt.says == nil) {
				t.Fatalf("%+v, told of %d, %v", r, told, err)
			}
			complaint := r.Complaint()
			if (complaint != nil) != (tt.says != nil) {
				t.Fatalf("complains %v", complaint)
			}
			for _, text := range tt.says {
				if !strings.Contains(complaint.Error(), text) {
					t.Errorf("%v does not say %q", complaint, text)
				}
			}
		})
	}
	lost := errors.New("lost")
	r := Report{Times: 2}
	if err := r.Run(func(int) (*Round, error) { return nil, lost }, func(*Round) { t.Error("told") }); !errors.Is(err, lost) || r.Good || r.Complaint() != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestText(t *testing.T) {
	r := Round{Round: 1, Outcome: "converged", Seconds: 75, Done: 4, Plan: map[string]int{"unchanged": 4, "run": 0}, Phases: []Phase{{"wiped", 2, 1.5, 70}}}
	if got, want := r.Sentence(), "round 1 converged after 1:15: 4 done, 0 failed attempts; the plan is empty (4 unchanged)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if rows := r.Rows(); len(rows) != 2 || strings.Join(rows[1], "|") != "  wiped|2|1.5 s|1:10" {
		t.Errorf("%q", rows)
	}
}
