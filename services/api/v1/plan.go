package v1

import (
	"fmt"
	"time"
)

// PlanFormat is the form of a Plan: docs/plan-format.md. Fields are added to it, never renamed, removed or given another
// meaning; what would need that gets another format.
const PlanFormat = "joist-plan/1"

// PlanFileFormat is the form of a PlanFile.
const PlanFileFormat = "joist-plan-file/1"

// PlanFile is a plan with what it was made from, as joist plan --out writes it for joist apply.
type PlanFile struct {
	Format string `json:"format"`
	Plan   Plan   `json:"plan"`
	Source Source `json:"source"`
}

// Plan is every instance with its verdict and cause, the dangerous first. It carries no secret.
type Plan struct {
	Format   string         `json:"format"`
	Cluster  string         `json:"cluster"`
	Destroy  bool           `json:"destroy,omitempty"` // of destroying the cluster
	Changes  bool           `json:"changes"`           // whether anything is not as it should be
	Base     PlanBase       `json:"base"`
	Counts   map[string]int `json:"counts"` // instances by verdict
	Runs     Bounds         `json:"runs"`   // how many instances will run
	Seconds  float64        `json:"seconds,omitempty"`
	Tasks    []PlanTask     `json:"tasks"` // in the order of the plan
	Nodes    []PlanNode     `json:"nodes"` // by name
	Items    []Item         `json:"items"`
	Warnings string         `json:"warnings,omitempty"`
	Refused  []Refusal      `json:"refused,omitempty"` // by policies, if it were begun now
	Missing  []Missing      `json:"missing,omitempty"` // machines that there would have to be; then it cannot be applied
}

// Missing is what there are no machines for.
type Missing struct {
	Role  string   `json:"role"`
	Nodes []string `json:"nodes"` // names in the plan that stand for them
	Says  string   `json:"says"`  // why there are none
}

// Refusal is what a policy refuses of a plan.
type Refusal struct {
	Policy   string    `json:"policy"`
	At       string    `json:"at"`                 // where the policy stands: file:line:column
	Refuses  string    `json:"refuses"`            // removal, replacement, wipe, reboot
	Has      []string  `json:"has"`                // what the plan has of it: nodes, or instances that have none; with what has begun in this run
	Says     string    `json:"says"`               // that as a sentence
	Advice   string    `json:"advice"`             // what to change
	Passes   time.Time `json:"passes,omitzero"`    // when the policy lets it pass; left out if no time does
	Reason   string    `json:"reason,omitempty"`   // a person's, who overrode it for this goal
	MayForce bool      `json:"override,omitempty"` // whether a person may override it
}

// Override is a person's word that a policy does not hold for a goal.
type Override struct {
	Policy string `json:"policy"`
	Reason string `json:"reason"`
}

// PlanBase is what a plan rests on.
type PlanBase struct {
	Seq   uint64              `json:"seq"`   // last event of the cluster's journal that it knows; 0 for a new cluster
	Model string              `json:"model"` // digest of packs, inputs and cluster file
	Roles map[string][]string `json:"roles"` // node names by role
}

// Bounds says between how many and how many: the least if nothing conditional turns out to run, the most if all of it does.
type Bounds struct {
	Least int `json:"least"`
	Most  int `json:"most"`
}

// PlanTask is a task of a plan.
type PlanTask struct {
	Task    string         `json:"task"`
	Step    string         `json:"step,omitempty"`
	Counts  map[string]int `json:"counts"`
	Runs    Bounds         `json:"runs"`
	Seconds float64        `json:"seconds,omitempty"` // how long its longest instance is likely to take
}

// PlanNode is what becomes of a node.
type PlanNode struct {
	Node   string   `json:"node"`
	Roles  []string `json:"roles,omitempty"` // in the goal
	Change string   `json:"change"`          // joins, stays, leaves
	Danger string   `json:"danger,omitempty"`
}

// The dangers of a plan.
const (
	DangerWipe    = "wipe"    // a node's durable state is destroyed
	DangerRemoval = "removal" // an effect that is there is removed; with replace, before it is applied again
	DangerReboot  = "reboot"  // a node reboots
)

// Item is one instance of a plan.
type Item struct {
	Instance string  `json:"instance"` // task[node], or task; of a task with items task[node][item], or task["item"]
	Task     string  `json:"task"`     // task, or task["item"]
	Node     string  `json:"node,omitempty"`
	Step     string  `json:"step,omitempty"`
	Verdict  string  `json:"verdict"`           // unchanged, kept, run, run if changed, replace, remove, blocked, absent
	State    string  `json:"state"`             // in place, running, ready, waiting, failed, blocked, absent, removing
	Danger   string  `json:"danger,omitempty"`  // wipe, removal, reboot
	Because  string  `json:"because,omitempty"` // Cause as a phrase
	Of       string  `json:"of,omitempty"`      // instance that brought it about
	Waits    string  `json:"waits,omitempty"`   // Wait as a phrase
	Attempt  int     `json:"attempt,omitempty"`
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"` // how long the last success took
	Agent    string  `json:"agent,omitempty"`   // node that executes what is in flight

	Cause    *Cause    `json:"cause,omitempty"`    // why it has its verdict; left out if nothing changed
	Wait     *Cause    `json:"wait,omitempty"`     // what keeps it from starting now
	Known    []Pending `json:"known,omitempty"`    // inputs that are not known yet
	Inputs   string    `json:"inputs,omitempty"`   // digest of the inputs it is to run with, if those are known
	Expected float64   `json:"expected,omitempty"` // seconds it is likely to take, by what it, or the median of its like, took
	Asked    string    `json:"asked,omitempty"`    // on demand: it runs when somebody asks for this, the task or the call that it is part of
}

// Cause is why an instance has its verdict or waits.
type Cause struct {
	Kind     string `json:"kind"`               // docs/plan-format.md lists them
	Instance string `json:"instance,omitempty"` // that brought it about
	Node     string `json:"node,omitempty"`     // that brought it about, if it is no instance
	Input    string `json:"input,omitempty"`    // that changed
	Text     string `json:"text,omitempty"`     // details for people; no stable form
}

// Pending is an input that is not known yet.
type Pending struct {
	Input string `json:"input"`           // "when" for the condition that decides whether the instance exists
	After string `json:"after,omitempty"` // instance after which it is known; a task for all its instances
	Node  string `json:"node,omitempty"`  // node after whose coming up it is known
	Count int    `json:"count"`           // instances or nodes that have to be done before
}

// Says gives what it waits for as a phrase: "known after member[n1]".
func (p Pending) Says() string {
	switch {
	case p.After == "" && p.Count > 1:
		return fmt.Sprintf("known after node %s and %d others have come up", p.Node, p.Count-1)
	case p.After == "":
		return "known after node " + p.Node + " has come up"
	case p.Count > 1:
		return fmt.Sprintf("known after all of %s (%d to go)", p.After, p.Count)
	}
	return "known after " + p.After
}
