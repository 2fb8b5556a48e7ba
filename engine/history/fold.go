package history

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"joist/engine/step"
)

// Fold takes the event with the given number and time into the state. Events of one journal are folded in order, each
// once.
func (s *State) Fold(seq uint64, now time.Time, e Event) {
	s.Seq, s.Now = seq, now
	if _, aimed := TargetOf(e); aimed && len(s.Goals) == 0 {
		return // of no goal: no engine writes that, but a journal may be anybody's
	}
	switch e := e.(type) {
	case Goal:
		s.foldGoal(e)
	case NodeSeen:
		s.foldSeen(e)
	case NodeEnded:
		if n := s.Nodes[s.Index(e.Node)]; n.Incarnation == e.Incarnation && e.Incarnation != "" && !n.Ended {
			n.Ended, n.Online, n.Scout, n.Wiped = true, false, "", e.Wiped
			n.end(seq, e.Why)
		}
		if was, ok := s.Wiping[e.Node]; ok && was == e.Incarnation {
			s.wiped(e.Node)
		}
	case WipeOrdered:
		if s.Waived = e.Overrides; s.Outcome == OutcomeConverged {
			s.Begun = nil
		}
		s.foldWipe()
	case WipeBegun:
		s.count(e.Node, e.Policies)
	case NodeReleased:
		s.foldReleased(e)
	case NodeAside:
		s.foldAside(e)
	case NodeReturned:
		s.foldReturned(e)
	case Started:
		s.foldStarted(e)
	case Succeeded:
		s.foldSucceeded(e)
	case Rebooting:
		if f := s.row(e.Target).Flight; f != nil {
			f.Deadline, f.Reboot = e.Deadline, &Reboot{Boot: e.Boot, Seq: seq, Outputs: e.Outputs, ValidUntil: e.ValidUntil}
		}
	case Failed:
		s.foldFailed(e)
	case Discharged:
		r := s.row(e.Target)
		reborn := r.Failure
		if reborn != nil && reborn.Error != Reborn {
			reborn = nil
		}
		*r = Row{Started: r.Started, Ended: seq, Failure: reborn}
	case PlaceReturned:
		b := s.budget(e.Rollout)
		delete(b.Places, e.Node)
		delete(b.Settling, e.Node)
		if e.Proven {
			b.Proven[e.Node] = true
		}
	case Settling:
		s.budget(e.Rollout).Settling[e.Node] = Watch{Until: e.Until, Seq: seq, Seen: map[string]bool{}}
	case Asked:
		if w, watching := s.budget(e.Rollout).Settling[e.Node]; watching {
			w.Asked, w.AskedAt, w.By = seq, now, e.Until
			s.budget(e.Rollout).Settling[e.Node] = w
		}
	case Watched:
		s.foldWatched(e)
	case BreakerClosed:
		s.closeBreaker(e.Rollout)
	case Forced:
		r := s.row(e.Target)
		r.Forced, r.Failure, r.Skipped, r.Approval = true, nil, nil, nil
		if r.Flight != nil { // what is in flight began before
			r.Flight.Again = true
		}
	case Skipped:
		r := s.row(e.Target)
		r.Skipped = &Skip{By: e.By, Reason: e.Reason, Removal: r.Failure != nil && r.Failure.Action == step.Remove}
		r.Forced = false
	case Approved:
		s.row(e.Target).Approval = &Approval{Step: e.Step, Input: e.Input, By: e.By, Reason: e.Reason, At: s.Now}
	case Drifted:
		s.foldDrifted(e.Target, e.Observed)
	case Mended:
		s.foldDrifted(e.Target, "")
	case Expired:
		r := s.row(e.Target)
		r.Expired, r.Approval = true, nil
	case Rested:
		if s.Outcome, s.Detail = e.Outcome, e.Detail; e.Outcome == OutcomeConverged {
			s.Waived = nil
		}
	case Stirred:
		s.Outcome, s.Detail = "", ""
	case Resumed:
		s.Resumed = now
	case Cancelled:
		s.foldCancelled(e)
	}
}

// foldWipe marks every node that the goal has.
func (s *State) foldWipe() {
	s.Wiping = map[string]string{}
	for _, n := range s.Nodes {
		if s.wants(n.Name) {
			s.Wiping[n.Name] = n.Incarnation
		}
	}
	if len(s.Wiping) == 0 {
		s.Wiping = nil
	}
}

func (s *State) wiped(node string) {
	if delete(s.Wiping, node); len(s.Wiping) == 0 {
		s.Wiping = nil
	}
}

// foldAside sets a node aside. What failed there has not failed the rollouts that it failed in.
func (s *State) foldAside(e NodeAside) {
	i := s.Index(e.Node)
	s.Nodes[i].Aside = &Aside{By: e.By, Reason: e.Reason, Of: e.Of, Seq: s.Seq}
	for _, c := range s.Columns {
		r := c.Row(i)
		if r == nil || r.Failure == nil || r.Failure.Place == "" {
			continue
		}
		b := s.budget(r.Failure.Place)
		b.Failures = max(b.Failures-1, 0)
		forgiven := *r.Failure
		forgiven.Place, r.Failure = "", &forgiven
	}
}

// foldReturned makes a node an ordinary one again, and forgets its failures.
func (s *State) foldReturned(e NodeReturned) {
	i := s.Index(e.Node)
	if s.Nodes[i].Aside == nil {
		return
	}
	s.Nodes[i].Aside = nil
	for _, c := range s.Columns {
		if r := c.Row(i); r != nil && r.Flight == nil {
			r.Failure = nil
		}
	}
}

// closeBreaker forgets the failures of a rollout: none of them can be forgiven after that.
func (s *State) closeBreaker(rollout string) {
	s.budget(rollout).Failures = 0
	for _, c := range s.Columns {
		for _, r := range c.Rows {
			if r != nil && r.Failure != nil && r.Failure.Place == rollout {
				closed := *r.Failure
				closed.Place, r.Failure = "", &closed
			}
		}
	}
}

// foldWatched takes in what the verify at the end of a watch found: something that is not in place any more has failed.
func (s *State) foldWatched(e Watched) {
	b := s.budget(e.Rollout)
	w, watching := b.Settling[e.Node]
	switch {
	case !watching:
	case e.OK:
		if w.Seen == nil {
			w.Seen = map[string]bool{}
		}
		w.Seen[e.Task] = true
		b.Settling[e.Node] = w
	case !e.OK:
		delete(b.Settling, e.Node)
		b.Failures++
		s.foldDrifted(e.Target, e.Observed)
	}
}

// foldDrifted takes in what a verify found of an instance that stands; nothing if it is as it should be.
func (s *State) foldDrifted(t Target, observed string) {
	r := s.Row(t)
	if r == nil || r.Phase == Absent {
		return
	}
	if r.Drifted, r.DriftedAt = observed, s.Seq; observed == "" {
		r.DriftedAt = 0
	}
}

func (s *State) foldCancelled(e Cancelled) {
	s.Outcome, s.Detail = OutcomeCancelled, e.Says()
	for _, c := range s.Columns {
		for _, r := range c.Rows {
			if r != nil && r.Flight != nil {
				r.Flight.Aborted = true
			}
		}
	}
}

// foldReleased lets go of a node: nothing of the cluster lives by it any more, also if it is claimed again later.
// A goal that wants it again meanwhile has the last word.
func (s *State) foldReleased(e NodeReleased) {
	if s.wants(e.Node) {
		return
	}
	index := s.Index(e.Node)
	n := s.Nodes[index]
	if n.Alive() {
		n.end(s.Seq, "the node was given back")
	}
	s.wiped(e.Node)
	n.Incarnation, n.Boot, n.Scout, n.Ended, n.Wiped = "", "", "", false, false
	n.Released, n.Online, n.Played, n.Aside = true, false, nil, nil
	for _, b := range s.Budgets {
		delete(b.Places, e.Node)
		delete(b.Settling, e.Node)
	}
	for _, c := range s.Columns {
		if r := c.Row(-1); r != nil && r.Rests != nil {
			delete(r.Rests, e.Node)
		}
		if r := c.Row(index); r != nil { // who comes back is asked again
			r.Forced = false
		}
	}
}

// wants reports whether the newest goal has a node.
func (s *State) wants(node string) bool {
	if g := s.Goal(); g != nil {
		for _, names := range g.Roles {
			if _, found := slices.BinarySearch(names, node); found {
				return true
			}
		}
	}
	return false
}

func (s *State) foldGoal(e Goal) {
	e.Seq = s.Seq
	if s.anew(e) {
		s.renew()
		s.Waived = nil
	}
	if last := s.Goal(); last != nil {
		s.Before, last.Roles = last.Roles, nil
	}
	s.keepGoals()
	s.Goals = append(s.Goals, e)
	s.GoalSeq, s.Outcome, s.Detail = s.Seq, "", ""
	for _, n := range s.Nodes { // what a person set aside stays so; failures are forgotten
		if n.Aside != nil && (n.Aside.By == "" || e.Destroy) {
			n.Aside = nil
		}
	}
	for _, b := range s.Budgets { // whoever was asked meanwhile may have been told to stop: asked anew
		for node, w := range b.Settling {
			w.Asked = 0
			b.Settling[node] = w
		}
	}
	if e.Destroy { // which wipes them as well, each for itself; and nothing is asked of what comes after
		s.Wiping = nil
		s.unask()
	}
	for _, role := range slices.Sorted(maps.Keys(e.Roles)) { // nodes have their indexes in a fixed order
		for _, name := range e.Roles[role] {
			n := s.Nodes[s.Index(name)]
			n.Released = false
			if at, found := slices.BinarySearch(n.Played, role); !found {
				n.Played = slices.Insert(n.Played, at, role)
			}
		}
	}
	if e.Changed {
		s.unskip()
		for _, b := range s.Budgets {
			b.Failures = 0
			clear(b.Proven)
			clear(b.Settling) // the group may be another one: watched anew
		}
	}
}

// unask forgets what people asked for.
func (s *State) unask() {
	for _, c := range s.Columns {
		for _, r := range c.Rows {
			if r != nil {
				r.Forced = false
			}
		}
	}
}

// unskip forgets what people wanted the goal before to be pursued without.
func (s *State) unskip() {
	for _, c := range s.Columns {
		for _, r := range c.Rows {
			if r != nil {
				r.Skipped = nil
			}
		}
	}
}

// keepGoals forgets the goals that no live row names, and every failure: those were the old goal's.
func (s *State) keepGoals() {
	used := make([]bool, len(s.Goals))
	for _, c := range s.Columns {
		for _, r := range c.Rows {
			if r == nil {
				continue
			}
			r.Failure = nil
			if r.Phase != Absent {
				used[r.Goal], used[r.Stood] = true, true
			}
		}
	}
	if !slices.Contains(used, false) {
		return
	}
	renamed, kept := make([]int, len(s.Goals)), s.Goals[:0:0]
	for i := range s.Goals {
		renamed[i] = len(kept)
		if used[i] {
			kept = append(kept, s.Goals[i])
		}
	}
	s.Goals = kept
	for _, c := range s.Columns {
		for _, r := range c.Rows {
			if r != nil && r.Phase != Absent {
				r.Goal, r.Stood = renamed[r.Goal], renamed[r.Stood]
			}
		}
	}
}

func (s *State) foldSeen(e NodeSeen) {
	n := s.Nodes[s.Index(e.Node)]
	if e.Incarnation != "" && e.Incarnation != n.Incarnation {
		if n.Incarnation != "" && !n.Ended {
			n.end(s.Seq, "replaced by a new incarnation")
		}
		if was, ok := s.Wiping[e.Node]; ok && was == "" { // its wipe was ordered before it was first seen: this is what is to end
			s.Wiping[e.Node] = e.Incarnation
		}
		n.Incarnation, n.Ended, n.Born, n.Wiped = e.Incarnation, false, s.Seq, false
	}
	if n.Ended && e.Incarnation != "" && e.Boot != "" && e.Boot != n.Boot { // held for dead, and its disk came back
		n.Ended, n.Born, n.Wiped = false, s.Seq, false
	}
	if e.Boot != "" && e.Boot != n.Boot {
		n.Boot, n.Up = e.Boot, s.Seq
	}
	if e.Address != "" && e.Address != n.Address {
		n.Address, n.Told = e.Address, s.Seq
	}
	if e.Facts != nil && !bytes.Equal(e.Facts, n.Facts) {
		n.Facts, n.Told = e.Facts, s.Seq
	}
	if e.Level != "" {
		n.Level = e.Level
	}
	n.Scout = e.Scout
	if e.Machine != "" {
		n.Machine = e.Machine
	}
	if online := e.Online && !n.Ended; online != n.Online || n.Since.IsZero() {
		n.Online, n.Since = online, s.Now
	}
}

func (s *State) foldStarted(e Started) {
	r := s.row(e.Target)
	e.Cause = e.Cause.Since(r)
	if e.Action == step.Apply {
		switch r.Phase {
		case InPlace:
			r.Stood = r.Goal
		case Absent:
			r.Stood = len(s.Goals) - 1
		}
		r.Goal, r.Boot = len(s.Goals)-1, e.Boot
		r.Life = Rest{Node: e.Node, Incarnation: e.Incarnation}
		r.Scout, r.Machine = e.Scout, e.Machine
		r.Step, r.Ref, r.Input, r.Inputs = e.Step, e.Ref, e.Input, e.Inputs
	}
	r.Phase, r.Started, r.Begun, r.Cause, r.Removes = Dirty, s.Seq, s.Now, e.Cause, e.Danger
	r.Flight = &Flight{Action: e.Action, Attempt: e.Attempt, Waits: r.Failure.waitsOf(e.Action, e.Attempt), Agent: e.Agent, Place: e.Place, Deadline: e.Deadline, Input: e.Input}
	s.count(e.Counted(), e.Policies)
	if e.Place != "" && e.Node != "" {
		s.budget(e.Place).Places[e.Node] = true
		delete(s.budget(e.Place).Settling, e.Node) // something is done again: what was watched is another thing
	}
}

func (s *State) foldSucceeded(e Succeeded) {
	if e.Silent != nil {
		s.foldStarted(*e.Silent)
	}
	r := s.row(e.Target)
	again := r.Flight != nil && r.Flight.Again
	r.Flight, r.Failure, r.Ended, r.Done = nil, nil, s.Seq, s.Now
	if e.Action == step.Remove {
		*r = Row{Started: r.Started, Ended: s.Seq, Cause: r.Cause, Forced: r.Forced && r.Cause.Kind != Unwanted}
		return
	}
	r.Phase, r.Forced, r.Drifted, r.DriftedAt, r.Expired, r.Stood = InPlace, again, "", 0, false, r.Goal
	r.Outputs, r.Output, r.Due = e.Outputs, e.Output, time.Time{}
	if e.ValidUntil != nil {
		r.Due = *e.ValidUntil
	}
	r.Rests = nil
	for _, rest := range e.RestsOn {
		r.rest(rest)
	}
	for _, j := range e.Joins {
		if single := s.Row(Target{Task: j.Task}); single != nil && single.Phase != Absent {
			single.rest(j.Rest)
		}
	}
}

// rest makes a single instance live by an incarnation. A node has one at a time, so that a newer one stands for the
// older.
func (r *Row) rest(by Rest) {
	if r.Rests == nil {
		r.Rests = map[string]string{}
	}
	r.Rests[by.Node] = by.Incarnation
}

func (s *State) foldFailed(e Failed) {
	r := s.row(e.Target)
	place := ""
	f := &Failure{Action: e.Action, Attempt: e.Attempt, Error: e.Error, Final: e.Final, Step: r.Step, Input: r.Input, At: s.Now}
	if r.Flight != nil {
		place, f.Waits = r.Flight.Place, r.Flight.Waits
	}
	f.Later = e.Later
	if e.Later != "" {
		f.Waits++
	}
	if e.Input != nil {
		f.Step, f.Input = e.Step, *e.Input
	}
	if e.Retry != nil {
		f.Retry = *e.Retry
	}
	r.Flight, r.Ended = nil, s.Seq
	if e.Excused {
		r.Failure = nil
		return
	}
	r.Failure = f
	if n := s.Node(e.Node); e.Final && place != "" && (n == nil || n.Aside == nil) {
		s.budget(place).Failures++
		f.Place = place
	}
}
