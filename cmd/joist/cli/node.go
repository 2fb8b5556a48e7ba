package cli

import (
	"fmt"
	"joist/cmd/joist/layout"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"joist/cmd/joist/console"
	"joist/cmd/joist/redeploy"
	v1 "joist/services/api/v1"
)

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: commands[0].Example, RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage("there is no command %q in %s%s; see %s --help", args[0], c.CommandPath(), meant(c, args[0]), c.CommandPath())
		}
		return c.Help()
	}}
	c.AddCommand(commands...)
	return c
}

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Look at machines, trust them, switch them",
		a.nodeListCommand(), a.nodeShowCommand(), a.nodeApproveCommand(), a.nodePowerCommand(), a.nodeAsideCommand(), a.nodeReturnCommand(), completing(redeploy.WipeCommand(a.wiping()), a.completeMachines), a.nodeConsoleCommand())
}

func (a *app) nodeListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the site's machines", Example: "  joist node list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.api.Machines(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := a.json(list); done {
				return err
			}
			if len(list) == 0 {
				a.printf("no machines yet: power one on in this engine's network\n")
				return nil
			}
			a.writeMachines(list)
			return nil
		},
	}
}

func (a *app) nodeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show MACHINE", Short: "Show one machine with its facts", Example: "  joist node show n1",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := a.api.Machine(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if done, err := a.json(m); done {
				return err
			}
			a.writeMachine(m)
			return nil
		},
	}
}

func (a *app) writeMachine(m *v1.Machine) {
	ink := a.colour(a.Out)
	agent := "not connected"
	if m.Online {
		agent = "online"
	}
	rows := [][]string{{"machine", ink.Bold(m.Name)}, {"cluster", layout.Dash(m.Cluster)}, {"trust", layout.Dash(m.Level)}}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	if m.Quarantine != "" {
		add("quarantine", ink.Red(m.Quarantine))
	}
	if m.Pending || m.Quarantine != "" {
		add("key waits", fmt.Sprintf("%s; if its console shows the same: joist node approve %s %s", m.Fingerprint, m.Name, m.Fingerprint))
	} else {
		add("key", m.Fingerprint)
	}
	add("agent", agent)
	add("address", m.Address)
	add("power", layout.Dash(m.Power))
	add("boot", m.Boot)
	if m.TrustBoot {
		add("reboot", ink.Yellow("keeps its approval through boots that the engine ordered (trust-boot-network): spoofable"))
	}
	if m.Advice != "" {
		add("look at", ink.Yellow(m.Advice))
	}
	if m.Served > 0 {
		add("was sent", fmt.Sprintf("%.1f MiB since the engine started", float64(m.Served)/(1<<20)))
	}
	add("MAC", strings.Join(m.MACs, " "))
	add("UUID", m.UUID)
	add("provider", m.Provider)
	layout.Table(a.Out, rows)
	if len(m.Facts) > 0 {
		a.printf("\nfacts:\n  %s\n", indented(m.Facts, "  "))
	}
}

func (a *app) nodeApproveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "approve MACHINE FINGERPRINT", Short: "Confirm that a machine's key is the one on its console",
		Long: `approve raises a machine to the trust level "approved". The fingerprint is the one that the machine's own console shows:
compare it there, not with what the engine says. Of a machine in quarantine it names the key that is right.`,
		Example: "  joist node approve n1 K7QX-29BM",
		Args:    cobra.ExactArgs(2), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := a.api.Approve(cmd.Context(), args[0], v1.Approve{Fingerprint: args[1]})
			if err != nil {
				return err
			}
			if done, err := a.json(m); done {
				return err
			}
			a.printf("machine %s: the key %s is approved; it is accepted when it next asks\n", m.Name, args[1])
			return nil
		},
	}
}

func (a *app) nodePowerCommand() *cobra.Command {
	actions := []string{v1.PowerOn, v1.PowerOff, v1.PowerReset, v1.PowerCycle}
	return &cobra.Command{
		Use: "power MACHINE on|off|reset|cycle", Short: "Switch a machine, and read back that it happened",
		Long: `power switches a machine through its provider and returns once the effect was read back. off cuts the power, whatever
runs; cycle is off and on again. The engine powers machines of a cluster on again when it finds them off.`,
		Example: "  joist node power n1 cycle",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return actions, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeMachines(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.Contains(" "+strings.Join(actions, " ")+" ", " "+args[1]+" ") {
				return usage("there is no power action %q: use %s", args[1], strings.Join(actions, ", "))
			}
			m, err := a.api.Power(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if done, err := a.json(m); done {
				return err
			}
			a.printf("machine %s reads power %s\n", m.Name, layout.Dash(m.Power))
			return nil
		},
	}
}

func (a *app) nodeConsoleCommand() *cobra.Command {
	var follow bool
	var tail int64
	c := &cobra.Command{
		Use: "console MACHINE", Short: "Show a machine's console",
		Example: "  joist node console n1 --follow", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.Out
			if f, ok := out.(*os.File); ok {
				out = &console.Filter{W: f}
			}
			return a.api.Console(cmd.Context(), args[0], out, tail, follow)
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	c.Flags().Int64Var(&tail, "tail", 16<<10, "how many of the last bytes to begin with; -1 for all")
	return c
}
