package sim_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/replay"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
	"joist/providers/sim"
)

var (
	seedsFlag = flag.Int("sim.seeds", 0, "number of seeds for each property; 0 for its default, or JOIST_SIM_SEEDS")
	firstFlag = flag.Uint64("sim.first", 1, "first seed")
	nodesFlag = flag.Uint64("sim.nodes", 5, "nodes of the largest clusters; the smallest have 2")
)

func seeds(usual int) int {
	if *seedsFlag > 0 {
		return *seedsFlag
	}
	if n, err := strconv.Atoi(os.Getenv("JOIST_SIM_SEEDS")); err == nil && n > 0 {
		return n
	}
	return usual
}

// fault is a planted mistake, so that every property is seen to fail.
type fault struct {
	skew   func(model.Model) *model.Model          // what the machine takes the model to be
	tamper func(*lab, history.Event) history.Event // what is written down in place of an event
	meddle func(*lab)                              // done before every step
	early  bool                                    // effects are performed before they are durable
	dated  bool                                    // an engine that starts does not look how late it was

	nameless bool // what was renamed stands by its new name
}

// lab runs one cluster on simulated nodes, with the machine driven directly: no goroutine, virtual time.
type lab struct {
	seed    uint64
	rng     *rand.Rand
	gen     *generator
	world   *sim.World
	models  map[value.Digest]*model.Model
	blobs   map[value.Digest][]byte
	machine *run.Machine
	journal []journal.Record
	ledger  *ledger
	wake    time.Time
	crash   float64 // probability that the engine crashes at a write
	crashAt int     // write at which it crashes: -n before the nth, n after it; 0 for none
	writes  int
	crashes int
	trace   []string
	sketch  *sketch
	roles   map[string][]string
	destroy bool
	err     error
	steps   int
	fault   fault
	skewed  map[value.Digest]*model.Model
	drift   model.Drift // of every goal
	side    *rand.Rand  // what drift follows from, so that it changes nothing else
	police  *rand.Rand  // what policies follow from, likewise
	word    *rand.Rand  // what is skipped follows from, likewise; nil if nothing is
	set     *rand.Rand  // what the engine's clock is set to follows from, likewise; nil if nobody sets it
	skew    time.Duration
	latest  time.Time // time of the last event
	checks  int       // plans compared with one from scratch: every so many advances; 0 for never
}

func (l *lab) Model(g history.Goal) *model.Model {
	m := l.models[g.Model]
	if l.fault.skew == nil || m == nil {
		return m
	}
	if l.skewed[g.Model] == nil {
		l.skewed[g.Model] = l.fault.skew(*m)
	}
	return l.skewed[g.Model]
}
func (l *lab) Blob(d value.Digest) []byte { return l.blobs[d] }

func newLab(seed uint64, sh shape) *lab {
	l := &lab{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), models: map[value.Digest]*model.Model{}, blobs: map[value.Digest][]byte{}, skewed: map[value.Digest]*model.Model{}, roles: map[string][]string{}, checks: 3 + 12*int(seed%2)}
	l.gen = &generator{rng: l.rng, names: rand.New(rand.NewPCG(seed, 3)), shape: sh}
	l.police = rand.New(rand.NewPCG(seed, 11))
	validity := map[string]time.Duration{}
	if sh.valid {
		for i := range 20 {
			if l.rng.IntN(4) == 0 {
				validity[fmt.Sprintf("p.t%d", i)], validity[fmt.Sprintf("sim.p.t%d", i)] = time.Hour, time.Hour
			}
		}
	}
	disks := seed%3 == 0 || sh.reboots > 0
	l.world = sim.New(sim.Config{Seed: seed, Start: time.Unix(1_700_000_000, 0).UTC(), Validity: validity, Disk: func(string) bool { return disks }, Scout: sh.scout > 0})
	l.ledger = newLedger(l.models)
	l.machine = run.New(history.New(), l)
	return l
}

func (l *lab) logf(format string, args ...any) {
	l.trace = append(l.trace, fmt.Sprintf("%8.1fs ", l.world.Now().Sub(time.Unix(1_700_000_000, 0)).Seconds())+fmt.Sprintf(format, args...))
}

func (l *lab) fail(err error) {
	if err != nil && l.err == nil {
		l.err = err
		l.logf("FAILED: %v", err)
	}
}

// report is the failure of a seed: what broke, and a short trace.
func (l *lab) report() string {
	tail := l.trace
	if len(tail) > 60 && os.Getenv("JOIST_SIM_TRACE") == "" {
		tail = tail[len(tail)-60:]
	}
	sk := ""
	if l.sketch != nil {
		sk = l.sketch.String()
	}
	return fmt.Sprintf("seed %d: %v\n%sroles %v\n%s", l.seed, l.err, sk, l.roles, strings.Join(tail, "\n"))
}

// advance lets the machine decide, makes that durable and performs it; the engine may crash on the way.
func (l *lab) advance(events ...history.Event) {
	if l.err != nil {
		return
	}
	if l.fault.meddle != nil {
		l.fault.meddle(l)
	}
	l.commit(l.machine.Advance(l.now(), events...))
}

func (l *lab) commit(out run.Outcome) {
	l.steps++
	if l.fault.early {
		for _, e := range out.Effects {
			l.world.Perform(l.there(e))
		}
	}
	if len(out.Events) > 0 {
		l.writes++
	}
	if len(out.Events) > 0 && (l.crashes == 0 && l.crashAt == -l.writes || l.crash > 0 && l.rng.Float64() < l.crash) {
		l.logf("crash before a write")
		l.restart()
		return
	}
	if !out.Wake.IsZero() && !out.Wake.After(l.now()) {
		l.fail(fmt.Errorf("wake: asked to be woken at %v, which is not after now", out.Wake))
	}
	l.ledger.begin()
	for _, e := range out.Events {
		l.write(e, out.Now)
	}
	for _, e := range out.Effects {
		switch e := e.(type) {
		case run.Wipe, run.WipeAll, run.Release:
			l.ledger.now = out.Now
			l.fail(l.ledger.mayWipe(e))
		case run.HandOver:
			l.fail(l.ledger.mayHandOver(e))
		case run.Keep:
			l.blobs[e.Digest] = e.Data
		case run.Dispatch:
			if run.IsLook(e.ID) {
				l.fail(l.ledger.mayLook(e))
			}
			l.fail(l.ledger.mayReboot(e))
		case run.Call:
			if run.IsLook(e.ID) {
				l.fail(l.ledger.mayLook(e))
			}
		}
	}
	if len(out.Events) > 0 && (l.crashes == 0 && l.crashAt == l.writes || l.crash > 0 && l.rng.Float64() < l.crash) {
		l.logf("crash after a write")
		l.restart()
		return
	}
	for _, e := range out.Effects {
		l.world.Perform(l.there(e))
	}
	if l.wake = out.Wake; !l.wake.IsZero() {
		l.wake = l.wake.Add(-l.skew)
	}
	l.check()
}

func (l *lab) write(e history.Event, now time.Time) {
	if l.fault.tamper != nil {
		e = l.fault.tamper(l, e)
	}
	r, err := history.Encode(e, now)
	l.fail(err)
	if now.Before(l.latest) {
		l.fail(fmt.Errorf("clock: event %d is of %v, the one before it of %v", len(l.journal)+1, now, l.latest))
	}
	l.latest = now
	l.journal = append(l.journal, r)
	again, err := history.Decode(r)
	l.fail(err)
	l.logf("#%d %s", len(l.journal), describe(e))
	if d, ok := again.(history.Drifted); ok {
		l.fail(l.found(d))
	}
	l.ledger.now = now
	l.fail(l.ledger.take(again))
}

func describe(e history.Event) string {
	switch e := e.(type) {
	case history.Started:
		return fmt.Sprintf("%s %s agent=%s attempt=%d place=%q %s: %s", e.Action, e.Target, e.Agent, e.Attempt, e.Place, e.Inputs, e.Cause.Because())
	case history.Succeeded:
		return fmt.Sprintf("done %s %s silent=%v %s rests=%v", e.Action, e.Target, e.Silent != nil, e.Outputs, e.RestsOn)
	case history.Failed:
		return fmt.Sprintf("failed %s %s attempt=%d final=%v excused=%v %s %s", e.Action, e.Target, e.Attempt, e.Final, e.Excused, e.Later, e.Error)
	case history.NodeSeen:
		return fmt.Sprintf("seen %s %s %s online=%v %s %s", e.Node, e.Incarnation, e.Boot, e.Online, e.Level, e.Facts)
	case history.Goal:
		return fmt.Sprintf("GOAL %s %v destroy=%v changed=%v", e.Model.Short(), e.Roles, e.Destroy, e.Changed)
	}
	return fmt.Sprintf("%T%+v", e, e)
}

// restart is a crash of the engine and its start from the journal, from a snapshot or from the beginning.
func (l *lab) restart() {
	l.crashes++
	l.world.Forget()
	l.setClock()
	state := l.fold(l.rng.IntN(2) == 0)
	if l.fault.dated {
		state.Now = time.Time{}
	}
	l.machine = run.New(state, l)
	crash := l.crash
	l.crash /= 2
	l.commit(l.machine.Resume(l.now()))
	l.crash = crash
	l.world.Announce()
}

// fold reads the journal, by way of a snapshot if asked.
func (l *lab) fold(snapshot bool) *history.State {
	state := history.New()
	at := -1
	if snapshot && len(l.journal) > 0 {
		at = l.rng.IntN(len(l.journal))
	}
	for i, r := range l.journal {
		e, err := history.Decode(r)
		l.fail(err)
		state.Fold(uint64(i+1), r.Time, e)
		if i == at {
			version, data, err := state.Snapshot()
			l.fail(err)
			restored, err := history.Restore(version, data)
			l.fail(err)
			state = restored
		}
	}
	return state
}

// check holds the incremental plan against one from scratch, and the state against the journal.
func (l *lab) check() {
	if l.err != nil || l.checks == 0 || l.steps%l.checks != 0 {
		return
	}
	l.fail(comparePlans(l.machine))
	l.fail(l.orphans())
	if l.steps%(l.checks*16) == 0 {
		l.fail(l.compareStates())
	}
}

func (l *lab) compareStates() error {
	replayed, err := json.Marshal(l.fold(true))
	if err != nil {
		return err
	}
	live, err := json.Marshal(l.machine.State())
	if err != nil {
		return err
	}
	if string(live) != string(replayed) {
		at := 0
		for at < min(len(live), len(replayed)) && live[at] == replayed[at] {
			at++
		}
		from := max(at-150, 0)
		return fmt.Errorf("law 3: replaying the journal gives another state\nlive     …%s\nreplayed …%s", live[from:min(at+100, len(live))], replayed[from:min(at+100, len(replayed))])
	}
	return nil
}

// orphans is law 11: whatever may stand is in the plan or among its removals.
func (l *lab) orphans() error {
	removals := map[target]bool{}
	for _, r := range l.machine.Plan().Removals() {
		removals[r.Target] = true
	}
	for _, t := range l.ledger.targets() {
		if !l.ledger.rows[t].there || removals[t] {
			continue
		}
		if c := l.machine.Plan().Cell(t); c == nil || c.Verdict == plan.Absent {
			return fmt.Errorf("law 11: %s was started, and neither the plan nor its removals have it", t)
		}
	}
	return nil
}

func comparePlans(m *run.Machine) error {
	fresh := m.Replanned()
	var err error
	fresh.Each(func(t target, _ *model.Task, want *plan.Cell) {
		if got := m.Plan().Cell(t); err == nil && (got == nil || *got != *want) {
			err = fmt.Errorf("law 3: the incremental plan has for %s\n  %+v\nfrom scratch it is\n  %+v", t, got, want)
		}
	})
	if err != nil {
		return err
	}
	a, b := m.Plan().Removals(), fresh.Removals()
	if len(a) != len(b) {
		return fmt.Errorf("law 3: %d removals, from scratch %d", len(a), len(b))
	}
	for i := range a {
		if a[i] != b[i] {
			show := func(r plan.Removal) string {
				return fmt.Sprintf("%s replaced=%v discharge=%q ready=%v failed=%v wait=%s cause=%s", r.Target, r.Replaced, r.Discharge, r.Ready, r.Failed, r.Wait.Because(), r.Cause.Because())
			}
			return fmt.Errorf("law 3: removal\n  %s\nfrom scratch\n  %s", show(a[i]), show(b[i]))
		}
	}
	return nil
}

// pump lets time pass until done says so or nothing happens by itself any more. It gives up after a while.
func (l *lab) pump(limit int, done func() bool) {
	for range limit {
		if l.err != nil || done() {
			return
		}
		if heard := l.world.Hear(); len(heard) > 0 {
			for i, n := range heard {
				l.hear(n)
				if l.err != nil {
					return
				}
				_ = i
			}
			continue
		}
		next, ok := l.world.Next()
		if !l.wake.IsZero() && (!ok || l.wake.Before(next)) {
			next, ok = l.wake, true
		}
		if !ok {
			return
		}
		l.world.Until(next)
		if !l.wake.IsZero() && !l.wake.After(l.world.Now()) {
			l.advance()
		}
	}
}

func (l *lab) hear(n sim.Notice) {
	if n.Event != nil {
		l.advance(n.Event)
		return
	}
	if !n.Report.ValidUntil.IsZero() {
		n.Report.ValidUntil = n.Report.ValidUntil.Add(l.skew)
	}
	if e, ok := l.machine.Conclude(l.now(), n.Target, n.Report); ok {
		l.advance(e)
	} else if run.IsLook(n.Report.ID) { // there is room for another
		l.advance()
	}
}

func (l *lab) goal(changed bool) {
	var before []*model.Model
	for i := len(l.machine.State().Goals) - 1; i >= 0; i-- {
		before = append(before, l.models[l.machine.State().Goals[i].Model])
	}
	m := l.sketch.build(l.fault, before...)
	if l.models[m.Digest] != nil && l.rng.IntN(2) == 0 { // the same tasks by another name: the planner may keep what it has
		m.Digest = value.Sum(m.Digest[:], []byte{byte(len(l.models))})
	}
	if l.models[m.Digest] == nil {
		l.models[m.Digest] = m
	}
	roles := map[string][]string{}
	for r, names := range l.roles {
		if r, _ := m.RoleCalled(l.sketch.called(r)); r != nil {
			roles[r.Name] = slices.Sorted(slices.Values(names))
			continue
		}
		roles[r] = slices.Sorted(slices.Values(names))
	}
	g := history.Goal{Model: m.Digest, Roles: roles, By: "sim", Changed: changed, Destroy: l.destroy, Overrides: l.overrides()}
	if l.destroy {
		g.Roles = nil
	}
	l.logf("model\n%s", l.sketch)
	for _, n := range l.world.Nodes() {
		if seen, ok := l.world.Seen(n.Name); ok {
			l.advance(seen)
		}
	}
	l.advance(g)
}

// act is one thing that somebody does to the cluster or that befalls it.
func (l *lab) act() {
	l.approve(0.3)
	nodes := l.world.Nodes()
	n := nodes[l.rng.IntN(len(nodes))]
	switch k := l.rng.IntN(20); k {
	case 0, 1:
		l.sketch = l.gen.change(l.sketch)
		l.destroy = false
		l.goal(true)
	case 2, 3, 4:
		l.reshuffle()
		l.destroy = false
		l.goal(true)
	case 5:
		l.goal(false)
	case 6:
		if l.rng.IntN(3) == 0 {
			l.destroy = true
			l.goal(true)
		}
	case 7, 8:
		l.logf("power cut of %s", n.Name)
		l.world.PowerOff(n.Name)
	case 9:
		l.logf("%s dies", n.Name)
		l.world.Kill(n.Name)
	case 10:
		l.world.Cut(n.Name)
	case 11:
		if n.On {
			l.world.Reconnect(n.Name)
		} else {
			n.Dead = false
			l.world.PowerOn(n.Name)
		}
	case 12:
		n.Facts = json.RawMessage(`{"size":"` + pick(l.rng, []string{"small", "large"}) + `"}`)
		if n.On && !n.Silent {
			l.world.Reconnect(n.Name)
		}
	case 13:
		n.Level = pick(l.rng, []string{model.Claimed, model.Vouched, model.Vouched})
		if n.On && !n.Silent {
			l.world.Reconnect(n.Name)
		}
	case 14, 15:
		if ts := l.ledger.instances(); len(ts) > 0 {
			t := ts[l.rng.IntN(len(ts))]
			switch k {
			case 14:
				l.logf("%s is broken from now on", t)
				l.world.Break(t)
			default:
				if task := l.ledger.model().Task(t.Task); l.ledger.rows[t] != nil && l.ledger.rows[t].there || task != nil && task.Asked != "" {
					l.advance(history.Forced{Target: t, By: "sim"})
				}
			}
		}
	case 16:
		switch l.rng.IntN(6) {
		case 0, 1:
			l.advance(history.Cancelled{By: "sim"})
		case 2:
			l.logf("all are to be wiped")
			l.advance(history.WipeOrdered{By: "sim"})
		}
	case 17:
		if l.gen.shape.tolerate > 0 && l.rng.IntN(2) == 0 {
			l.asideOrReturn(n.Name)
			return
		}
		l.advance(history.BreakerClosed{Rollout: "r", By: "sim"})
	case 18:
		l.world.Until(l.world.Now().Add(time.Duration(l.rng.IntN(120)) * time.Minute))
		l.advance()
	case 19:
		l.restart()
	}
}

func (l *lab) reshuffle() {
	for _, role := range l.gen.shape.roles {
		l.roles[role] = nil
		for _, n := range l.world.Nodes() {
			if l.rng.Float64() < 0.6 {
				l.roles[role] = append(l.roles[role], n.Name)
			}
		}
	}
}

// begin sets the first goal on a few machines that are off.
func (l *lab) begin(nodes int) {
	for i := range nodes {
		l.world.Add(fmt.Sprintf("n%d", i+1))
	}
	l.sketch = l.gen.sketch()
	l.sketch.drift = l.drift
	if l.gen.shape.policies {
		l.sketch.policies = l.gen.policies(l.police)
	}
	l.reshuffle()
	l.goal(true)
}

// chaos lets many things happen at once.
func (l *lab) chaos(acts int, faults sim.Faults) {
	l.world.Faults = faults
	for range acts {
		if l.err != nil {
			return
		}
		n := l.rng.IntN(40)
		l.pump(n, func() bool { return false })
		l.act()
		l.lose()
		l.skip()
		l.setClock()
	}
}

// calm ends everything bad, asks once more for the goal and lets it come to rest.
func (l *lab) calm() {
	if l.err != nil {
		return
	}
	l.logf("calm")
	l.world.Faults, l.crash = sim.Faults{}, 0
	l.world.Mend()
	for _, n := range l.world.Nodes() {
		n.Dead, n.Level = false, model.Vouched
		if n.On {
			l.world.Reconnect(n.Name)
		}
	}
	end := l.world.Now().Add(20 * time.Minute) // what is in flight may still end badly
	l.pump(3000, func() bool { return l.world.Now().After(end) })
	for _, n := range l.machine.State().Nodes {
		if n.Aside != nil {
			l.advance(history.NodeReturned{Node: n.Name, By: "sim"})
		}
	}
	for _, t := range l.ledger.targets() { // what a verify that nobody answered found of it waits for a person
		if task := l.ledger.model().Task(t.Task); l.ledger.rows[t].drifted && task != nil && task.Step.Once {
			l.advance(history.Forced{Target: t, By: "sim"})
		}
	}
	for _, role := range l.gen.shape.roles { // a role without nodes has nobody to execute its scripts
		if len(l.roles[role]) == 0 {
			l.roles[role] = []string{l.world.Nodes()[0].Name}
		}
	}
	l.sketch.policies = nil // what they hold they may hold for ever
	for range 1 + len(l.world.Nodes()) {
		said := len(l.journal)
		l.goal(true)
		l.throughScout()
		l.turn()
		if l.quiet(); !l.missed(said) {
			break
		}
	}
	l.settle()
}

// missed reports whether a watch that was begun after an event found something gone: that has opened a breaker, which a person
// closes by saying once more what is wanted.
func (l *lab) missed(since int) bool {
	for i := since; i < len(l.journal); i++ {
		if e, ok := l.event(uint64(i + 1)).(history.Watched); ok && !e.OK {
			return true
		}
	}
	return false
}

// settle lets the cluster come to rest and fails if it does not.
func (l *lab) settle() {
	l.quiet()
	if l.side != nil && l.real() != nil { // what a rollout held a place for is verified after that
		l.turn()
		l.quiet()
	}
	want := "converged"
	if l.destroy {
		want = "destroyed"
	}
	if got := l.machine.State().Outcome; l.err == nil && got != want {
		l.fail(fmt.Errorf("rest: outcome %q (%s), want %q; %s\n%s", got, l.machine.State().Detail, want, l.ledger.open(), l.open()))
	}
	if l.err == nil {
		l.fail(l.ledger.takeRested(history.Rested{Outcome: want}))
		l.fail(l.real())
		l.fail(comparePlans(l.machine))
		l.fail(l.compareStates())
		if l.seed%4 < 2 || l.gen.shape.budgets {
			l.fail(l.replayed())
		}
	}
}

// quiet lets everything happen that happens by itself or waits for a person.
func (l *lab) quiet() {
	end := l.world.Now().Add(6 * time.Hour)
	still := func() bool {
		return l.machine.State().Outcome != "" && l.world.Idle() || l.world.Now().After(end)
	}
	l.pump(20000, still)
	for range 200 {
		if l.err != nil || l.world.Now().After(end) || !l.approve(1) {
			break
		}
		l.pump(20000, still)
	}
}

// replayed is law 3 over the whole journal: the core decides again what it decided.
func (l *lab) replayed() error {
	r := replay.New(l, 0)
	for i, rec := range l.journal {
		rec.Seq = uint64(i + 1)
		if err := r.Take(rec); err != nil {
			return err
		}
	}
	if report := r.End(); report.Diverged > 0 {
		return fmt.Errorf("law 3: %d of %d decisions diverge in a replay: %s", report.Diverged, report.Decisions, report.Divergences[0])
	}
	return nil
}

// replayedChaos is chaos whose journal is replayed, whatever the seed.
func replayedChaos(sh shape, seed uint64, f fault) error {
	l := chaosOf(sh, seed, f)
	if l.err == nil {
		l.fail(l.replayed())
	}
	if l.err != nil {
		return errors.New(l.report())
	}
	return nil
}

// open lists what the plan says is not done.
func (l *lab) open() string {
	var b strings.Builder
	for _, it := range outlook.Items(l.machine.Plan()) {
		if it.State != outlook.InPlace && it.State != outlook.Absent {
			fmt.Fprintf(&b, "  %s %s %s: %s; waits: %s\n", it.Target, it.Verdict, it.State, it.Cause.Because(), it.Wait.Because())
		}
	}
	for _, r := range l.machine.Plan().Removals() {
		fmt.Fprintf(&b, "  remove %s replaced=%v failed=%v ready=%v discharge=%q waits: %s\n", r.Target, r.Replaced, r.Failed, r.Ready, r.Discharge, r.Wait.Because())
	}
	return b.String()
}

// real compares what the engine believes with what is there.
func (l *lab) real() error {
	for _, r := range l.world.Runs {
		if run.IsLook(r.ID) && r.Action != string(step.Apply) && r.Action != string(step.Remove) {
			continue // which no journal knows
		}
		if r.Action == sim.Reboot || r.Action != string(step.Apply) && r.Action != string(step.Remove) && l.rebootOf(r) {
			continue
		}
		if int(r.ID) > len(l.journal) {
			return fmt.Errorf("law 4: %s ran without being in the journal", r)
		}
		if s, ok := l.event(r.ID).(history.Asked); ok && r.Action != string(step.Apply) && r.Action != string(step.Remove) && s.Node == r.Target.Node {
			continue
		}
		if s, ok := l.event(r.ID).(history.Started); !ok || s.Target != r.Target {
			return fmt.Errorf("law 4: %s ran, but the journal has %T there", r, l.event(r.ID))
		}
	}
	if err := l.rebootedOnce(); err != nil {
		return err
	}
	want := map[string]map[target]bool{"tables": {}, "fabric": {}}
	for _, n := range l.world.Nodes() {
		want[n.Name] = map[target]bool{}
	}
	for _, t := range l.ledger.instances() {
		task := l.ledger.model().Task(t.Task)
		if exists, _ := l.ledger.exists(t); !exists || task.Step.Pure() || l.ledger.guards(t) {
			continue
		}
		if task.Step.Scout {
			if l.world.Node(t.Node).Firmware[t] == nil {
				return fmt.Errorf("real: %s says it is in place, but nothing was done to %s", t, t.Node)
			}
			continue
		}
		where := map[model.StepScope]string{model.Node: t.Node, model.Service: "tables", model.Cluster: "fabric"}[task.Step.Scope]
		want[where][t] = true
	}
	have := map[string]map[target]json.RawMessage{"tables": l.world.Tables(), "fabric": l.world.Fabric()}
	for _, n := range l.world.Nodes() {
		have[n.Name] = n.Effects
	}
	for where, targets := range want {
		for t := range targets {
			if have[where][t] == nil {
				return fmt.Errorf("real: %s says it is in place, but there is nothing in %s", t, where)
			}
		}
		for t := range have[where] {
			if !targets[t] && !l.ledger.gone[t] {
				return fmt.Errorf("law 11: %s is an orphan in %s", t, where)
			}
		}
	}
	return nil
}

func (l *lab) event(seq uint64) history.Event {
	e, err := history.Decode(l.journal[seq-1])
	l.fail(err)
	return e
}

var full = shape{tasks: 6, roles: []string{"a", "b"}, rollouts: true, when: true, valid: true, except: 0.1, during: 0.1, tolerate: 0.2, approve: 0.05}

func chaosSeed(seed uint64, f fault) *lab { return chaosOf(full, seed, f) }

func chaosOf(sh shape, seed uint64, f fault) *lab {
	if seed%5 == 2 {
		sh.policies = true
	}
	if seed%4 == 1 { // waves, watches and failure domains
		sh.budgets = true
	}
	if seed%10 == 4 {
		sh.scout = 0.3
	}
	sh.valid = sh.valid && sh.scout == 0 // what expires there is renewed at the next boot only
	l := newLab(seed, sh)
	l.fault = f
	rough := seed%4 != 0
	if seed%2 == 0 {
		l.crash = 0.02
	}
	if seed%3 == 1 {
		sh.drift = true
	}
	if sh.skips == 0 && seed%3 == 2 {
		sh.skips = 0.3
	}
	if l.gen.shape.skips = sh.skips; sh.skips > 0 {
		l.word = rand.New(rand.NewPCG(seed, 17))
	}
	if seed%7 == 3 || sh.clocks {
		l.set = rand.New(rand.NewPCG(seed, 13))
	}
	l.drifting(sh)
	l.begin(2 + int(seed%max(*nodesFlag-1, 1)))
	faults := sim.Faults{}
	if rough {
		faults = sim.Faults{Fail: 0.1, Lie: 0.02, Lose: 0.05, Vanish: 0.01, Duplicate: 0.1, Slow: 0.1, Later: 0.05}
	}
	if sh.later {
		faults.Later = 0.35
	}
	if sh.mute {
		faults.Vanish = 0.15
	}
	l.chaos(8, faults)
	l.calm()
	return l
}

// TestMain lets the heap grow: every seed leaves little behind, and a quarter of the time went into looking for it.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

// TestChaos holds every law at once while everything goes wrong, and convergence once that ends: ten thousand clusters of up
// to five nodes, on as many processors as there are.
func TestChaos(t *testing.T) {
	n := uint64(seeds(10_000))
	var next, failed atomic.Uint64
	var work sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() {
			for failed.Load() < 3 {
				seed := next.Add(1) - 1
				if seed >= n {
					return
				}
				if l := guarded(*firstFlag + seed); l.err != nil {
					failed.Add(1)
					t.Errorf("%s", l.report())
				}
			}
		})
	}
	work.Wait()
	if failed.Load() >= 3 {
		t.Errorf("stopped after 3 of %d seeds", next.Load())
	}
}

func guarded(seed uint64) (l *lab) {
	defer func() {
		if r := recover(); r != nil {
			panic(fmt.Sprintf("seed %d: %v", seed, r))
		}
	}()
	return chaosSeed(seed, fault{})
}
