package history

import (
	"slices"
	"time"

	"joist/engine/step"
)

// Fold takes the event with the given number and time into the state. Events of one journal are folded in order, each
// once.
func (s *State) Fold(seq uint64, now time.Time, e Event) {
	s.Seq, s.Now = seq, now
	switch e := e.(type) {
	case Goal:
		s.foldGoal(e)
	case NodeSeen:
		s.foldSeen(e)
	case NodeEnded:
		if n := s.Nodes[s.Index(e.Node)]; n.Incarnation == e.Incarnation {
			n.Ended, n.EndedWhy, n.Online = true, e.Why, false
		}
	case NodeReleased:
		n := s.Nodes[s.Index(e.Node)]
		n.Released, n.Online = true, false
		for _, b := range s.Budgets {
			delete(b.Places, e.Node)
		}
	case Started:
		s.foldStarted(e)
	case Succeeded:
		s.foldSucceeded(e)
	case Failed:
		s.foldFailed(e)
	case Discharged:
		r := s.row(e.Target)
		*r = Row{Started: r.Started, Ended: seq}
	case PlaceReturned:
		b := s.budget(e.Rollout)
		delete(b.Places, e.Node)
		b.Proven[e.Node] = true
	case BreakerClosed:
		s.budget(e.Rollout).Failures = 0
	case Forced:
		r := s.row(e.Target)
		r.Forced, r.Failure, s.Outcome = true, nil, ""
	case Drifted:
		s.row(e.Target).Drifted = e.Observed
	case Expired:
		s.row(e.Target).Expired, s.Outcome = true, ""
	case Rested:
		s.Outcome, s.Detail = e.Outcome, e.Detail
	case Cancelled:
		s.Outcome, s.Detail = "cancelled", "by "+e.By
	}
}

func (s *State) foldGoal(e Goal) {
	e.Seq = s.Seq
	s.Goals = append(s.Goals, e)
	s.GoalSeq, s.Outcome, s.Detail = s.Seq, "", ""
	for _, nodes := range e.Roles {
		for _, name := range nodes {
			s.Nodes[s.Index(name)].Released = false
		}
	}
	for _, c := range s.Columns {
		for _, r := range c.Rows {
			if r != nil {
				r.Failure = nil
			}
		}
	}
	if e.Changed {
		for _, b := range s.Budgets {
			b.Failures = 0
			clear(b.Proven)
		}
	}
}

func (s *State) foldSeen(e NodeSeen) {
	n := s.Nodes[s.Index(e.Node)]
	if e.Incarnation != "" && e.Incarnation != n.Incarnation {
		if n.Alive() {
			n.EndedWhy = "replaced by a new incarnation"
		}
		n.Incarnation, n.Ended = e.Incarnation, false
	}
	if e.Boot != "" && e.Boot != n.Boot {
		n.Boot, n.Up = e.Boot, s.Seq
	}
	if e.Address != "" {
		n.Address = e.Address
	}
	if e.Facts != nil {
		n.Facts = e.Facts
	}
	if e.Level != "" {
		n.Level = e.Level
	}
	if online := e.Online && !n.Ended; online != n.Online || n.Since.IsZero() {
		n.Online, n.Since = online, s.Now
	}
}

func (s *State) foldStarted(e Started) {
	r := s.row(e.Target)
	r.Phase, r.Started, r.Begun, r.Cause = Dirty, s.Seq, s.Now, e.Cause
	r.Flight = &Flight{Action: e.Action, Attempt: e.Attempt, Agent: e.Agent, Place: e.Place, Deadline: e.Deadline, Input: e.Input}
	if e.Action == step.Apply {
		r.Goal, r.Boot = len(s.Goals)-1, e.Boot
		r.Life = Rest{Node: e.Node, Incarnation: e.Incarnation}
		r.Step, r.Ref, r.Input, r.Inputs = e.Step, e.Ref, e.Input, e.Inputs
	}
	if e.Place != "" && e.Node != "" {
		s.budget(e.Place).Places[e.Node] = true
	}
}

func (s *State) foldSucceeded(e Succeeded) {
	if e.Silent != nil {
		s.foldStarted(*e.Silent)
	}
	r := s.row(e.Target)
	r.Flight, r.Failure, r.Ended, r.Done = nil, nil, s.Seq, s.Now
	if e.Action == step.Remove {
		*r = Row{Started: r.Started, Ended: s.Seq}
		return
	}
	r.Phase, r.Forced, r.Drifted, r.Expired = InPlace, false, "", false
	r.Outputs, r.Output, r.Rests, r.Due = e.Outputs, e.Output, e.RestsOn, time.Time{}
	if e.ValidUntil != nil {
		r.Due = *e.ValidUntil
	}
	for _, j := range e.Joins {
		if single := s.row(Target{Task: j.Task}); !slices.Contains(single.Rests, j.Rest) {
			single.Rests = append(single.Rests, j.Rest)
		}
	}
}

func (s *State) foldFailed(e Failed) {
	r := s.row(e.Target)
	place := ""
	f := &Failure{Action: e.Action, Attempt: e.Attempt, Error: e.Error, Final: e.Final, Step: r.Step, Input: r.Input, At: s.Now}
	if r.Flight != nil {
		place = r.Flight.Place
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
	if e.Final && place != "" {
		s.budget(place).Failures++
	}
}
