// Package plan decides, for every instance of a cluster, whether it has to run and why. It is a pure function of the
// model and the history, kept up to date incrementally: one event costs what depends on it, not the whole graph.
package plan

import (
	"joist/engine/history"
	"joist/engine/value"
)

// Verdict is what is to happen to an instance.
type Verdict uint8

// The verdicts.
const (
	Unchanged Verdict = iota // in place, and what it was made from is the same
	Kept                     // in place by an earlier success, whatever its inputs are since (once = true, or on demand)
	Run                      // will run
	RunIf                    // will run if something that is about to run yields something else
	Replace                  // what stands there is removed first, then it runs
	Remove                   // no longer wanted
	Blocked                  // cannot run: something it needs failed, or it failed itself
	Absent                   // its `when` is false, or nobody asked for it
	Skipped                  // a person wants the goal without it
	Aside                    // its node is set aside
)

var verdictNames = [...]string{"unchanged", "kept", "run", "run if changed", "replace", "remove", "blocked", "absent", "skipped", "set aside"}

// String gives the verdict in words.
func (v Verdict) String() string { return verdictNames[v] }

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Cause is why an instance has its verdict, or what it waits for.
type Cause = history.Cause

// Cell is the decision about one instance.
type Cell struct {
	Verdict Verdict
	Cause   Cause
	Ready   bool  // nothing but time and budgets keep it from starting now
	Wait    Cause // what it waits for, if it is to run or be removed and is not ready

	view   view
	ref    value.Digest // of the inputs, as they are referred to; zero while something is unknown
	input  value.Digest // of the inputs' values; likewise
	failed bool         // blocked by its own final failure
	way    bool         // nothing keeps it from starting but what has to make way for it
	near   bool         // nothing keeps it from starting but what has to come in first
	fit    bool         // a guard that stands as it would be applied now
	aside  bool         // to be removed only to make way, and applied again
	stirs  bool         // in place still, and about to come out, or to wait for something that it reads and that is about to
}

// standing is what dependants see of an instance.
type standing uint8

const (
	settled standing = iota // in place for this goal: its outputs are known
	pending                 // about to run, or may be
	blocked                 // its outputs will not be known in this run
	absent                  // does not exist
)

type view struct {
	standing standing
	out      value.Digest
}

// Digests identify what an instance runs with.
type Digests struct{ Ref, Input value.Digest }

// Digests gives the reference digest and the input digest that a ready instance runs with.
func (c *Cell) Digests() Digests { return Digests{c.ref, c.input} }

// Settled reports whether the instance is in place for the goal.
func (c *Cell) Settled() bool { return c.view.standing == settled }
