package simulate

import (
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
)

// Link is one action of the critical path.
type Link struct {
	Instance string  `json:"instance"`
	Waited   float64 `json:"waited"` // seconds between the end of the link before and its start
	Took     float64 `json:"took"`   // seconds from its start to its end, over all its attempts
	Attempts int     `json:"attempts"`
	Rollout  string  `json:"rollout,omitempty"` // in whose place it ran
}

// span is everything that an instance did to come to be in place.
type span struct {
	start, end time.Time
	attempts   int
	place      string
	done       bool // the last attempt went well
}

// CriticalPath is the chain of actions that decided when the last one ended: before each stands, of those that it waits for,
// the one that ended last. What lies between two links is a machine that boots, a back-off, or a rollout's place.
func (s *Simulation) CriticalPath() []Link {
	m := s.machine.Plan().Model()
	spans := map[history.Target]*span{}
	var last history.Target
	for _, d := range s.deeds {
		if d.Action != step.Apply || d.End.IsZero() {
			continue
		}
		sp := spans[d.Target]
		if sp == nil || sp.done { // it runs again
			sp = &span{start: d.Start}
			spans[d.Target] = sp
		}
		sp.end, sp.place, sp.done = d.End, d.Place, d.Error == ""
		if !d.Pure {
			sp.attempts++
		}
		if l := spans[last]; l == nil || !d.End.Before(l.end) {
			last = d.Target
		}
	}
	var path []Link
	for t, seen := last, map[history.Target]bool{}; spans[t] != nil && !seen[t]; {
		seen[t] = true
		sp := spans[t]
		path = append(path, Link{Instance: t.String(), Took: seconds(sp.end.Sub(sp.start)), Attempts: sp.attempts, Rollout: sp.place})
		before, ok := latest(m, spans, t, sp.start)
		waited := sp.start.Sub(s.begun)
		if ok {
			waited = sp.start.Sub(spans[before].end)
		}
		path[len(path)-1].Waited = seconds(waited)
		if !ok {
			break
		}
		t = before
	}
	slices.Reverse(path)
	return path
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// latest gives, of what an instance waits for, what ended last before it started.
func latest(m *model.Model, spans map[history.Target]*span, t history.Target, start time.Time) (history.Target, bool) {
	task := m.Task(t.Task)
	if task == nil {
		return history.Target{}, false
	}
	var best history.Target
	found := false
	consider := func(up history.Target) {
		sp := spans[up]
		if sp == nil || sp.end.After(start) {
			return
		}
		if !found || sp.end.After(spans[best].end) || sp.end.Equal(spans[best].end) && up.String() < best.String() {
			best, found = up, true
		}
	}
	for _, e := range task.Edges() {
		up := m.Task(e.Task)
		switch {
		case up == nil:
		case len(up.Each) == 0:
			consider(history.Target{Task: e.Task})
		case !e.All && !e.Host && t.Node != "":
			consider(history.Target{Task: e.Task, Node: t.Node})
		default:
			for other := range spans {
				if other.Task == e.Task {
					consider(other)
				}
			}
		}
	}
	for _, r := range m.Rollouts { // who held the place before
		if !slices.Contains(r.Tasks, t.Task) {
			continue
		}
		for other := range spans {
			if other.Node != t.Node && slices.Contains(r.Tasks, other.Task) {
				consider(other)
			}
		}
	}
	return best, found
}
