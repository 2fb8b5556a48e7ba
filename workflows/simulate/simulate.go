// Package simulate runs a cluster on simulated machines and services in virtual time, for authors: the engine's core
// decides, the world that is injected performs, and nothing else happens. All of it follows from the seed: the same model,
// nodes and seed give the same journal, event for event.
package simulate

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
)

// World is what exists outside the engine; providers/sim has it.
type World interface {
	// Perform takes in an effect of the engine.
	Perform(e run.Effect)
	// Now is the virtual time.
	Now() time.Time
	// Next gives the time of the next thing that happens by itself, false for nothing.
	Next() (time.Time, bool)
	// Until lets time pass up to a moment.
	Until(at time.Time)
	// Hear takes out what the engine has heard since it was last asked.
	Hear() []Notice
}

// Machines is how mishaps befall the machines of a World.
type Machines interface {
	// Add gives the world a machine that is off.
	Add(name string, facts json.RawMessage)
	// Crash takes a machine's power; with forGood it cannot be switched on again.
	Crash(name string, forGood bool)
	// Cut separates a machine from the engine; it works on. Reconnect ends that.
	Cut(name string)
	Reconnect(name string)
	// Restart is a crash of the engine: what was under way in its process is lost, and machines report anew to the next one.
	Restart()
}

// Notice is something the engine hears of: an event, or what became of an attempt.
type Notice struct {
	Event  history.Event // nil for a report
	Target history.Target
	Report run.Report
}

// Ask is an action that a node or service is performing, for whoever answers.
type Ask struct {
	history.Target
	Action  step.Action
	Attempt int
	Inputs  map[string]value.Value
	Agent   string // node that performs it; empty for a service
}

// Config says what is simulated.
type Config struct {
	World    World    // required
	Machines Machines // of that world; required
	Seed     uint64
	Faults   Faults
	Limit    time.Duration // virtual time that the pursuit of one goal may take; 0 for 48 hours
	Progress func(Tally)   // called now and then; nil for nobody
}

// Faults says what befalls the machines; what befalls single actions and messages is the World's matter.
type Faults struct {
	Crash     bool // machines lose power now and then, and the engine is killed twice
	Partition bool // machines cannot be reached for some minutes
}

// Tally counts what has happened so far.
type Tally struct {
	Events   uint64        `json:"events"`   // of the journal
	Runs     int           `json:"runs"`     // attempts that ended
	Failures int           `json:"failures"` // of them, badly
	Crashes  int           `json:"crashes"`  // of machines and of the engine
	Virtual  time.Duration `json:"-"`        // time that passed in the simulation
}

// Simulation is one cluster in a world. It is not safe for concurrent use.
type Simulation struct {
	cfg     Config
	rng     *rand.Rand
	models  map[value.Digest]*model.Model
	blobs   map[value.Digest][]byte
	machine *run.Machine
	journal []journal.Record
	digest  hash.Hash
	begun   time.Time
	wake    time.Time
	wrote   time.Time // when the journal last grew
	tally   Tally
	mishaps []mishap
	kills   map[int]bool // writes at which the engine is killed
	writes  int
	deeds   []Deed
	flights map[history.Target]int // index of the deed under way
}

// Deed is one action from its start to its end.
type Deed struct {
	history.Target
	Action     step.Action
	Seq        uint64 // event that started it
	Place      string // rollout in whose place it ran
	Start, End time.Time
	Error      string // empty if it went well
	Final      bool   // the failure was the last
	Excused    bool   // it ended with its node, or was aborted
	Discharged bool   // nothing had to be done
	Pure       bool   // the engine computed it
}

type mishap struct {
	at time.Time
	do func()
}

// New makes a simulation without a goal.
func New(cfg Config) (*Simulation, error) {
	if cfg.World == nil || cfg.Machines == nil {
		return nil, errors.New("cannot simulate: a world and its machines are required")
	}
	if cfg.Limit == 0 {
		cfg.Limit = 48 * time.Hour
	}
	s := &Simulation{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 17)), models: map[value.Digest]*model.Model{}, blobs: map[value.Digest][]byte{},
		digest: sha256.New(), begun: cfg.World.Now(), flights: map[history.Target]int{}, kills: map[int]bool{},
	}
	s.machine = run.New(history.New(), s)
	return s, nil
}

// Model implements run.Library.
func (s *Simulation) Model(g history.Goal) *model.Model { return s.models[g.Model] }

// Blob implements run.Library.
func (s *Simulation) Blob(d value.Digest) []byte { return s.blobs[d] }

// Goal sets what the cluster is to be. The roles' names must be machines of the world. A nil model destroys the cluster.
func (s *Simulation) Goal(m *model.Model, roles map[string][]string) error {
	g := history.Goal{By: "simulate", Changed: true, Roles: map[string][]string{}}
	if m == nil {
		last := s.machine.State().Goal()
		if last == nil {
			return errors.New("cannot destroy a cluster without a goal")
		}
		g.Model, g.Destroy, g.Roles = last.Model, true, nil
	} else {
		s.models[m.Digest] = m
		g.Model = m.Digest
		for role, names := range roles {
			g.Roles[role] = slices.Sorted(slices.Values(names))
		}
	}
	s.advance(g)
	return nil
}

// Force has instances run again, as a person's word.
func (s *Simulation) Force(targets []history.Target) {
	for _, t := range targets {
		s.advance(history.Forced{Target: t, By: "simulate"})
	}
}

// Mishaps plans what is to befall the given nodes from now on, by the seed: about one in ten of them, at least one.
func (s *Simulation) Mishaps(nodes []string) {
	within := 20*time.Minute + time.Duration(len(nodes))*time.Second
	befall := func(do func(node string)) {
		for range max(len(nodes)/10, 1) {
			node := nodes[s.rng.IntN(len(nodes))]
			at := s.cfg.World.Now().Add(time.Duration(s.rng.Int64N(int64(within))))
			s.mishaps = append(s.mishaps, mishap{at, func() { do(node) }})
		}
	}
	if s.cfg.Faults.Crash && len(nodes) > 0 {
		befall(func(node string) {
			s.tally.Crashes++
			s.cfg.Machines.Crash(node, false)
		})
		for range 2 {
			s.kills[s.writes+1+s.rng.IntN(20+10*len(nodes))] = true
		}
	}
	if s.cfg.Faults.Partition && len(nodes) > 0 {
		befall(func(node string) {
			s.cfg.Machines.Cut(node)
			back := s.cfg.World.Now().Add(time.Minute + time.Duration(s.rng.Int64N(int64(4*time.Minute))))
			s.mishaps = append(s.mishaps, mishap{back, func() { s.cfg.Machines.Reconnect(node) }})
			s.sortMishaps()
		})
	}
	s.sortMishaps()
}

// Later does something after a time.
func (s *Simulation) Later(d time.Duration, do func()) {
	s.mishaps = append(s.mishaps, mishap{s.cfg.World.Now().Add(d), do})
	s.sortMishaps()
}

func (s *Simulation) sortMishaps() {
	slices.SortStableFunc(s.mishaps, func(a, b mishap) int { return a.at.Compare(b.at) })
}

// Settle lets time pass until the goal has come to rest, no mishap is to come, and nothing is under way. The error says that
// this never was, or that until ended it.
func (s *Simulation) Settle(until func() error) error {
	w, end := s.cfg.World, s.cfg.World.Now().Add(s.cfg.Limit)
	for turns := 0; ; turns++ {
		if turns%4096 == 0 {
			if err := until(); err != nil {
				return err
			}
			if s.cfg.Progress != nil {
				s.cfg.Progress(s.Tally())
			}
		}
		if heard := w.Hear(); len(heard) > 0 {
			for _, n := range heard {
				s.hear(n)
			}
			continue
		}
		if asked := outlook.Approvals(s.machine.Plan()); len(asked) > 0 { // authors see what comes after
			for _, a := range asked {
				s.advance(a.Given("simulate", "simulated"))
			}
			continue
		}
		if s.machine.State().Outcome != "" && len(s.mishaps) == 0 && len(s.flights) == 0 && s.quiet() {
			return nil
		}
		next, ok := w.Next()
		for _, at := range []time.Time{s.wake, s.nextMishap()} {
			if !at.IsZero() && (!ok || at.Before(next)) {
				next, ok = at, true
			}
		}
		if !ok || next.After(end) {
			return fmt.Errorf("it does not come to rest: %s", s.waits())
		}
		w.Until(next)
		for len(s.mishaps) > 0 && !s.mishaps[0].at.After(w.Now()) {
			m := s.mishaps[0]
			s.mishaps = s.mishaps[1:]
			m.do()
		}
		if !s.wake.IsZero() && !s.wake.After(w.Now()) {
			s.advance()
		}
	}
}

// restful is how long nothing may have been written down for a cluster to be at rest, whatever else goes on: of many nodes one is
// always being verified, and nothing is ever quiet.
const restful = 15 * time.Minute

// quiet reports whether the engine has nothing to wait for but renewals, verifies and questions that it repeats.
func (s *Simulation) quiet() bool {
	if s.cfg.World.Now().Sub(s.wrote) > restful {
		return true
	}
	next, ok := s.cfg.World.Next()
	return !ok || next.After(s.cfg.World.Now().Add(2*time.Minute))
}

func (s *Simulation) nextMishap() time.Time {
	if len(s.mishaps) == 0 {
		return time.Time{}
	}
	return s.mishaps[0].at
}

// waits says what is not done, the first few.
func (s *Simulation) waits() string {
	text, n := "", 0
	for _, it := range outlook.Items(s.machine.Plan()) {
		if it.State == "in place" || it.State == "absent" {
			continue
		}
		if n++; n <= 5 {
			text += fmt.Sprintf("%s is %s", it.Target, it.State)
			if it.Wait.Kind != history.Same {
				text += " (" + it.Wait.Because() + ")"
			}
			text += "; "
		}
	}
	return text + fmt.Sprintf("%d instances are not in place", n)
}

func (s *Simulation) hear(n Notice) {
	if n.Event != nil {
		s.advance(n.Event)
		return
	}
	if e, ok := s.machine.Conclude(s.cfg.World.Now(), n.Target, n.Report); ok {
		s.advance(e)
	}
}

func (s *Simulation) advance(events ...history.Event) {
	s.commit(s.machine.Advance(s.cfg.World.Now(), events...))
}

// commit writes events down, and then performs the effects; the engine may be killed in between.
func (s *Simulation) commit(out run.Outcome) {
	for _, e := range out.Events {
		s.write(e, out.Now)
	}
	for _, e := range out.Effects {
		if keep, ok := e.(run.Keep); ok {
			s.blobs[keep.Digest] = keep.Data
		}
	}
	if len(out.Events) > 0 {
		s.writes++
		if s.kills[s.writes] {
			s.restart()
			return
		}
	}
	for _, e := range out.Effects {
		s.cfg.World.Perform(e)
	}
	s.wake = out.Wake
}

// restart kills the engine before it performs what it has written down, and starts it again from the journal.
func (s *Simulation) restart() {
	s.tally.Crashes++
	s.cfg.Machines.Restart()
	state := history.New()
	for _, r := range s.journal {
		if e, err := history.Decode(r); err == nil { // it was just encoded
			state.Fold(r.Seq, r.Time, e)
		}
	}
	s.machine = run.New(state, s)
	s.commit(s.machine.Resume(s.cfg.World.Now()))
}

func (s *Simulation) write(e history.Event, now time.Time) {
	r, err := history.Encode(e, now)
	if err != nil {
		panic("internal error: " + err.Error()) // every event of ours can be encoded
	}
	r.Seq = uint64(len(s.journal) + 1)
	s.wrote = now
	s.journal = append(s.journal, r)
	_, _ = fmt.Fprintf(s.digest, "%s %d ", r.Kind, len(r.Data))
	_, _ = s.digest.Write(binary.BigEndian.AppendUint64(nil, uint64(r.Time.UnixNano())))
	_, _ = s.digest.Write(r.Data) // a hash takes everything
	s.note(r.Seq, now, e)
}

// note keeps count of deeds.
func (s *Simulation) note(seq uint64, now time.Time, e history.Event) {
	switch e := e.(type) {
	case history.Started:
		s.flights[e.Target] = len(s.deeds)
		s.deeds = append(s.deeds, Deed{Target: e.Target, Action: e.Action, Seq: seq, Place: e.Place, Start: now})
	case history.Succeeded:
		if e.Silent != nil {
			s.deeds = append(s.deeds, Deed{Target: e.Target, Action: e.Action, Seq: seq, Start: now, End: now, Pure: true})
			return
		}
		s.ended(now, history.Failed{Target: e.Target})
	case history.Failed:
		if !e.Excused {
			s.tally.Failures++
		}
		if _, flying := s.flights[e.Target]; !flying {
			s.deeds = append(s.deeds, Deed{Target: e.Target, Action: e.Action, Seq: seq, Start: now})
			s.flights[e.Target] = len(s.deeds) - 1
		}
		s.ended(now, e)
	case history.Discharged:
		s.deeds = append(s.deeds, Deed{Target: e.Target, Action: step.Remove, Seq: seq, Start: now, End: now, Discharged: true})
	}
}

// ended notes the end of an attempt; one without an error went well.
func (s *Simulation) ended(now time.Time, e history.Failed) {
	i, ok := s.flights[e.Target]
	if !ok {
		return
	}
	delete(s.flights, e.Target)
	s.tally.Runs++
	d := &s.deeds[i]
	d.End, d.Error, d.Final, d.Excused = now, e.Error, e.Final, e.Excused
}

// Deeds lists every action so far, in the order of their starts.
func (s *Simulation) Deeds() []Deed { return s.deeds }

// Journal gives the records so far.
func (s *Simulation) Journal() []journal.Record { return s.journal }

// Digest identifies the journal so far.
func (s *Simulation) Digest() string { return hex.EncodeToString(s.digest.Sum(nil)) }

// State gives the folded journal. It must not be changed.
func (s *Simulation) State() *history.State { return s.machine.State() }

// Plan gives the decisions as they stand. They must not be changed.
func (s *Simulation) Plan() *plan.Planner { return s.machine.Plan() }

// Machine gives the engine's core as it stands. It must not be changed.
func (s *Simulation) Machine() *run.Machine { return s.machine }

// Tally counts what has happened so far.
func (s *Simulation) Tally() Tally {
	t := s.tally
	t.Events, t.Virtual = uint64(len(s.journal)), s.cfg.World.Now().Sub(s.begun)
	return t
}
