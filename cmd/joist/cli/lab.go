package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// inLab runs a command with the lab that its flags name.
type inLab func(f func(ctx context.Context, l Lab, args []string) error) func(*cobra.Command, []string) error

// engineStart is how long an engine may take until it answers; trying hardware virtualisation alone may take 10 s.
const engineStart = 90 * time.Second

func (a *app) labUpCommand(data, subnet *string, with inLab) *cobra.Command {
	var o ServeOptions
	var machines int
	var spec v1.MachineSpec
	c := &cobra.Command{
		Use:   "up",
		Short: "Make a lab, start an engine in it, and rack virtual machines",
		Long: `up makes the lab's network namespace, starts an engine in it that goes on by itself, and makes virtual machines, which are
off and know nothing but to boot from the network. What is there already is left as it is. Every third machine has UEFI firmware.`,
		Example: "  joist lab up --data /tmp/demo --bootsets build/bootsets --machines 3",
		Args:    cobra.NoArgs,
		RunE: with(func(ctx context.Context, l Lab, _ []string) error {
			o.Data, o.Subnet = *data, *subnet
			if o.Data == "" {
				o.Data = a.Getenv("JOIST_DATA")
			}
			if err := l.Up(ctx); err != nil {
				return err
			}
			engine := client.New(l.Socket())
			if _, err := engine.Status(ctx); err != nil {
				ended, err := l.Start(ctx, o)
				if err != nil {
					return err
				}
				if err := awaitEngine(ctx, engine, o.Data, ended); err != nil {
					return err
				}
			}
			for i := range machines {
				m := spec
				m.Name = fmt.Sprintf("n%d", i+1)
				if m.Firmware == "" && i%3 == 2 {
					m.Firmware = "uefi"
				}
				if _, err := engine.DefineMachine(ctx, m); err != nil {
					return err
				}
			}
			if done, err := a.json(map[string]any{"namespace": l.Name(), "socket": l.Socket(), "machines": machines}); done {
				return err
			}
			a.printf("the lab is up: network namespace %s, engine at %s, %d machines\n", l.Name(), l.Socket(), machines)
			a.printf("\nto reach it:\n  export JOIST_DATA=%s JOIST_SOCKET=%s\n", o.Data, l.Socket())
			return nil
		}),
	}
	f := c.Flags()
	f.StringVar(&o.BootSets, "bootsets", "", "folder with boot sets, each in a folder of its own")
	f.StringVar(&o.LogLevel, "log-level", "info", "of the engine: debug, info, warn or error; it logs to engine.log in the data folder")
	f.IntVar(&machines, "machines", 0, "how many machines to rack: n1, n2, …")
	machineFlags(c, &spec)
	return c
}

func machineFlags(c *cobra.Command, spec *v1.MachineSpec) {
	f := c.Flags()
	f.Int64Var(&spec.Memory, "memory", 0, "memory of a machine in bytes (default 2 GiB)")
	f.IntVar(&spec.CPUs, "cpus", 0, "processors of a machine (default 2)")
	f.StringVar(&spec.Firmware, "firmware", "", "bios or uefi")
	f.Int64Var(&spec.Disk, "disk", 0, "size of a blank data disk in bytes (default none)")
	f.BoolVar(&spec.Bare, "bare", false, "without a voucher secret: a person has to approve the machine")
}

// awaitEngine waits until an engine that was just started answers, or has ended.
func awaitEngine(ctx context.Context, engine *client.Client, data string, ended func() error) error {
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	for {
		_, err := engine.Status(ctx)
		if err == nil {
			return nil
		}
		if over := ended(); over != nil {
			return over
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the engine does not answer; see engine.log in %s", data), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (a *app) labMachineCommand(with inLab) *cobra.Command {
	var spec v1.MachineSpec
	add := &cobra.Command{
		Use: "add NAME", Short: "Make a virtual machine, or change one", Example: "  joist lab machine add n4 --data /tmp/demo --firmware uefi", Args: cobra.ExactArgs(1),
		RunE: with(func(ctx context.Context, l Lab, args []string) error {
			spec.Name = args[0]
			m, err := client.New(l.Socket()).DefineMachine(ctx, spec)
			if err != nil {
				return err
			}
			if done, err := a.json(m); done {
				return err
			}
			a.printf("%s is racked: %s\n", m.Name, m.MACs[0])
			return nil
		}),
	}
	machineFlags(add, &spec)
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Remove a virtual machine, its disk included", Example: "  joist lab machine remove n4 --data /tmp/demo", Args: cobra.ExactArgs(1),
		RunE: with(func(ctx context.Context, l Lab, args []string) error {
			if err := client.New(l.Socket()).UndefineMachine(ctx, args[0]); err != nil {
				return err
			}
			_, err := a.json(map[string]string{"name": args[0]})
			return err
		}),
	}
	return group("machine", "Virtual machines of a lab", add, remove)
}
