package packtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joist/engine/addr"
	"joist/engine/history"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/step"
	"joist/workflows/lang/diag"
	"joist/workflows/simulate"
)

// plan compares the plan before anything has run with what is expected.
func (t *trial) plan() {
	e, ok := t.stage.expect["plan"]
	if !ok {
		return
	}
	verdicts, unasked := map[string]string{}, map[string]bool{}
	for _, it := range outlook.Items(t.sim.Plan()) {
		verdicts[t.called(it.Target)] = it.Verdict.String()
		unasked[t.called(it.Target)] = it.Cause.Kind == history.Unasked
	}
	for _, r := range t.sim.Plan().Removals() {
		if verdict := plan.Remove; verdicts[t.called(r.Target)] == "" {
			verdicts[t.called(r.Target)] = verdict.String()
		}
	}
	for _, p := range e.pairs {
		want, some := strings.Trim(jsonOf(p), `"`), false
		for _, instance := range slices.Sorted(maps.Keys(verdicts)) {
			if !matches(p.name, instance) || unasked[instance] && p.name == "*" { // everything is not what nobody asked for
				continue
			}
			some = true
			if got := verdicts[instance]; got != want {
				t.bag.Errorf(p.where, "", "the plan says %q of %s, expected is %q", got, instance, want)
			}
		}
		if !some && want != "absent" {
			t.unknown(p.named, slices.Collect(maps.Keys(verdicts)))
		}
	}
}

// called writes an instance as it is called now.
func (t *trial) called(of history.Target) string { return t.sim.Plan().Called(of).String() }

func (t *trial) unknown(n named, known []string) {
	t.bag.Errorf(n.at, diag.Suggest(n.name, known), "the plan has no instance %q", n.name)
}

func jsonOf(p pair) string {
	data, err := p.value.MarshalJSON()
	if err != nil {
		return ""
	}
	return string(data)
}

// check compares what became of the stage with what is expected.
func (t *trial) check() {
	s := t.stage
	want := history.OutcomeConverged
	if s.cluster == nil {
		want = history.OutcomeDestroyed
	}
	at := s.at
	if e, ok := s.expect["outcome"]; ok {
		want, at = e.text, e.at
	}
	state := t.sim.State()
	if state.Outcome != want {
		t.bag.Errorf(at, "", "%q came to rest %s (%s), expected is %s%s%s", s.title, state.Outcome, cmp.Or(state.Detail, "everything is in place"), want, t.failures(), t.waits())
	}
	deeds := t.sim.Deeds()[t.from:]
	did := map[string][]string{}
	for _, d := range deeds {
		switch {
		case d.Excused: // it is done again, or ended with its node
		case d.Discharged:
			did["discharges"] = append(did["discharges"], t.called(d.Target))
		case d.Action == step.Remove:
			did["removes"] = append(did["removes"], t.called(d.Target))
		default:
			did["runs"] = append(did["runs"], t.called(d.Target))
		}
	}
	for _, word := range []string{"runs", "removes", "discharges"} {
		if e, ok := s.expect[word]; ok {
			t.exactly(word, e, did[word])
		}
	}
	t.order(deeds)
	t.outputs()
	t.given()
	t.failed(deeds)
}

// failures lists what failed, for the reader of a test that did not come out.
func (t *trial) failures() string {
	var b strings.Builder
	for _, it := range outlook.Items(t.sim.Plan()) {
		if it.Error != "" && b.Len() < 400 {
			fmt.Fprintf(&b, "; %s: %s", t.called(it.Target), it.Error)
		}
	}
	return b.String()
}

// waits says what is at the bottom of all that is not in place, besides what failed.
func (t *trial) waits() string {
	var b strings.Builder
	p := t.sim.Plan()
	for _, g := range outlook.RootsOf(t.sim.Machine()).Groups(outlook.OpenItems(p)) {
		if it, ok := outlook.One(p, g.Root.Of); ok && it.Error != "" || b.Len() >= 400 { // the failures have it
			continue
		}
		by, names := "blocked by "+string(g.By), []string{}
		if g.By == outlook.ByTransition {
			by = "waiting by " + string(g.By)
		}
		for _, of := range g.Instances[:min(len(g.Instances), 3)] {
			names = append(names, t.called(of))
		}
		if g.Count > len(names) {
			names = append(names, "…")
		}
		fmt.Fprintf(&b, "; %s: %s (%d of them: %s)", by, g.Called(p).Says(), g.Count, strings.Join(names, ", "))
	}
	return b.String()
}

// exactly compares what was done with what stands in a list: each with one of the other.
func (t *trial) exactly(word string, e expectation, did []string) {
	doing := map[string]string{"runs": "ran", "removes": "was removed", "discharges": "was discharged"}[word]
	slices.Sort(did)
	did = slices.Compact(did)
	for _, n := range e.names {
		if !slices.ContainsFunc(did, func(instance string) bool { return matches(n.name, instance) }) {
			t.bag.Errorf(n.at, "What "+doing+": "+cmp.Or(strings.Join(did, ", "), "nothing")+".", "nothing that is %q %s", n.name, doing)
		}
	}
	var more []string
	for _, instance := range did {
		if !slices.ContainsFunc(e.names, func(n named) bool { return matches(n.name, instance) }) {
			more = append(more, instance)
		}
	}
	if len(more) > 0 {
		t.bag.Errorf(e.at, "Add it to "+word+", or find out why with joist plan and joist why.", "what else %s: %s", doing, strings.Join(more, ", "))
	}
}

// order checks that each of a list had ended before the next one began. A removal is written "remove x".
func (t *trial) order(deeds []simulate.Deed) {
	var before named
	var end time.Time
	for i, n := range t.stage.expect["order"].names {
		first, last, some := time.Time{}, time.Time{}, false
		for _, d := range deeds {
			name := t.called(d.Target)
			if d.Action == step.Remove {
				name = "remove " + name
			}
			if !matches(n.name, name) {
				continue
			}
			if !some || d.Start.Before(first) {
				first = d.Start
			}
			if d.End.After(last) {
				last = d.End
			}
			some = true
		}
		if !some {
			t.bag.Errorf(n.at, "", "nothing that is %q happened", n.name)
			return
		}
		if i > 0 && first.Before(end) {
			t.bag.Errorf(n.at, "", "%s began %s before %s had ended", n.name, end.Sub(first).Round(time.Millisecond), before.name)
		}
		before, end = n, last
	}
}

func (t *trial) outputs() {
	e, ok := t.stage.expect["outputs"]
	if !ok {
		return
	}
	yield := outlook.Yield(t.sim.Plan())
	for _, p := range e.pairs {
		v, ok := yield[p.name]
		if !ok {
			t.bag.Errorf(p.at, diag.Suggest(p.name, slices.Collect(maps.Keys(yield))), "the workflow has no output %q", p.name)
			continue
		}
		data, err := v.MarshalJSON()
		if err != nil {
			data = []byte("(not known)")
		}
		t.same(p, fmt.Sprintf("output %s", p.name), data)
	}
}

// given compares inputs that instances were last given.
func (t *trial) given() {
	e, ok := t.stage.expect["given"]
	if !ok {
		return
	}
	for _, p := range e.pairs {
		at := strings.LastIndex(p.name, "].")
		if at < 0 {
			at = strings.Index(p.name, ".") - 1
		}
		if at < 0 {
			t.bag.Errorf(p.at, `Write given = { "task[node]" = { input = … } }.`, "%q names no input", p.name)
			continue
		}
		instance, input := p.name[:at+1], p.name[at+2:]
		task, node, _ := addr.ParsePath(instance)
		of, _ := t.sim.Plan().Standing(history.Target{Task: task, Node: node})
		row := t.sim.State().Row(of)
		if item, ok := addr.BareItem(task, node); ok && row == nil {
			of, _ = t.sim.Plan().Standing(history.Target{Task: item})
			row = t.sim.State().Row(of)
		}
		if row == nil || row.Inputs == nil {
			t.bag.Errorf(p.at, "", "%s never ran", instance)
			continue
		}
		var inputs map[string]json.RawMessage
		if err := json.Unmarshal(row.Inputs, &inputs); err != nil || inputs[input] == nil {
			t.bag.Errorf(p.at, diag.Suggest(input, slices.Collect(maps.Keys(inputs))), "%s was given no input %q", instance, input)
			continue
		}
		data := inputs[input]
		if d, large := history.Large(data); large {
			data = t.sim.Blob(d)
		}
		t.same(p, fmt.Sprintf("input %s of %s", input, instance), data)
	}
}

// same compares a value with an expected one, as JSON with sorted keys.
func (t *trial) same(p pair, what string, got []byte) {
	canonical := func(data []byte) []byte {
		var v any
		if json.Unmarshal(data, &v) != nil {
			return data
		}
		out, err := json.Marshal(v)
		if err != nil {
			return data
		}
		return out
	}
	want := canonical([]byte(jsonOf(p)))
	if got := canonical(got); !bytes.Equal(got, want) {
		t.bag.Errorf(p.where, "", "%s is %.600s, expected is %.600s", what, got, want)
	}
}

// failed compares what failed for good, and with what.
func (t *trial) failed(deeds []simulate.Deed) {
	e, ok := t.stage.expect["fails"]
	if !ok {
		return
	}
	for _, p := range e.pairs {
		want, some := strings.Trim(jsonOf(p), `"`), false
		for _, d := range deeds {
			if !matches(p.name, t.called(d.Target)) || !d.Final {
				continue
			}
			some = true
			if !strings.Contains(d.Error, want) {
				t.bag.Errorf(p.where, "", "%s failed with %q, expected is %q", t.called(d.Target), d.Error, want)
			}
		}
		if !some {
			t.bag.Errorf(p.at, "", "%s did not fail for good", p.name)
		}
	}
}
