package run

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/run/timers"
	"joist/engine/step"
)

// secondLook is how long after a verify that found something it is repeated before that counts as drift: what is just
// being restarted has not drifted.
const secondLook = 5 * time.Second

// Due gives the first time after a moment at which an instance is verified that is verified so often. It depends on nothing
// else, so that a restart of the engine makes no verify more and none less; instances are spread over that time by a hash of
// their addresses.
func Due(t history.Target, every time.Duration, after time.Time) time.Time {
	turn := after.Truncate(every)
	at := turn.Add(offset(t, every))
	if !at.After(after) {
		at = at.Add(every)
	}
	return at
}

func offset(t history.Target, every time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(t.Task + "\x00" + t.Node))
	x := h.Sum64()
	x ^= x >> 33 // FNV mixes the last bytes little, and names differ in their last bytes
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return time.Duration(x % uint64(every))
}

// looks is the upkeep of what is in place: which instances are to be verified, and when. Nothing of it is in the journal: a
// verify that finds nothing new leaves no trace.
type looks struct {
	wheel []spoke   // by offset; nil if it has to be made, at build: where a goal was just set, there is more to do
	build time.Time // zero if nobody asked for a wheel yet
	next  int       // spoke
	turn  time.Time // when the wheel's turn under way began

	queues map[string][]history.Target // what is to be verified, by node
	queued map[history.Target]bool
	order  []string        // nodes with something to be verified and nothing that is
	busy   map[string]bool // nodes that verify something
	doubts map[history.Target]bool
	again  timers.Timers // second looks, and ends of the time of what is under way
	last   uint64        // identity of the last verify
	count  Looked
	inquiries
}

type spoke struct {
	offset time.Duration
	t      history.Target
}

// Looked counts what came of verifies since the engine took the cluster up.
type Looked struct {
	InPlace, Drifted, Silent uint64    // Silent: no answer came, or none that says anything
	Last                     time.Time // when the last one that said something ended
}

func newLooks() looks {
	return looks{queues: map[string][]history.Target{}, queued: map[history.Target]bool{}, busy: map[string]bool{}, doubts: map[history.Target]bool{}}
}

// Looked says what came of verifies so far.
func (m *Machine) Looked() Looked { return m.looks.count }

// inspect asks for the verifies that are due, as far as the budget for them goes: one on a node, so many in the cluster.
func (m *Machine) inspect(now time.Time) {
	l := &m.looks
	if len(l.queued) == 0 && l.again.Len() == 0 && m.plan.Model().Drift.Every == 0 {
		return
	}
	m.roll(now)
	for _, t := range l.again.Until(now) {
		asked, under := m.watching[t]
		switch {
		case under && asked.until.After(now):
			l.again.Add(asked.until, t)
		case under && asked.drift():
			m.effects = append(m.effects, Abort{Target: t, ID: asked.id, Agent: asked.agent})
			m.lookEnds(now, t, Look{State: LookSilent, Observed: "no answer to its verify within its time"})
		case l.doubts[t]:
			l.put(t)
		}
	}
	most := cmp.Or(m.plan.Model().Drift.AtOnce, model.DriftAtOnce)
	for len(l.order) > 0 && len(l.busy) < most {
		node := l.order[0]
		l.order = l.order[1:]
		t := l.queues[node][0]
		if l.queues[node] = l.queues[node][1:]; len(l.queues[node]) == 0 {
			delete(l.queues, node)
		}
		delete(l.queued, t)
		if why := m.unverifiable(t); why != "" {
			delete(l.doubts, t)
			l.ended(t, Look{State: LookLeftOut, Observed: why, At: now})
			l.line(node)
			continue
		}
		m.lookAt(now, t)
	}
}

// roll lets the wheel turn up to now. What it missed by more than a turn is not made up for.
func (m *Machine) roll(now time.Time) {
	l, every := &m.looks, m.plan.Model().Drift.Every
	if every == 0 || l.wheel == nil && (l.build.IsZero() || now.Before(l.build)) {
		return
	}
	if l.wheel == nil || now.Before(l.turn) || !now.Before(l.turn.Add(2*every)) {
		if l.wheel == nil {
			l.wheel, l.build = m.spokes(every), time.Time{}
		}
		l.turn = now.Truncate(every)
		l.next, _ = slices.BinarySearchFunc(l.wheel, now.Sub(l.turn)+1, func(s spoke, at time.Duration) int { return cmp.Compare(s.offset, at) })
	}
	for len(l.wheel) > 0 {
		if l.next == len(l.wheel) {
			l.next, l.turn = 0, l.turn.Add(every)
		}
		if l.turn.Add(l.wheel[l.next].offset).After(now) {
			return
		}
		if t := l.wheel[l.next].t; m.unverifiable(t) == "" && !l.doubts[t] {
			l.put(t)
		}
		l.next++
	}
}

// spokes lists the instances that have a verify, by when in a turn they are verified.
func (m *Machine) spokes(every time.Duration) []spoke {
	wheel := []spoke{}
	m.plan.Each(func(t history.Target, task *model.Task, _ *plan.Cell) {
		if verified(task) {
			wheel = append(wheel, spoke{offset(t, every), t})
		}
	})
	slices.SortFunc(wheel, func(a, b spoke) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), strings.Compare(a.t.Task, b.t.Task), strings.Compare(a.t.Node, b.t.Node))
	})
	return wheel
}

// verified reports whether the instances of a task can drift, and be found to have.
func verified(task *model.Task) bool {
	return task.Step.Verify != nil && task.Step.Scope == model.Node && len(task.Each) > 0
}

// nextLook is when the machine has to be advanced for verifies; zero for never.
func (m *Machine) nextLook(now time.Time) time.Time {
	l, every := &m.looks, m.plan.Model().Drift.Every
	at := l.again.Next()
	switch {
	case every == 0 || m.resting() != "":
	case l.wheel == nil:
		if l.build.IsZero() {
			l.build = now.Add(time.Second)
		}
		at = sooner(at, l.build)
	case l.next < len(l.wheel):
		at = sooner(at, l.turn.Add(l.wheel[l.next].offset))
	case len(l.wheel) > 0:
		at = sooner(at, l.turn.Add(every+l.wheel[0].offset))
	}
	return at
}

// sooner gives the earlier of two times; a zero one never comes.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// resting says why nothing at all is verified, if so.
func (m *Machine) resting() string {
	switch goal := m.state.Goal(); {
	case goal == nil:
		return "the cluster has no goal"
	case goal.Destroy:
		return "the cluster is being destroyed"
	case m.state.Outcome == history.OutcomeCancelled:
		return "the pursuit of the goal was cancelled"
	case len(m.state.Wiping) > 0:
		return "the cluster's machines are being wiped"
	}
	return ""
}

// unverifiable says why an instance is not verified now, if so: what is not in place or about to change, what has no
// verify, and what is on a node that leaves, is silent or not trusted enough.
func (m *Machine) unverifiable(t history.Target) string {
	if why := m.resting(); why != "" {
		return why
	}
	cell, row, n := m.plan.Cell(t), m.state.Row(t), m.state.Node(t.Node)
	if cell == nil || n == nil {
		return "the goal has no such instance on a node"
	}
	if !verified(m.plan.Task(t.Task)) {
		return "its step has no verify on its node"
	}
	switch g := m.groups[t.Task]; {
	case row == nil || row.Phase != history.InPlace || !cell.Settled():
		return "it is not in place"
	case row.Flight != nil:
		return "an attempt is in flight"
	case g != nil && m.holds(g, t.Node):
		return "its node has a place of rollout " + g.Name + ": it is being changed, or watched"
	case !m.plan.Wants(t.Node):
		return "its node is leaving"
	case n.Aside != nil:
		return "its node is set aside"
	case !n.Alive() || !n.Online:
		return "its node does not answer"
	case !model.Suffices(n.Level, m.plan.Model().Trust):
		return "its node is not trusted enough"
	}
	if asked, ok := m.watching[t]; ok && !asked.drift() {
		return "it is being verified for its rollout"
	}
	return ""
}

// put has an instance verified as soon as the budget lets it.
func (l *looks) put(t history.Target) {
	if l.queued[t] {
		return
	}
	l.queued[t] = true
	l.queues[t.Node] = append(l.queues[t.Node], t)
	if len(l.queues[t.Node]) == 1 {
		l.line(t.Node)
	}
}

// line puts a node in line that has something to verify and verifies nothing.
func (l *looks) line(node string) {
	if len(l.queues[node]) > 0 && !l.busy[node] {
		l.order = append(l.order, node)
	}
}

// drift reports whether what is watched is looked at for drift, and not for a rollout.
func (w watched) drift() bool { return w.rollout == "" }

// firstLook is where the identities of such verifies begin: no event has such a number.
const firstLook = 1 << 63

// IsLook reports whether an attempt's identity is one of a verify for drift, of which the journal knows nothing.
func IsLook(id uint64) bool { return id >= firstLook }

// lookAt asks a node to verify an instance.
func (m *Machine) lookAt(now time.Time, t history.Target) {
	l, row, n := &m.looks, m.state.Row(t), m.state.Node(t.Node)
	inputs, was, err := m.recorded(t, row)
	if was == nil || err != nil { // it could not be applied again either, and its apply will say so
		l.ended(t, Look{State: LookLeftOut, Observed: "its inputs cannot be read", At: now})
		l.line(t.Node)
		return
	}
	task := m.plan.Task(t.Task)
	l.last = max(l.last+1, firstLook|uint64(now.UnixNano()))
	asked := watched{id: l.last, agent: t.Node, until: deadline(now, task.Step.Verify), row: row.Started}
	m.watching[t], l.busy[t.Node] = asked, true
	l.again.Add(asked.until, t)
	l.began(t)
	m.effects = append(m.effects, Dispatch{Target: t, ID: asked.id, Agent: t.Node, Incarnation: n.Incarnation, Boot: n.Boot, Action: step.Verify, Attempt: 1,
		Step: task.Step, Inputs: inputs, Outputs: row.Outputs, Deadline: asked.until})
}

// lookEnds takes note of what came of a verify.
func (m *Machine) lookEnds(now time.Time, t history.Target, found Look) {
	l := &m.looks
	delete(m.watching, t)
	delete(l.busy, t.Node)
	l.line(t.Node)
	found.At = now
	switch {
	case found.State == LookDrifted && !l.doubts[t]:
		l.doubts[t] = true
		l.again.Add(now.Add(secondLook), t)
		return
	case found.State == LookDrifted:
		l.count.Drifted++
		l.count.Last = now
	case found.State == LookInPlace:
		l.count.InPlace++
		l.count.Last = now
	default:
		l.count.Silent++
	}
	delete(l.doubts, t)
	l.ended(t, found)
}

// concludeLook turns the report of a verify into an event, if it found something new.
func (m *Machine) concludeLook(now time.Time, t history.Target, r Report) (history.Event, bool) {
	asked, row := m.watching[t], m.state.Row(t)
	found := Look{State: LookInPlace}
	output := ""
	switch {
	case r.Excused || r.Refused:
		found = Look{State: LookSilent, Observed: cut(r.Error, mostObserved)}
	case row == nil || row.Started != asked.row:
		found = Look{State: LookLeftOut, Observed: "it was changed meanwhile"}
	case r.Error != "":
		found.State = LookDrifted
		found.Observed, output = observed(r.Error)
	}
	if m.lookEnds(now, t, found); m.looks.doubts[t] {
		return nil, false
	}
	switch {
	case found.State == LookInPlace && row.Drifted != "":
		return history.Mended{Target: t}, true
	case found.State == LookDrifted && row.Drifted == "":
		return history.Drifted{Target: t, Observed: found.Observed, Output: output, By: m.looks.asker(t)}, true
	}
	return nil, false
}

// mostObserved bounds the sentence that says what a verify found, in bytes.
const mostObserved = 400

// observed takes apart what an agent says of a verify that failed: how it ended, and the last lines that it wrote. The last
// of these says most.
func observed(text string) (sentence, output string) {
	how, tail, _ := strings.Cut(text, "\n")
	tail = strings.TrimSpace(tail)
	if last := strings.TrimSpace(tail[strings.LastIndexByte(tail, '\n')+1:]); last != "" {
		how += ": " + last
	}
	if len(tail) > history.MostOutput {
		tail = strings.ToValidUTF8(tail[len(tail)-history.MostOutput:], "")
		if at := strings.IndexByte(tail, '\n'); at >= 0 {
			tail = tail[at+1:]
		}
	}
	return cut(how, mostObserved), tail
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// lookAway gives up the verify of an instance that something is about to be done to.
func (m *Machine) lookAway(now time.Time, t history.Target) {
	asked, ok := m.watching[t]
	if doubted := m.looks.doubts[t]; !ok {
		if delete(m.looks.doubts, t); doubted && !m.looks.queued[t] { // what was seen of it is of another effect
			m.looks.ended(t, Look{State: LookLeftOut, Observed: "it was changed meanwhile", At: now})
		}
		return
	}
	m.effects = append(m.effects, Abort{Target: t, ID: asked.id, Agent: asked.agent})
	if asked.drift() {
		m.lookEnds(now, t, Look{State: LookLeftOut, Observed: "it was changed meanwhile"})
		return
	}
	delete(m.watching, t)
}
