package model

import (
	"slices"
	"strings"
)

// Circle is a task that could never come out of another one's way: whoever executes its remove needs something there that, once
// it is lost (every executing node was rebooted, say), waits for that other one, which waits until the first has come out.
type Circle struct {
	Task string   // in place except while Of runs
	Of   string   // what it makes way for, perhaps by way of others that make way for it
	Via  []string // from what the executing node needs to Of, each after the next
	Sure bool     // whatever nodes play which roles; otherwise if all that execute it are among its own
}

// Circles finds the tasks that could never come out, one circle for each, a sure one if there is one.
func Circles(tasks []Task) []Circle {
	g := circles{by: map[string]*Task{}, over: map[string][]*Task{}}
	for i := range tasks {
		t := &tasks[i]
		g.by[t.Name] = t
		for _, of := range t.Except {
			g.over[of] = append(g.over[of], t)
		}
	}
	var found []Circle
	for i := range tasks {
		c, ok := g.from(&tasks[i], true)
		if !ok {
			c, ok = g.from(&tasks[i], false)
		}
		if ok {
			found = append(found, c)
		}
	}
	return found
}

type circles struct {
	by   map[string]*Task
	over map[string][]*Task // who makes way for a task
}

// place is a task with the roles whose nodes it is waited for on; none stands for everywhere.
type place struct{ task, roles string }

// from looks for a circle from what the remove of a task needs where it executes to what the task makes way for: one that is sure,
// or one that depends on which nodes play which roles.
func (g *circles) from(x *Task, sure bool) (Circle, bool) {
	of := map[string]bool{}
	g.madeWay(x, of)
	if len(of) == 0 {
		return Circle{}, false
	}
	before := map[place]place{}
	queue := g.needs(x)
	for _, at := range queue {
		before[at] = place{}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if of[at.task] && (!sure || everywhere(x, at)) {
			return circle(x, at, before, sure), true
		}
		for _, next := range g.next(at, sure) {
			if _, seen := before[next]; !seen {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return Circle{}, false
}

func circle(x *Task, at place, before map[place]place, sure bool) Circle {
	c := Circle{Task: x.Name, Of: at.task, Sure: sure}
	for ; at != (place{}); at = before[at] {
		c.Via = append(c.Via, at.task)
	}
	slices.Reverse(c.Via)
	return c
}

// madeWay collects what a task makes way for, and what that makes way for in turn.
func (g *circles) madeWay(x *Task, of map[string]bool) {
	for _, name := range x.Except {
		if up := g.by[name]; up != nil && !of[name] {
			of[name] = true
			g.madeWay(up, of)
		}
	}
}

// everywhere reports whether a task stands in the way on all nodes of a place.
func everywhere(x *Task, at place) bool {
	if at.roles == "" || len(x.Each) == 0 {
		return true
	}
	return !slices.ContainsFunc(strings.Fields(at.roles), func(role string) bool { return !slices.Contains(x.Each, role) })
}

// needs lists what has to be in place where a script executes, to apply it or to remove it.
func (g *circles) needs(x *Task) []place {
	var list []place
	for _, e := range x.Edges() {
		if e.Host && g.by[e.Task] != nil {
			list = append(list, place{e.Task, x.On})
		}
	}
	return list
}

// next lists what a task waits for before it runs: what it reads or comes after, and what the removes of those need that make
// way for it.
func (g *circles) next(at place, sure bool) []place {
	t := g.by[at.task]
	list := g.needs(t)
	for _, e := range t.Edges() {
		up := g.by[e.Task]
		if up == nil || e.Host {
			continue
		}
		roles := at.roles
		switch {
		case len(up.Each) == 0 || e.All && e.Share == Every:
			roles = ""
		case e.All:
			roles = strings.Join(up.Each, " ")
		}
		list = append(list, place{e.Task, roles})
	}
	for _, name := range t.Guards {
		list = append(list, place{name, at.roles})
	}
	seen := map[*Task]bool{}
	var clear func(name string)
	clear = func(name string) {
		for _, y := range g.over[name] {
			if !seen[y] && (!sure || everywhere(y, at)) {
				seen[y] = true
				list = append(list, g.needs(y)...)
				clear(y.Name)
			}
		}
	}
	clear(t.Name)
	return list
}
