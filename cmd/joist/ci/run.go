package ci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"joist/cmd/joist/again"
	"joist/cmd/joist/redeploy"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// Report is what joist ci run yields.
type Report struct {
	Cluster  string    `json:"cluster"`
	Outcome  string    `json:"outcome"` // converged, stopped, expired, interrupted, refused, or another one of the cluster
	Detail   string    `json:"detail,omitempty"`
	Begun    time.Time `json:"begun"`
	Seconds  float64   `json:"seconds"`  // in all
	Teardown string    `json:"teardown"` // destroyed, or what kept it from that; empty if there was nothing
	Left     []string  `json:"left"`     // what is left of the cluster; it should be empty
	Cases    []Case    `json:"cases"`
}

// Failures counts the cases that failed.
func (r *Report) Failures() int {
	n := 0
	for _, c := range r.Cases {
		if c.Result == Failed {
			n++
		}
	}
	return n
}

// The outcomes that are not the cluster's.
const (
	refused     = "refused"
	expired     = "expired"
	interrupted = "interrupted"
	converged   = "converged"
	destroyed   = "destroyed"
)

// askTime bounds questions to the engine that decorate the report.
const askTime = time.Minute

// run makes the cluster, tries it, and takes it away. What the engine refuses is given back; all else is in the report.
func (p Program) run(ctx context.Context, s v1.Source, name string, o options) error {
	r := &Report{Cluster: name, Begun: p.Now(), Left: []string{}, Cases: []Case{}}
	o.run = rand.Text()
	beginErr := p.begin(ctx, s, o, r)
	calm := context.WithoutCancel(ctx) // what follows is done whatever happened
	if r.Outcome != refused {
		p.collect(calm, r)
		p.teardown(calm, o, r)
	}
	r.Seconds = p.Now().Sub(r.Begun).Seconds()
	return p.conclude(r, o, beginErr)
}

// begin applies the cluster file, waits for what comes of it, and does the checks. The error is the engine's refusal, or what
// kept the run from following.
func (p Program) begin(ctx context.Context, s v1.Source, o options, r *Report) error {
	api, begun := p.API(), p.Now()
	r.Outcome = refused
	switch d, err := api.Cluster(ctx, r.Cluster); {
	case err == nil && d.Outcome != destroyed:
		return fmt.Errorf("there is a cluster %s already, and it is %s: choose another name with --name", r.Cluster, d.Outcome)
	case err != nil && !notFound(err):
		return err
	}
	site, err := api.Page(ctx, client.Filter{Journals: []string{"site"}, After: "now", Limit: 1})
	if err != nil {
		return err
	}
	done, err := api.Apply(ctx, v1.Apply{Source: s, TTL: (o.ttl + reportTime).Seconds(), Run: o.run})
	if err != nil {
		if !p.accepted(ctx, r.Cluster, o.run, err) {
			return err
		}
		r.Outcome, r.Detail = "lost", err.Error()
		return err // it was, or may have been, and the answer got lost
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.ttl, errExpired)
	defer cancel()
	after := redeploy.Following{Cluster: r.Cluster, Goal: v1.Goal{Seq: done.Seq, Roles: done.Roles}, After: done.Seq - 1, Site: site.Next, Plain: o.plain}
	if err = p.follow(ctx, after, r); err == nil {
		p.checks(ctx, o.checks, r)
	}
	converge := Case{Class: "run", Name: "converge", Seconds: p.Now().Sub(begun).Seconds(), Result: Passed}
	if r.Outcome != converged {
		converge.Result, converge.Message = Failed, strings.TrimSpace(r.Outcome+" "+r.Detail)
	}
	r.Cases = append(r.Cases, converge)
	return err
}

var errExpired = errors.New("its time was over")

// reportTime is how much longer than the run the engine lets the cluster live: the report says of each instance how far it came,
// which nobody knows any more once the engine has taken it away.
const reportTime = 5 * time.Second

// notFound reports whether the engine does not know what it was asked for.
func notFound(err error) bool {
	var problem *v1.Problem
	return errors.As(err, &problem) && problem.Status == http.StatusNotFound
}

// accepted reports whether the cluster has its goal from this run, although its Apply ended with an error; also if the engine
// does not say. What the engine refused was not accepted.
func (p Program) accepted(ctx context.Context, cluster, run string, applyErr error) bool {
	var problem *v1.Problem
	if errors.As(applyErr, &problem) && problem.Status < http.StatusInternalServerError {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	d, err := p.API().Cluster(ctx, cluster)
	return err == nil && d.Goal.Run == run && d.Outcome != destroyed || err != nil && !notFound(err)
}

// expireSlack is how much earlier than here the time may be over for the engine.
const expireSlack = 10 * time.Second

// follow waits until the cluster comes to rest, and notes how.
func (p Program) follow(ctx context.Context, what redeploy.Following, r *Report) error {
	t, err := p.Follow(ctx, what)
	switch {
	case errors.Is(context.Cause(ctx), errExpired):
		r.Outcome, r.Detail = expired, "it was not done when its time was over"
		return nil
	case ctx.Err() != nil:
		r.Outcome, r.Detail = interrupted, ""
		return nil
	case err != nil:
		r.Outcome, r.Detail = "lost", err.Error()
		return err
	}
	r.Outcome, r.Detail = t.Outcome, clean(t.Detail)
	// The engine counts from when it heard of the cluster, which is a moment earlier.
	if end, ok := ctx.Deadline(); ok && t.Outcome == "superseded" && p.Now().Add(expireSlack).After(end) {
		r.Outcome, r.Detail = expired, "the engine has begun to destroy it"
	}
	return nil
}

// checks does the checks of a cluster that has converged, until one fails: those that are named, or else all that its workflow has on
// demand. The rest is in the report as not done.
func (p Program) checks(ctx context.Context, names []string, r *Report) {
	if len(names) == 0 && r.Outcome == converged {
		begun := p.Now()
		plan, err := p.API().Plan(ctx, r.Cluster)
		if err != nil {
			p.checked(ctx, "what runs on demand", begun, err, r)
			return
		}
		names = demands(plan)
	}
	for _, name := range names {
		if r.Outcome != converged {
			r.Cases = append(r.Cases, Case{Class: "check", Name: name, Result: Skipped, Message: r.Outcome})
			continue
		}
		begun := p.Now()
		err := again.Run(ctx, p.API(), r.Cluster, v1.Action{Action: v1.Force, Instance: name, Reason: "joist ci run"}, func(*v1.Instance) {})
		p.checked(ctx, name, begun, err, r)
	}
}

// demands lists by what names the goal's instances on demand are asked for, in the order of their tasks: the plan keeps it among
// those that nobody has asked for yet.
func demands(plan *v1.Plan) (names []string) {
	for i := range plan.Items {
		if name := plan.Items[i].Asked; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// checked notes what came of a check.
func (p Program) checked(ctx context.Context, name string, begun time.Time, err error, r *Report) {
	c := Case{Class: "check", Name: name, Result: Passed}
	switch c.Seconds = p.Now().Sub(begun).Seconds(); {
	case err == nil:
	case errors.Is(context.Cause(ctx), errExpired):
		r.Outcome, r.Detail = expired, "check "+name+" was not done when its time was over"
	case ctx.Err() != nil:
		r.Outcome = interrupted
	default:
		r.Outcome, r.Detail = "failed", "check "+name
	}
	if err != nil {
		c.Result, c.Message, c.Text = Failed, first(clean(err.Error())), clean(err.Error())
	}
	r.Cases = append(r.Cases, c)
}

// logLines is how much of a failed instance's log the report has.
const logLines = 30

// collect makes a case of every instance.
func (p Program) collect(ctx context.Context, r *Report) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	plan, err := p.API().Plan(ctx, r.Cluster)
	if err != nil {
		r.Cases = append(r.Cases, Case{Class: "run", Name: "instances", Result: Failed, Message: first(clean(err.Error()))})
		return
	}
	var cases []Case
	for i := range plan.Items {
		it := &plan.Items[i]
		c := Case{Class: it.Task, Name: it.Instance, Seconds: it.Seconds, Result: Passed}
		switch it.State {
		case "absent":
			continue
		case "in place":
		case "failed":
			c.Result, c.Message, c.Text = Failed, first(clean(it.Error)), clean(it.Error)
			if c.Message == "" {
				c.Message = first(clean(it.Because))
			}
			if one, err := p.API().Instance(ctx, r.Cluster, it.Instance); err == nil && len(one.Log) > 0 {
				c.Text += "\n" + clean(strings.Join(one.Log[max(0, len(one.Log)-logLines):], "\n"))
			}
		default:
			c.Result, c.Message = Skipped, it.State
			if it.Waits != "" {
				c.Message += ": " + first(clean(it.Waits))
			}
		}
		cases = append(cases, c)
	}
	slices.SortStableFunc(cases, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	r.Cases = append(cases, r.Cases...)
}

// teardown destroys the cluster, and looks what is left of it.
func (p Program) teardown(ctx context.Context, o options, r *Report) {
	ctx, cancel := context.WithTimeout(ctx, o.teardown)
	defer cancel()
	begun := p.Now()
	err := p.destroy(ctx, o, r)
	c := Case{Class: "run", Name: "teardown", Seconds: p.Now().Sub(begun).Seconds(), Result: Passed}
	if err != nil {
		r.Teardown = clean(err.Error())
		c.Result, c.Message = Failed, first(r.Teardown)+"; the engine goes on trying: joist status "+r.Cluster
	}
	r.Cases = append(r.Cases, c)
	if err != nil {
		return
	}
	nothing := Case{Class: "run", Name: "nothing is left", Result: Passed}
	if err := p.remains(ctx, r); err != nil {
		r.Left = append(r.Left, clean(err.Error()))
	}
	if len(r.Left) > 0 {
		nothing.Result, nothing.Message = Failed, strings.Join(r.Left, "; ")
	}
	r.Cases = append(r.Cases, nothing)
}

func (p Program) destroy(ctx context.Context, o options, r *Report) error {
	api := p.API()
	site, err := api.Page(ctx, client.Filter{Journals: []string{"site"}, After: "now", Limit: 1})
	if err != nil {
		return err
	}
	done, err := api.DestroyRun(ctx, r.Cluster, o.run)
	if err != nil {
		return err
	}
	what := redeploy.Following{Cluster: r.Cluster, Goal: v1.Goal{Seq: done.Seq}, After: done.Seq - 1, Site: site.Next, Plain: o.plain}
	t, err := p.Follow(ctx, what)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it was not destroyed within %s", o.teardown)
	case err != nil:
		return err
	case t.Outcome == "superseded": // the engine had begun by itself
		d, err := api.Cluster(ctx, r.Cluster)
		if err != nil {
			return err
		}
		what.Goal, what.After = d.Goal, d.Goal.Seq-1
		if t, err = p.Follow(ctx, what); err != nil {
			return err
		}
	}
	if r.Teardown = t.Outcome; t.Outcome != destroyed {
		return fmt.Errorf("destroying it ended as %s %s", t.Outcome, t.Detail)
	}
	return nil
}

// remains looks for what is left of a destroyed cluster.
func (p Program) remains(ctx context.Context, r *Report) error {
	d, err := p.API().Cluster(ctx, r.Cluster)
	if err != nil {
		return err
	}
	for _, service := range slices.Sorted(maps.Keys(d.Digests)) {
		r.Left = append(r.Left, "entries of "+service)
	}
	machines, err := p.API().Machines(ctx)
	for i := range machines {
		if machines[i].Cluster == r.Cluster {
			r.Left = append(r.Left, "machine "+machines[i].Name)
		}
	}
	return err
}

// conclude writes the reports and chooses how the program ends.
func (p Program) conclude(r *Report, o options, beginErr error) error {
	if r.Outcome == refused {
		r.Cases = append(r.Cases, Case{Class: "run", Name: "begin", Seconds: r.Seconds, Result: Failed, Message: first(clean(beginErr.Error())), Text: clean(beginErr.Error())})
	}
	var writeErr error
	if o.junit != "" {
		data, err := JUnit(r)
		if err == nil {
			err = write(o.junit, data)
		}
		writeErr = err
	}
	if r.Outcome == refused {
		return errors.Join(beginErr, writeErr)
	}
	programs, err := p.JSON(nil)
	if err != nil {
		return err
	}
	if programs {
		if _, err := p.JSON(r); err != nil {
			return err
		}
	} else {
		p.tell(r)
	}
	switch {
	case writeErr != nil:
		return writeErr
	case beginErr != nil:
		return beginErr
	case r.Outcome == interrupted:
		return p.Exit(exitInterrupted, nil)
	case r.Teardown != destroyed || len(r.Left) > 0:
		return p.Exit(exitFailed, nil)
	case r.Outcome != converged || r.Failures() > 0:
		return p.Exit(exitStopped, nil)
	}
	return nil
}

func (p Program) tell(r *Report) {
	rows := [][]string{{"RESULT", "CASE", "TIME", ""}}
	for _, c := range r.Cases {
		if c.Result != Passed || c.Class == "run" || c.Class == "check" {
			rows = append(rows, []string{string(c.Result), c.Name, fmt.Sprintf("%.1f s", c.Seconds), c.Message})
		}
	}
	p.Printf("\n")
	p.Table(rows)
	p.Printf("cluster %s %s: %d cases, %d failed, %.0f s", r.Cluster, r.Outcome, len(r.Cases), r.Failures(), r.Seconds)
	switch {
	case len(r.Left) > 0:
		p.Printf("; left: %s", strings.Join(r.Left, ", "))
	case r.Teardown == destroyed:
		p.Printf("; nothing is left of it")
	}
	p.Printf("\n")
}
