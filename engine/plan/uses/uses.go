// Package uses knows who uses whom, so that what is used goes last: which tasks depend on which in any model that matters, and
// of each dependant how many instances are to go, or have yet to succeed without what they used.
package uses

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// User is a task in a model: what its instances use follows from the model they were started with.
type User struct {
	Model value.Digest
	Task  string
}

// Use is an edge, seen from the task that is used.
type Use struct {
	By   User
	Edge model.Edge
	Once bool // the user's first success holds
}

// Tally counts the instances of a user that are to go, those of them that wait for nothing but readers, and those that
// stay and have not succeeded for this goal.
type Tally struct{ Leaving, Held, Unsettled int }

// Less takes what one instance counts out of a tally.
func (n Tally) Less(one Tally) Tally {
	return Tally{n.Leaving - one.Leaving, n.Held - one.Held, n.Unsettled - one.Unsettled}
}

func (n Tally) zeros() [3]bool {
	return [3]bool{n.Leaving == 0, n.Leaving == n.Held, n.Unsettled == 0}
}

// Mark is how an instance is counted.
type Mark struct {
	Leaving, Held, Unsettled bool
	Started, Stood           value.Digest // models of the last start, and of the success before it
}

// As gives how one instance counts as a user with a model.
func (m Mark) As(digest value.Digest) Tally {
	var n Tally
	if m.Started == digest || m.Stood == digest {
		if m.Leaving {
			n.Leaving = 1
		}
		if m.Held {
			n.Held = 1
		}
		if m.Unsettled {
			n.Unsettled = 1
		}
	}
	return n
}

// Book is who uses whom.
type Book struct {
	of    map[string][]Use    // by task: what may use it, in the model of any goal that matters
	used  map[string][]string // by task: what it may use
	tally map[User]*Tally
	marks map[history.Target]Mark
}

// New is a book with nothing in it.
func New() Book {
	return Book{of: map[string][]Use{}, used: map[string][]string{}, tally: map[User]*Tally{}, marks: map[history.Target]Mark{}}
}

// Learn takes in the edges of a model.
func (b *Book) Learn(digest value.Digest, m *model.Model) {
	for i := range m.Tasks {
		t := &m.Tasks[i]
		for _, e := range t.Edges() {
			b.of[e.Task] = append(b.of[e.Task], Use{By: User{digest, t.Name}, Edge: e, Once: t.Step.Once})
			if !slices.Contains(b.used[t.Name], e.Task) {
				b.used[t.Name] = append(b.used[t.Name], e.Task)
			}
		}
	}
}

// Of lists what may use a task.
func (b *Book) Of(task string) []Use { return b.of[task] }

// Used lists the tasks that a task may use.
func (b *Book) Used(task string) []string { return b.used[task] }

// Tally counts the instances of a user.
func (b *Book) Tally(u User) Tally {
	if n := b.tally[u]; n != nil {
		return *n
	}
	return Tally{}
}

// Empty reports whether no instance is counted.
func (b *Book) Empty() bool { return len(b.marks) == 0 }

// Mark gives how an instance is counted.
func (b *Book) Mark(t history.Target) Mark { return b.marks[t] }

// Remark counts an instance differently. It reports whether that is another way than before, and whether a tally began or
// ceased to be zero.
func (b *Book) Remark(t history.Target, m Mark) (changed, crossed bool) {
	old := b.marks[t]
	if old == m {
		return false, false
	}
	crossed = b.count(t.Task, old, -1)
	crossed = b.count(t.Task, m, +1) || crossed
	if m == (Mark{}) {
		delete(b.marks, t)
	} else {
		b.marks[t] = m
	}
	return true, crossed
}

// count changes the tallies of an instance. It reports whether one of them began or ceased to be zero.
func (b *Book) count(task string, m Mark, by int) bool {
	crossed := false
	one := func(digest value.Digest) {
		u := User{digest, task}
		n := b.tally[u]
		if n == nil {
			n = &Tally{}
			b.tally[u] = n
		}
		before := *n
		if m.Leaving {
			n.Leaving += by
		}
		if m.Held {
			n.Held += by
		}
		if m.Unsettled {
			n.Unsettled += by
		}
		crossed = crossed || before.zeros() != n.zeros()
	}
	if m.Leaving || m.Unsettled {
		one(m.Started)
		if m.Stood != m.Started && m.Stood != (value.Digest{}) {
			one(m.Stood)
		}
	}
	return crossed
}
