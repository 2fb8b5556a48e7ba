package model

import (
	"fmt"
	"testing"
)

func TestSkew(t *testing.T) {
	for _, c := range []struct{ own, leader, want string }{
		{"1.36.3", "1.36.3", ""},
		{"1.36.0", "1.36.3", ""},
		{"1.33.12", "1.36.3", ""},
		{"1.32.9", "1.36.3", "artifact node 1.32.9 is too old for control 1.36.3: it may be 3 minor versions behind"},
		{"1.36.4", "1.36.3", "artifact node 1.36.4 is newer than control 1.36.3, which it follows"},
		{"1.37.0", "1.36.3", "artifact node 1.37.0 is newer than control 1.36.3, which it follows"},
		{"0.36.3", "1.36.3", "artifact node 0.36.3 is too old for control 1.36.3: it may be 3 minor versions behind"},
		{"new", "1.36.3", "artifact node new follows control 1.36.3, and one of them is no version such as 1.36.3"},
		{"1.36.3-rc.1", "1.36.3+d1", ""},
	} {
		node, control := Artifact{Name: "node", Version: c.own, Lag: Lag{Follows: "control", Behind: 3}}, Artifact{Name: "control", Version: c.leader}
		if got := text(node.FollowError(&control)); got != c.want {
			t.Errorf("%s with %s: %s", c.own, c.leader, got)
		}
	}
	for _, c := range []struct{ from, to, want string }{
		{"3.6.8", "3.6.8", ""},
		{"3.5.20", "3.6.8", ""},
		{"3.6.8", "3.6.9", ""},
		{"3.4.0", "3.6.8", "artifact etcd would go from 3.4.0 to 3.6.8: at most 1 minor version at once"},
		{"3.6.8", "3.6.7", "artifact etcd would go back from 3.6.8 to 3.6.7, which what it wrote does not survive"},
		{"3.6.8", "4.0.0", "artifact etcd would go from 3.6.8 to 4.0.0: at most 1 minor version at once"},
		{"x", "3.6.8", ""},
	} {
		a := Artifact{Name: "etcd", Version: c.to, Lag: Lag{Steps: 1}}
		if got := text(a.StepError(c.from)); got != c.want {
			t.Errorf("%s to %s: %s", c.from, c.to, got)
		}
	}
	free := Artifact{Name: "any", Version: "1.0.0"}
	if err := free.StepError("9.0.0"); err != nil {
		t.Error(err)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprint(err)
}
