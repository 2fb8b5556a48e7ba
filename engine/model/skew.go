package model

import (
	"fmt"
	"strconv"
	"strings"
)

// Lag says how far an artifact's version may be from those that work with it. Its zero value allows anything.
type Lag struct {
	Follows string // name of an artifact of the same pack that it is never newer than; empty for none
	Behind  int    // minor versions that it may be older than that
	Steps   int    // minor versions that a cluster may change it by at once, and then it never becomes older; 0 for any
}

// release is the beginning of a version: 1.36.3 is 1, 36, 3.
type release [3]int

func releaseOf(version string) (release, bool) {
	var r release
	core, _, _ := strings.Cut(version, "-")
	core, _, _ = strings.Cut(core, "+")
	parts := strings.Split(core, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return r, false
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 {
			return r, false
		}
		r[i] = n
	}
	return r, true
}

func (r release) before(o release) bool {
	for i := range r {
		if r[i] != o[i] {
			return r[i] < o[i]
		}
	}
	return false
}

// FollowError says why an artifact does not work with the one that it follows, at these versions; nil if it does.
func (a *Artifact) FollowError(leader *Artifact) error {
	own, ok := releaseOf(a.Version)
	their, known := releaseOf(leader.Version)
	switch {
	case !ok || !known:
		return fmt.Errorf("artifact %s %s follows %s %s, and one of them is no version such as 1.36.3", a.Name, a.Version, leader.Name, leader.Version)
	case their.before(own):
		return fmt.Errorf("artifact %s %s is newer than %s %s, which it follows", a.Name, a.Version, leader.Name, leader.Version)
	case own[0] != their[0] || their[1]-own[1] > a.Lag.Behind:
		return fmt.Errorf("artifact %s %s is too old for %s %s: it may be %d minor versions behind", a.Name, a.Version, leader.Name, leader.Version, a.Lag.Behind)
	}
	return nil
}

// StepError says why a cluster that uses one version of an artifact cannot go to this one at once; nil if it can.
func (a *Artifact) StepError(from string) error {
	if a.Lag.Steps == 0 || from == a.Version {
		return nil
	}
	was, ok := releaseOf(from)
	is, known := releaseOf(a.Version)
	switch {
	case !ok || !known:
		return nil // nothing is known of them; a pack with such versions is refused
	case is.before(was):
		return fmt.Errorf("artifact %s would go back from %s to %s, which what it wrote does not survive", a.Name, from, a.Version)
	case is[0] != was[0] || is[1]-was[1] > a.Lag.Steps:
		return fmt.Errorf("artifact %s would go from %s to %s: at most %d minor version at once", a.Name, from, a.Version, a.Lag.Steps)
	}
	return nil
}
