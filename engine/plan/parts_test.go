package plan_test

import (
	"encoding/json"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/step"
	"joist/engine/value"
)

// counted is a part that counts how often it was evaluated.
type counted struct {
	one
	times *int
}

func (c counted) Eval(s model.Scope) (value.Value, error) {
	*c.times++
	return c.one.Eval(s)
}

// mixed is an expression of a node's name and a part.
type mixed struct{ part model.Expr }

var ownName = model.Ref{Kind: model.RefNode, Attr: model.NodeName}

func (m mixed) Refs() []model.Ref { return append([]model.Ref{ownName}, m.part.Refs()...) }

func (m mixed) Eval(s model.Scope) (value.Value, error) {
	all, err := s.(model.Once).Once(m.part)
	return value.Dict(map[string]value.Value{"name": s.Lookup(ownName), "all": all}), err
}

// A gather within an expression that names the node is evaluated once for all nodes, and anew when an output of it changes.
func TestPartsAreEvaluatedOnce(t *testing.T) {
	times := 0
	part := counted{one{Kind: model.RefAll, Name: "t0"}, &times}
	m := wide(3)
	last := &m.Tasks[2]
	last.With[2] = model.Argument{
		Name: "all", Expr: mixed{part}, Refs: mixed{part}.Refs(), Digest: value.Sum([]byte("mixed")), Parts: []model.Expr{part}, Own: []model.Ref{ownName},
	}
	s := converged(t, m, names(30))
	if times != 1 {
		t.Errorf("while 30 nodes came up, what they gather was evaluated %d times", times)
	}
	times = 0
	p := plan.New(s, func(int) *model.Model { return m })
	if times != 0 {
		t.Errorf("a plan without a change evaluated what is gathered %d times", times)
	}
	target := history.Target{Task: "t0", Node: "n00007"}
	at := time.Unix(1_800_000_000, 0).UTC()
	row := s.Row(target)
	for _, e := range []history.Event{
		history.Started{Target: target, Action: step.Apply, Attempt: 1, Step: row.Step, Ref: row.Ref, Input: row.Input, Inputs: row.Inputs, Incarnation: "n00007", Boot: "n00007", Agent: "n00007"},
		history.Succeeded{Target: target, Outputs: json.RawMessage(`{"out":"other"}`), Output: value.Sum([]byte("other"))},
	} {
		s.Fold(s.Seq+1, at, e)
		p.Touch(target)
		p.Update()
	}
	if times != 1 {
		t.Errorf("after a change, what is gathered was evaluated %d times", times)
	}
	for _, node := range []string{"n00000", "n00029"} {
		t2 := history.Target{Task: "t2", Node: node}
		if c := p.Cell(t2); c.Verdict != plan.Run {
			t.Errorf("%s: %s, though a value that it reads has changed", node, c.Verdict)
		}
		in, err := p.Inputs(t2, "")
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := in["all"].MarshalJSON()
		var got struct {
			Name string
			All  map[string]struct{ Out string }
		}
		if err := json.Unmarshal(raw, &got); err != nil || got.Name != node || got.All["n00007"].Out != "other" || len(got.All) != 30 {
			t.Errorf("%s is given %s", node, raw)
		}
	}
}
