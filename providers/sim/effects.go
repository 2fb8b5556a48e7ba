package sim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// Perform takes in an effect of the engine.
func (w *World) Perform(e run.Effect) {
	switch e := e.(type) {
	case run.Dispatch:
		w.dispatch(e)
	case run.Call:
		w.call(e)
	case run.Abort:
		w.abort(e)
	case run.Raise:
		w.after(time.Second, func() { w.PowerOn(e.Node) })
	case run.HandOver:
		w.after(0, func() { w.handOver(e.Node, e.Boot) })
	case run.Fence:
		w.end(e.Node, e.Incarnation, "fenced: power off was read back", false)
	case run.Wipe:
		w.end(e.Node, e.Incarnation, "wiped", true)
	case run.WipeAll:
		w.endAll(e)
	case run.Release:
		w.after(w.delay(time.Second, 5*time.Second), func() {
			w.PowerOff(e.Node)
			if n := w.nodes[e.Node]; n.disk { // erased
				n.Incarnation = ""
			}
			w.notice(Notice{Event: history.NodeReleased{Node: e.Node}})
		})
	}
}

// end takes a machine's power, and its disk if asked, and says that the incarnation will never act again.
func (w *World) end(name, incarnation, why string, wipe bool) {
	w.after(w.delay(time.Second, 20*time.Second), func() {
		n := w.nodes[name]
		w.PowerOff(name)
		if wipe && n.disk {
			n.Incarnation = ""
		}
		w.notice(Notice{Event: history.NodeEnded{Node: name, Incarnation: incarnation, Why: why, Wiped: wipe}})
	})
}

// endAll wipes nodes, and says so of all of them once the last is wiped.
func (w *World) endAll(e run.WipeAll) {
	w.after(w.delay(time.Second, 20*time.Second), func() {
		for _, n := range e.Nodes {
			w.PowerOff(n.Node)
			if node := w.nodes[n.Node]; node != nil && node.disk {
				node.Incarnation = ""
			}
			w.notice(Notice{Event: history.NodeEnded{Node: n.Node, Incarnation: n.Incarnation, Why: "wiped", Wiped: true}})
		}
	})
}

func (w *World) dispatch(e run.Dispatch) {
	n := w.nodes[e.Agent]
	if n == nil || w.chance(w.Faults.Vanish) {
		return
	}
	d := w.delay(time.Millisecond, time.Second)
	if w.chance(w.Faults.Lose) {
		d += time.Minute
	}
	arrive := func() { w.arrive(n, e) }
	w.after(d, arrive)
	if w.chance(w.Faults.Duplicate) {
		w.after(d+w.delay(0, 20*time.Second), arrive)
	}
}

// arrive is an order that reaches its node, or waits for the node to be reached.
func (w *World) arrive(n *Node, e run.Dispatch) {
	switch {
	case !n.On || n.Boot != e.Boot || n.scout != e.Step.Scout || n.Incarnation != e.Incarnation && !n.scout || w.now.After(e.Deadline):
		return
	case n.Silent:
		n.waiting = append(n.waiting, func() { w.arrive(n, e) })
		return
	case n.running[request{e.Target, e.ID}], e.ID < n.newest[e.Target]:
		return
	}
	if !run.IsLook(e.ID) {
		n.newest[e.Target] = e.ID
	}
	if _, done := n.spool[request{e.Target, e.ID}]; done {
		w.send(n, request{e.Target, e.ID})
		return
	}
	if e.Step.Apply.Builtin == "reboot" && e.Action == step.Apply {
		w.reboot(n, e.ID)
		return
	}
	if !n.yield(e) {
		n.spool[request{e.Target, e.ID}] = run.Report{ID: e.ID, Error: "cancelled", Excused: true}
		w.send(n, request{e.Target, e.ID})
		return
	}
	n.running[request{e.Target, e.ID}] = true
	w.after(w.duration(), func() {
		if !n.On || n.Boot != e.Boot || n.scout != e.Step.Scout || !n.running[request{e.Target, e.ID}] {
			return
		}
		delete(n.running, request{e.Target, e.ID})
		if w.now.After(e.Deadline.Add(-grace)) { // the agent keeps the time itself, so that nothing works on unnoticed
			n.spool[request{e.Target, e.ID}] = run.Report{ID: e.ID, Error: "timed out"}
			w.Runs = append(w.Runs, Run{Target: e.Target, ID: e.ID, Action: "timeout", Agent: n.Name, Boot: n.Boot})
		} else {
			n.spool[request{e.Target, e.ID}] = w.execute(n, e)
		}
		w.send(n, request{e.Target, e.ID})
	})
}

// yield sees to it that one thing at a time is done to an instance, as agents do: what is under way ends, and a verify that comes
// meanwhile does not start.
func (n *Node) yield(e run.Dispatch) bool {
	for r := range n.running {
		switch {
		case r.Target != e.Target:
		case e.Action == step.Verify:
			return false
		default:
			delete(n.running, r)
			n.spool[r] = run.Report{ID: r.id, Error: "cancelled", Excused: true}
		}
	}
	return true
}

// grace is how long before the engine gives an attempt up its agent has done so.
const grace = 10 * time.Second

func (w *World) duration() time.Duration {
	d := w.delay(100*time.Millisecond, 5*time.Second)
	if w.chance(w.Faults.Slow) {
		d *= 10
	}
	return d
}

func (w *World) execute(n *Node, e run.Dispatch) run.Report {
	inputs, err := w.visible(e.Inputs)
	if err != nil {
		return run.Report{ID: e.ID, Error: err.Error()}
	}
	effects := n.Effects
	if e.Step.Scout {
		effects = n.Firmware
	}
	if e.Step.Scope == model.Cluster {
		effects = w.fabric
	}
	fail := w.broken[e.Target] || w.chance(w.Faults.Fail)
	if _, there := effects[e.Target]; e.Action == step.Verify && !there {
		fail = true
	}
	r := w.report(e.ID, Ask{Target: e.Target, Action: e.Action, Attempt: e.Attempt, Name: e.Step.Name, Agent: n.Name, Inputs: e.Inputs}, inputs, fail)
	fail = fail || r.Error != ""
	if e.Action == step.Verify { // looks, and changes nothing
		w.Runs = append(w.Runs, Run{Target: e.Target, ID: e.ID, Action: string(e.Action), Agent: n.Name, Boot: n.Boot, Inputs: string(inputs), Good: !fail})
		return r
	}
	if e.Action == step.Remove {
		if !fail || w.chance(0.5) {
			delete(effects, e.Target)
			delete(n.lasting, e.Target)
		}
	} else if !fail || w.chance(0.5) {
		effects[e.Target] = inputs
		if e.Step.Reboots {
			n.last(e.Target, inputs)
		}
	}
	w.Runs = append(w.Runs, Run{Target: e.Target, ID: e.ID, Action: string(e.Action), Agent: n.Name, Boot: n.Boot, Inputs: string(inputs), Good: !fail})
	return r
}

func (w *World) call(e run.Call) {
	var r run.Report
	do := func() {
		inputs, err := w.visible(e.Inputs)
		fail := err != nil || w.broken[e.Target] || w.chance(w.Faults.Fail)
		if _, there := w.tables[e.Target]; e.Action == step.Verify && !there {
			fail = true
		}
		r = w.report(e.ID, Ask{Target: e.Target, Action: e.Action, Attempt: e.Attempt, Name: e.Name, Inputs: e.Inputs}, inputs, fail)
		fail = fail || r.Error != ""
		if e.Action != step.Verify && (!fail || w.chance(0.5)) {
			if e.Action == step.Remove {
				delete(w.tables, e.Target)
			} else {
				w.tables[e.Target] = inputs
			}
		}
		w.Runs = append(w.Runs, Run{Target: e.Target, ID: e.ID, Action: string(e.Action), Inputs: string(inputs), Good: !fail})
	}
	id := request{e.Target, e.ID} // the verifies at the end of a watch have one number
	w.calls[id] = do
	w.after(w.duration(), func() {
		if w.calls[id] == nil {
			return
		}
		delete(w.calls, id)
		do()
		w.notice(Notice{Target: e.Target, Report: r})
	})
}

func (w *World) report(id uint64, a Ask, inputs json.RawMessage, fail bool) run.Report {
	r := run.Report{ID: id}
	if fail {
		r.Error = "simulated failure"
		return r
	}
	if w.chance(w.Faults.Later) {
		r.Later = w.later()
		r.Error = r.Later.Error()
		return r
	}
	if w.cfg.Answer != nil {
		var err error
		if r.Outputs, err = w.cfg.Answer(a); err != nil {
			return run.Report{ID: id, Error: err.Error()}
		}
	} else if a.Action == step.Apply {
		r.Outputs = Outputs(a.Name, inputs)
	}
	if a.Action != step.Apply {
		r.Outputs = nil
		return r
	}
	if w.chance(w.Faults.Lie) {
		r.Outputs = []json.RawMessage{[]byte(`{}`), []byte(`{"out":"x","same":"y","extra":1}`), []byte(`{"out":{},"same":[]}`), []byte(`[`)}[w.rng.IntN(4)]
	}
	if d := w.cfg.Validity[a.Name]; d > 0 {
		r.ValidUntil = w.now.Add(d)
	}
	return r
}

// later is the answer of an action that came to no end yet: it knows when to try again, or waits for something outside.
func (w *World) later() *step.Later {
	if w.chance(0.5) {
		return &step.Later{Kind: step.WaitingFor, Reason: "something simulated"}
	}
	return &step.Later{Kind: step.RetryAfter, After: w.delay(step.LeastAfter, 2*time.Minute).Truncate(time.Second), Reason: "simulated"}
}

// visible gives what is kept of an action's inputs: all that the steps of this package look at, and nothing where others
// answer for them, for a gather over a thousand nodes is large.
func (w *World) visible(inputs map[string]value.Value) (json.RawMessage, error) {
	if w.cfg.Answer == nil {
		return Visible(inputs)
	}
	return json.RawMessage("{}"), nil
}

func (w *World) abort(e run.Abort) {
	n := w.nodes[e.Agent]
	if n == nil {
		delete(w.calls, request{e.Target, e.ID})
		return
	}
	boot := n.Boot
	w.after(w.delay(time.Millisecond, time.Second), func() {
		if n.On && n.Boot == boot && n.running[request{e.Target, e.ID}] {
			delete(n.running, request{e.Target, e.ID})
			n.spool[request{e.Target, e.ID}] = run.Report{ID: e.ID, Error: "aborted"}
			w.Runs = append(w.Runs, Run{Target: e.Target, ID: e.ID, Action: "abort", Agent: n.Name, Boot: n.Boot})
			w.send(n, request{e.Target, e.ID})
		}
	})
}

// HostPrefix begins the names of inputs that a simulated step's outputs do not depend on.
const HostPrefix = "host"

// Visible gives the inputs that a simulated step's outputs depend on, as JSON with sorted keys.
func Visible(inputs map[string]value.Value) (json.RawMessage, error) {
	seen := make(map[string]value.Value, len(inputs))
	for name, v := range inputs {
		if !strings.HasPrefix(name, HostPrefix) {
			seen[name] = v
		}
	}
	return value.Dict(seen).MarshalJSON()
}

// Outputs are what every simulated step yields from its inputs: `out` takes one of four values, so that changes often
// end there, and `same` is always the same.
func Outputs(name string, inputs json.RawMessage) json.RawMessage {
	h := fnv.New32a()
	h.Write(inputs)
	return json.RawMessage(fmt.Sprintf(`{"out":"%d","same":"s"}`, h.Sum32()%4))
}

// Count gives how often an action of an instance really ran to its end and went well, by (agent's boot, inputs).
func (w *World) Count(t history.Target, action step.Action) int {
	n := 0
	for _, r := range w.Runs {
		if r.Target == t && r.Action == string(action) && r.Good {
			n++
		}
	}
	return n
}

// Idle reports whether nothing is under way.
func (w *World) Idle() bool {
	return len(w.queue) == 0 && !slices.ContainsFunc(w.heard, func(Notice) bool { return true })
}
