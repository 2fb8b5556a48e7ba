package outlook

import (
	"slices"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
)

// Pending is an input of an instance that is not known yet, and what it will be known after.
type Pending struct {
	Input string         `json:"input"` // "when" for the condition that decides whether the instance exists
	After history.Target `json:"after"` // an instance; a task alone for all its instances; a node alone for its coming up
	Count int            `json:"count"` // instances, or nodes, that have to be done before
}

// Bounds says between how many and how many.
type Bounds struct {
	Least int `json:"least"`
	Most  int `json:"most"`
}

// Forecast is what a plan says about a task, or about the whole.
type Forecast struct {
	Task    string         // empty for the whole
	Step    string         // of the task
	Counts  map[string]int // instances by verdict
	Runs    Bounds         // instances that will run: Least for certain, Most if everything conditional does
	Seconds float64        // how long that takes at least, by what it took before; 0 if nothing is known
}

// pendingInputs lists the inputs of an instance that are not known yet. It costs the task's references, however many
// instances those stand for.
func pendingInputs(p *plan.Planner, t history.Target, task *model.Task) []Pending {
	var list []Pending
	for i := range task.With {
		list = pendingArgument(p, list, &task.With[i], t.Node)
	}
	if task.When != nil {
		when := *task.When
		when.Name = "when"
		list = pendingArgument(p, list, &when, t.Node)
	}
	return list
}

func pendingArgument(p *plan.Planner, list []Pending, a *model.Argument, node string) []Pending {
	add := func(after history.Target, count int) {
		one := Pending{Input: a.Name, After: after, Count: count}
		if count > 0 && !slices.Contains(list, one) {
			list = append(list, one)
		}
	}
	for _, r := range a.Refs {
		switch r.Kind {
		case model.RefTask:
			up := history.Target{Task: r.Name, Node: node}
			if task := p.Task(r.Name); task != nil && len(task.Each) == 0 {
				up.Node = ""
			}
			if cell := p.Cell(up); cell != nil && cell.Open() {
				add(up, 1)
			}
		case model.RefAll:
			add(history.Target{Task: r.Name}, p.Unsettled(r.Name))
		case model.RefNode:
			if n := p.State().Node(node); n != nil && r.Attr != model.NodeName && !n.Alive() {
				add(history.Target{Node: node}, 1)
			}
		case model.RefRole:
			if first, count := p.Absentees(r.Name); count > 0 {
				add(history.Target{Node: first}, count)
			}
		}
	}
	return list
}

// median is how long a task's step takes by what it took before: of its instances in place, in seconds; 0 if none is.
func median(c *history.Column) float64 {
	if c == nil {
		return 0
	}
	var took []float64
	for _, row := range c.Rows {
		if row != nil && row.Phase == history.InPlace && row.Done.After(row.Begun) {
			took = append(took, row.Done.Sub(row.Begun).Seconds())
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// Forecasts says, for each task with instances and for the whole, how many instances will run and how long that takes at
// least: the longest chain of what depends on each other, each as long as it took before. Budgets make it longer.
func Forecasts(p *plan.Planner, items []Item) (whole Forecast, tasks []Forecast) {
	whole.Counts = map[string]int{}
	byTask := map[string]*Forecast{}
	var order []string
	for i := range items {
		it := &items[i]
		f := byTask[it.Task]
		if f == nil {
			f = &Forecast{Task: it.Task, Step: it.Step, Counts: map[string]int{}}
			byTask[it.Task] = f
			order = append(order, it.Task)
		}
		for _, f := range []*Forecast{f, &whole} {
			f.Counts[it.Verdict.String()]++
			switch it.Verdict {
			case plan.Run, plan.Replace:
				f.Runs.Least++
				f.Runs.Most++
			case plan.RunIf:
				f.Runs.Most++
			}
		}
		if it.Verdict == plan.Run || it.Verdict == plan.Replace {
			f.Seconds = max(f.Seconds, it.Expected)
		}
	}
	ends := map[string]float64{}
	tasksOf := p.Model().Tasks
	for i := range tasksOf { // each after everything that it waits for
		name := tasksOf[i].Name
		for _, e := range tasksOf[i].Edges() {
			ends[name] = max(ends[name], ends[e.Task])
		}
		if f := byTask[name]; f != nil {
			ends[name] += f.Seconds
		}
		whole.Seconds = max(whole.Seconds, ends[name])
	}
	for _, name := range order {
		tasks = append(tasks, *byTask[name])
	}
	return whole, tasks
}
