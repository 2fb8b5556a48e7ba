package cli

import (
	"fmt"
	"joist/cmd/joist/forget"
	"joist/cmd/joist/layout"
	"joist/cmd/joist/verify"
	"strings"

	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

func (a *app) statusCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "status [CLUSTER]", Short: "Show the engine, or one cluster",
		Long: `status shows the engine with its clusters and machines; with a cluster's name that cluster: its nodes, what runs, what
failed and why, and what the rest waits for. Clusters that are destroyed are listed with --all only; joist forget drops them.`,
		Example: "  joist status\n  joist status demo\n  joist status --all", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				s, err := a.api.Status(cmd.Context())
				if err != nil {
					return err
				}
				living, gone := forget.Part(s.Clusters)
				if all {
					living, gone = s.Clusters, nil
				}
				s.Clusters = living
				if done, err := a.json(s); done {
					return err
				}
				a.writeStatus(s, forget.Hidden(gone))
				return nil
			}
			d, err := a.api.Cluster(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if done, err := a.json(d); done {
				return err
			}
			a.writeCluster(d)
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "list clusters that are destroyed, too")
	return c
}

// forgetting is this program as the command that forgets sees it.
func (a *app) forgetting() forget.Program {
	w := a.wiping()
	return forget.Program{API: w.API, JSON: a.json, Printf: w.Printf, Usage: usage}
}

func (a *app) writeStatus(s *v1.Status, hidden string) {
	ink := a.colour(a.Out)
	a.printf("joist %s at %s, data in %s, started %s\n", s.Version, a.api.Socket(), s.Data, a.when(s.Started))
	for _, n := range s.Notices {
		a.printf("%s\n", ink.Yellow("  ! "+n))
	}
	if len(s.Clusters) == 0 && hidden != "" {
		a.printf("\nno clusters: joist apply FILE makes one\n")
	} else if len(s.Clusters) == 0 {
		a.printf("\nno clusters yet: joist apply FILE makes one\n")
	} else {
		rows := [][]string{{"CLUSTER", "OUTCOME", "NODES", "INSTANCES", ""}}
		for _, c := range s.Clusters {
			rows = append(rows, []string{c.Name, ink.Outcome(c.Outcome), fmt.Sprintf("%d/%d online", c.Online, c.Nodes), layout.Counts(c.States, layout.States), diag.Visible(c.Detail)})
		}
		a.printf("\n")
		layout.Table(a.Out, rows)
	}
	if hidden != "" {
		a.printf("%s\n", hidden)
	}
	if len(s.Machines) == 0 {
		a.printf("\nno machines yet: power one on in this engine's network\n")
		return
	}
	a.printf("\n")
	a.writeMachines(s.Machines)
}

func (a *app) writeCluster(d *v1.ClusterDetail) {
	ink := a.colour(a.Out)
	a.printf("%s  %s", ink.Bold("cluster "+d.Name), ink.Outcome(d.Outcome))
	if d.Detail != "" {
		a.printf(" (%s)", diag.Visible(d.Detail))
	}
	if d.Workflow != "" {
		a.printf("  workflow %s", d.Workflow)
	}
	a.printf("\n")
	if d.Goal.Seq > 0 {
		what := "goal"
		if d.Goal.Destroy {
			what = "destruction"
		}
		a.printf("%s set by %s %s, event %d\n", what, d.Goal.By, a.when(d.Goal.At), d.Goal.Seq)
	}
	a.printf("%d/%d nodes online; instances: %s\n", d.Online, d.Nodes, layout.Counts(d.States, layout.States))
	for _, m := range d.Members {
		if m.Aside != "" {
			a.printf("%s\n", ink.Yellow("node "+m.Name+" is set aside: "+layout.FirstLine(m.Aside, 200)))
		}
	}
	for _, ask := range d.Asking {
		a.printf("%s %s: %s\n    joist approve '%s/%s' --digest %.12s --reason WHY\n", ink.Yellow("waiting for approval:"), ask.Instance, layout.FirstLine(ask.Asks, 200), d.Name, ask.Instance, ask.Digest)
	}
	if d.Drift != nil && (d.Drift.Every > 0 || !d.Drift.Last.IsZero()) {
		a.printf("%s\n", verify.Sentence(d.Drift))
	}
	a.writeFailed(d)
	if len(d.Members) > 0 {
		rows := [][]string{{"NODE", "ROLES", "AGENT", "SINCE", "ADDRESS", "TRUST", "INSTANCES", "BOOT"}}
		for _, m := range d.Members {
			agent := ink.Green("online")
			if !m.Online {
				agent = ink.Red("silent")
			}
			roles := strings.Join(m.Roles, ",")
			if m.Leaving {
				roles = ink.Yellow("leaving")
			}
			rows = append(rows, []string{m.Name, layout.Dash(roles), agent, a.when(m.Since), layout.Dash(m.Address), layout.Dash(m.Level), layout.Counts(m.States, layout.States), m.Boot})
		}
		a.printf("\n")
		layout.Table(a.Out, rows)
	}
	if len(d.Running) > 0 {
		rows := [][]string{{"RUNNING", "STEP", "ATTEMPT", "ON", "BECAUSE"}}
		for _, it := range d.Running {
			rows = append(rows, []string{it.Instance, it.Step, fmt.Sprint(it.Attempt), layout.Dash(it.Agent), diag.Visible(it.Because)})
		}
		a.printf("\n")
		layout.Table(a.Out, rows)
	}
	a.writeBlocked(d)
}

func (a *app) writeMachines(list []v1.Machine) {
	ink := a.colour(a.Out)
	rows := [][]string{{"MACHINE", "CLUSTER", "TRUST", "AGENT", "ADDRESS", "BOOT"}}
	for _, m := range list {
		trust := layout.Dash(m.Level)
		switch {
		case m.Quarantine != "":
			trust = ink.Red("quarantine")
		case m.Pending:
			trust = ink.Yellow(trust + ", waits: " + m.Fingerprint)
		}
		agent := "-"
		if m.Online {
			agent = ink.Green("online")
		}
		boot := m.Boot
		if m.Stuck {
			boot = ink.Red(boot)
			if m.Advice != "" {
				boot += ": " + m.Advice
			}
		}
		rows = append(rows, []string{m.Name, layout.Dash(m.Cluster), trust, agent, layout.Dash(m.Address), boot})
	}
	layout.Table(a.Out, rows)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program, and of the engine if one answers",
		Example: "  joist version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Client string `json:"client"`
				Engine string `json:"engine,omitempty"`
			}{Client: a.Version}
			if s, err := a.api.Status(cmd.Context()); err == nil { // an engine is not needed
				v.Engine = s.Version
			}
			if done, err := a.json(v); done {
				return err
			}
			a.printf("joist %s\n", v.Client)
			if v.Engine != "" {
				a.printf("engine %s\n", v.Engine)
			}
			return nil
		},
	}
}
