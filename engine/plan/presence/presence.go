// Package presence knows who makes way for whom (`except_during`), and who is in place only while whom runs (`during`), by task.
// Both stand for the same target.
package presence

import (
	"slices"

	"joist/engine/model"
)

// Presence is what the models say of it.
type Presence struct {
	Makes map[string][]string // a task, to those that it makes way for
	Over  map[string][]string // a task, to those that make way for it

	Users  map[string][]string // a task, to those that it is in place for, in any model that matters
	Guards map[string][]string // a task, to those that are in place only while it runs, likewise
}

// Of learns who makes way for whom: as the goal's model says, and for what the goal has no task for any more, as the models say
// that something live was started with. Models may repeat.
func Of(goal *model.Model, models []*model.Model) Presence {
	p := Presence{map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{}}
	for _, m := range models {
		for i := range m.Tasks {
			t := &m.Tasks[i]
			for _, of := range t.During {
				note(p.Users, t.Name, of)
				note(p.Guards, of, t.Name)
			}
			for _, of := range t.Except {
				if m == goal || goal.Task(of) == nil {
					note(p.Makes, t.Name, of)
					note(p.Over, of, t.Name)
				}
			}
		}
	}
	return p
}

func note(lists map[string][]string, task, other string) {
	if !slices.Contains(lists[task], other) {
		lists[task] = append(lists[task], other)
	}
}
