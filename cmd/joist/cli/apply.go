package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"joist/cmd/joist/layout"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"joist/cmd/joist/override"
	"joist/cmd/joist/progress"
	"joist/cmd/joist/redeploy"
	"joist/cmd/joist/screen"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

// view is how progress is shown.
type view struct {
	plain  bool
	noWait bool
}

func (v *view) flags(c *cobra.Command) {
	v.plainFlag(c)
	c.Flags().BoolVar(&v.noWait, "no-wait", false, "return as soon as the engine has accepted it")
}

func (v *view) plainFlag(c *cobra.Command) {
	c.Flags().BoolVar(&v.plain, "plain", false, "one line for each thing that happens, also on a terminal")
}

// screen is where a person, or a program, sees progress.
func (a *app) screen(look view, t *progress.Tracker) screen.Screen {
	on := screen.Terminal{Out: a.Out, Ink: a.colour(a.Out), Size: func() (int, int, bool) { return terminal(a.Out) }, Now: a.Now, Cluster: a.api.Cluster}
	if a.output == "json" {
		return screen.Silent()
	}
	if _, _, ok := on.Size(); ok && !look.plain && a.Getenv("TERM") != "dumb" {
		return screen.Live(on, t)
	}
	return screen.Plain(on)
}

// pursuit is a goal to follow until it comes to rest.
type pursuit struct {
	cluster string
	seq     uint64 // event that set the goal
	roles   map[string][]string
	site    string // cursor of the site's journal from which on its events matter
	past    uint64 // event up to which all had happened when the following began
	destroy bool
}

// siteMark is the present end of the site's journal.
func (a *app) siteMark(ctx context.Context) (string, error) {
	p, err := a.api.Page(ctx, client.Filter{Journals: []string{"site"}, After: "now", Limit: 1})
	if err != nil {
		return "", err
	}
	return p.Next, nil
}

func (a *app) applyCommand() *cobra.Command {
	var look view
	var said override.Words
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Make a cluster file the goal and follow until it is reached",
		Long: `apply sends the cluster file, and the packs that it names as folders, to the engine. The engine pursues the goal by
itself: Ctrl-C ends the following, not the pursuit. The same file again tries again what failed.

FILE may be a plan that joist plan --out wrote: then exactly that plan is run, with the cluster file and packs as they were,
or nothing is changed and what is different since is named.`,
		Example: "  joist apply demo.hcl\n  joist apply demo.hcl --no-wait\n  joist plan demo.hcl --out demo.plan && joist apply demo.plan",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			what, err := a.declaration(args[0])
			if err == nil {
				what.Overrides, err = said.List(usage)
			}
			if err != nil {
				return err
			}
			mark, err := a.siteMark(ctx)
			if err != nil {
				return err
			}
			done, err := a.api.Apply(ctx, *what)
			if err != nil {
				return err
			}
			if done.Warnings != "" && a.output != "json" {
				fmt.Fprintln(a.Err, strings.TrimSpace(done.Warnings))
			}
			if look.noWait {
				if done, err := a.json(done); done {
					return err
				}
				a.printf("cluster %s: the goal is set (event %d); follow it with joist watch %s\n", done.Cluster, done.Seq, done.Cluster)
				return nil
			}
			return a.follow(ctx, look, pursuit{cluster: done.Cluster, seq: done.Seq, roles: done.Roles, site: mark})
		},
	}
	look.flags(c)
	said.Flags(c)
	return c
}

func (a *app) watchCommand() *cobra.Command {
	var look view
	c := &cobra.Command{
		Use: "watch [CLUSTER]", Short: "Follow a cluster until it comes to rest",
		Example: "  joist watch demo", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.pick(cmd.Context(), first(args))
			if err != nil {
				return err
			}
			d, err := a.api.Cluster(cmd.Context(), name)
			if err != nil {
				return err
			}
			if d.Goal.Seq == 0 {
				return fmt.Errorf("cluster %s was never given a goal: joist apply FILE gives it one", name)
			}
			return a.follow(cmd.Context(), look, pursuit{cluster: name, seq: d.Goal.Seq, past: d.Events, roles: d.Goal.Roles, destroy: d.Goal.Destroy})
		},
	}
	look.plainFlag(c)
	return c
}

func (a *app) destroyCommand() *cobra.Command {
	var look view
	var yes bool
	var said override.Words
	c := &cobra.Command{
		Use:   "destroy CLUSTER",
		Short: "Remove a cluster: its machines are wiped and given back",
		Long: `destroy removes everything that a cluster has in services, wipes its machines and gives them back to the site. What was
stored on them is lost.`,
		Example: "  joist destroy demo --yes",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			over, err := said.List(usage)
			if err != nil {
				return err
			}
			d, err := a.api.Cluster(ctx, args[0])
			if err != nil {
				return err
			}
			if !yes {
				if err := a.confirm(d); err != nil {
					return err
				}
			}
			mark, err := a.siteMark(ctx)
			if err != nil {
				return err
			}
			done, err := a.api.Destroy(ctx, d.Name, over...)
			if err != nil {
				return err
			}
			if look.noWait {
				if done, err := a.json(done); done {
					return err
				}
				a.printf("cluster %s is being destroyed; follow it with joist watch %s\n", d.Name, d.Name)
				return nil
			}
			return a.follow(ctx, look, pursuit{cluster: d.Name, seq: done.Seq, site: mark, destroy: true})
		},
	}
	look.flags(c)
	said.Flags(c)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) confirm(d *v1.ClusterDetail) error {
	var names []string
	for _, m := range d.Members {
		names = append(names, m.Name)
	}
	warning := fmt.Sprintf("This wipes %s of cluster %s (%s).", layout.Counted(len(names), "machine"), d.Name, strings.Join(names, " "))
	if len(names) == 0 {
		warning = fmt.Sprintf("This removes everything that cluster %s has in services; it has no machines.", d.Name)
	}
	return a.sure(warning, "cluster", d.Name)
}

// sure wants a name typed before something that cannot be taken back.
func (a *app) sure(warning, what, name string) error {
	if a.output == "json" {
		return fmt.Errorf("%w: with -o json nobody is asked; add --yes", errNotConfirmed)
	}
	fmt.Fprintf(a.Err, "%s Type the %s's name to go on: ", warning, what)
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(a.Err)
		return fmt.Errorf("%w: nobody answered; --yes goes on without asking", errNotConfirmed)
	}
	if strings.TrimSpace(line) != name {
		return fmt.Errorf("%w: %q is not the %s's name", errNotConfirmed, strings.TrimSpace(line), what)
	}
	return nil
}

// result is what apply, retry, watch and destroy yield as JSON.
type result struct {
	Cluster  string                     `json:"cluster"`
	Outcome  string                     `json:"outcome"`
	Detail   string                     `json:"detail,omitempty"`
	Seconds  float64                    `json:"seconds"`
	Done     int                        `json:"done"`     // actions that went well
	Failures int                        `json:"failures"` // attempts that failed
	Phases   []redeploy.Phase           `json:"phases"`
	Failed   []v1.Item                  `json:"failed"`
	Breakers []v1.Breaker               `json:"breakers,omitempty"`
	Outputs  map[string]json.RawMessage `json:"outputs"`
}

// follow shows a pursuit until it comes to rest, then sums it up.
func (a *app) follow(ctx context.Context, look view, p pursuit) error {
	t, err := a.track(ctx, look, p, p.seq-1)
	if err != nil {
		return err
	}
	return a.conclude(ctx, p, t)
}

// track shows what happens to a cluster after an event until it comes to rest.
func (a *app) track(ctx context.Context, look view, p pursuit, after uint64) (*progress.Tracker, error) {
	var nodes []string
	for _, names := range p.roles {
		nodes = append(nodes, names...)
	}
	t := progress.New(p.cluster, p.seq, nodes)
	t.Past = p.past
	filter := client.Filter{Journals: []string{"cluster/" + p.cluster, "site"}, After: fmt.Sprintf("cluster/%s:%d", p.cluster, after)}
	if p.site != "" {
		filter.After += "," + p.site
	}
	on := a.screen(look, t)
	err := a.events(ctx, filter, t, on)
	on.Close()
	if ctx.Err() != nil {
		return nil, &ExitError{Interrupted, fmt.Errorf("interrupted: the engine goes on by itself; joist watch %[1]s follows it again, joist cancel %[1]s stops it", p.cluster)}
	}
	return t, err
}

// events feeds tracker and screen until the pursuit rests.
func (a *app) events(ctx context.Context, filter client.Filter, t *progress.Tracker, on screen.Screen) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type news struct {
		event  v1.Event
		notice string
	}
	feed := make(chan news, 256)
	done := make(chan error, 1)
	put := func(n news) error {
		select {
		case feed <- n:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	go func() {
		done <- a.api.Follow(ctx, client.Following{
			Filter: filter,
			Lost: func(err error) {
				_ = put(news{notice: fmt.Sprintf("lost the engine (%v); trying for %s", err, client.DefaultPatience)})
			},
			Found: func() { _ = put(news{notice: "the engine answers again"}) },
		}, func(e v1.Event) error { return put(news{event: e}) })
	}()
	tick := time.NewTicker(on.Pace())
	defer tick.Stop()
	for {
		select {
		case n := <-feed:
			if n.notice != "" {
				on.Show([]progress.Line{{At: a.Now(), Weight: progress.Bad, Text: n.notice}})
				continue
			}
			lines := t.Take(n.event)
			a.logs(ctx, t.Cluster, lines, on)
			if t.Ended() {
				cancel()
				<-done // it was cancelled
				return nil
			}
		case <-tick.C:
			on.Tick(ctx)
		case err := <-done:
			return err
		}
	}
}

// logs shows lines, and under a failure the end of its log.
func (a *app) logs(ctx context.Context, cluster string, lines []progress.Line, on screen.Screen) {
	for _, l := range lines {
		on.Show([]progress.Line{l})
		if l.Failed == "" {
			continue
		}
		i, err := a.api.Instance(ctx, cluster, l.Failed)
		if err != nil { // the failure itself was shown
			continue
		}
		for _, text := range i.Log[max(0, len(i.Log)-8):] {
			on.Show([]progress.Line{{At: l.At, Weight: progress.Bad, Text: "    | " + text}})
		}
	}
}

// conclude sums a pursuit up and chooses the exit code.
func (a *app) conclude(ctx context.Context, p pursuit, t *progress.Tracker) error {
	r := result{Cluster: p.cluster, Outcome: t.Outcome, Detail: t.Detail, Seconds: t.End.Sub(t.Start).Seconds(), Done: t.Done, Failures: t.Failures, Phases: redeploy.PhasesOf(t), Failed: []v1.Item{}}
	var detail *v1.ClusterDetail
	var err error
	if detail, err = a.api.Cluster(ctx, p.cluster); err == nil {
		r.Failed, r.Breakers = detail.Failed, detail.Breakers
	}
	if out, err := a.api.Outputs(ctx, p.cluster); err == nil {
		r.Outputs = out.Values
	}
	if done, err := a.json(r); !done {
		a.summary(&r, t, detail)
		a.further(ctx, &r, detail)
	} else if err != nil {
		return err
	}
	switch t.Outcome {
	case "converged", "destroyed":
		return nil
	case "stopped":
		return &ExitError{Code: Stopped}
	}
	return &ExitError{Code: Failed}
}

func (a *app) summary(r *result, t *progress.Tracker, detail *v1.ClusterDetail) {
	ink := a.colour(a.Out)
	a.printf("\n%s %s after %s: %d done, %d failed attempts", ink.Bold("cluster "+r.Cluster), ink.Outcome(r.Outcome), progress.Duration(t.End.Sub(t.Start)), r.Done, r.Failures)
	if r.Detail != "" {
		a.printf(" (%s)", diag.Visible(r.Detail))
	}
	a.printf("\n")
	if phases := t.Phases(); len(phases) > 0 {
		rows := [][]string{{"", "NODES", "FIRST", "LAST", "(after the goal was set)"}}
		for _, ph := range phases {
			rows = append(rows, []string{"  " + ph.Name, fmt.Sprint(ph.Nodes), progress.Duration(ph.First), progress.Duration(ph.Last)})
		}
		a.printf("\n")
		layout.Table(a.Out, rows)
	}
	if detail != nil {
		a.writeFailed(detail)
		a.writeMembers(detail)
	}
	if r.Outcome == "converged" && len(r.Outputs) > 0 {
		a.printf("\noutputs:\n")
		a.writeOutputs(&v1.Outputs{Cluster: r.Cluster, Values: r.Outputs})
	}
}

// writeMembers lists a cluster's nodes in short.
func (a *app) writeMembers(d *v1.ClusterDetail) {
	if len(d.Members) == 0 {
		return
	}
	ink := a.colour(a.Out)
	rows := [][]string{{"  NODE", "ROLES", "ADDRESS", "AGENT", "INSTANCES"}}
	for _, m := range d.Members {
		agent := ink.Green("online")
		if !m.Online {
			agent = ink.Red("silent")
		}
		rows = append(rows, []string{"  " + m.Name, layout.Dash(strings.Join(m.Roles, ",")), layout.Dash(m.Address), agent, layout.Counts(m.States, layout.States)})
	}
	a.printf("\n")
	layout.Table(a.Out, rows)
}

// further names the commands that tell more, so that they can be pasted.
func (a *app) further(ctx context.Context, r *result, detail *v1.ClusterDetail) {
	a.printf("\nlook further:\n")
	s, err := a.api.Status(ctx)
	inLab := err == nil && s.Lab
	if inLab {
		a.printf("  export JOIST_DATA=%s JOIST_SOCKET=%s\n", s.Data, a.api.Socket())
	}
	switch r.Outcome {
	case "converged":
		a.printf("  joist status %[1]s\n  joist plan --cluster %[1]s\n  joist cert --cluster %[1]s\n", r.Cluster)
		if inLab {
			a.printf("  joist lab exec -- dig +short -x ADDRESS\n")
		}
	case "destroyed":
		a.printf("  joist node list\n")
	default:
		a.printf("  joist status %[1]s\n", r.Cluster)
		if len(r.Failed) > 0 {
			a.printf("  joist why '%[1]s/%[2]s'\n  joist show '%[1]s/%[2]s'\n", r.Cluster, r.Failed[0].Instance)
		}
		if waits := approvals(detail); len(waits) > 0 {
			for _, instance := range layout.AtMost(waits, 3) {
				a.printf("  joist approve '%s/%s' --reason WHY\n", r.Cluster, instance)
			}
			if len(r.Failed) == 0 {
				return // there is nothing to try again
			}
		}
		a.printf("  joist retry %s\n", r.Cluster)
	}
}

// approvals lists what waits for a person's approval.
func approvals(d *v1.ClusterDetail) []string {
	var waits []string
	for i := 0; d != nil && i < len(d.Blocked); i++ {
		// A key is approved with joist node approve, and drift is accepted by apply: those say something else.
		if b := &d.Blocked[i]; b.Cause != nil && b.Cause.Kind == "approval" {
			waits = append(waits, b.Instance)
		}
	}
	return waits
}

// writeFailed lists what failed, and counts what that holds up.
func (a *app) writeFailed(d *v1.ClusterDetail) {
	ink := a.colour(a.Out)
	rows := [][]string{}
	blocked := 0
	for _, it := range d.Failed {
		if it.State != "failed" {
			blocked++
			continue
		}
		attempt, why := fmt.Sprintf("attempt %d", it.Attempt), it.Error
		if it.Attempt == 0 {
			attempt = "not tried"
		}
		if why == "" {
			why = it.Because // nothing failed: it cannot be decided
		}
		rows = append(rows, []string{ink.Red("  failed"), it.Instance, attempt, layout.FirstLine(why, 200)})
	}
	if len(rows) > 0 {
		a.printf("\n")
		layout.Table(a.Out, rows)
	}
	if blocked > 0 {
		verb := "are"
		if blocked == 1 {
			verb = "is"
		}
		a.printf("  %s %s blocked by that\n", layout.Counted(blocked, "more instance"), verb)
	}
	for _, b := range d.Breakers {
		a.printf("  rollout %s has stopped after %s: joist breaker close %s --cluster %s lets it go on\n", b.Rollout, layout.Counted(b.Failures, "failure"), b.Rollout, d.Name)
	}
}

func (a *app) writeOutputs(out *v1.Outputs) {
	for _, name := range slices.Sorted(maps.Keys(out.Values)) {
		text := string(out.Values[name])
		if text == "null" {
			text = "(not known yet)"
		} else {
			text = indented(out.Values[name], "  ")
		}
		a.printf("  %s = %s\n", name, text)
	}
}

// indented gives JSON over several lines, unless it fits into one.
func indented(data json.RawMessage, prefix string) string {
	if len(data) <= 100 {
		return string(data)
	}
	var b bytes.Buffer
	if json.Indent(&b, data, prefix, "  ") != nil {
		return string(data)
	}
	return b.String()
}
