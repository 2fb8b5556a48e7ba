// Package lab is joist lab: a network of virtual machines on this host, with an engine of its own in it.
package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// Program is what the commands need of the one that they are part of.
type Program struct {
	Getenv func(name string) string
	JSON   func(v any) (done bool, err error) // writes v if the output is for programs
	Printf func(format string, args ...any)
	Usage  func(format string, args ...any) error // the error of a command line that makes no sense
	Exit   func(code int) error                   // ends the program with a code; all was said
	Group  func(use, short string, commands ...*cobra.Command) *cobra.Command
	Open   func(data, subnet string) (*Lab, error) // the lab of a data folder
}

// Lab is a network namespace with virtual machines.
type Lab struct {
	Namespace string // its network namespace
	Socket    string // where an engine inside it is reached
	Room
}

// Room is what can be done with a lab.
type Room interface {
	Up(ctx context.Context) error
	Down(ctx context.Context) error
	// Exec runs a command inside it, with this program's input and outputs, and returns its exit code.
	Exec(ctx context.Context, argv []string) (int, error)
	// Start runs an engine inside it that outlives this program. What it gives tells, with the engine's last words, that
	// it has ended; nil while it runs.
	Start(ctx context.Context, e Engine) (ended func() error, err error)
}

// Engine is what an engine in a lab is told.
type Engine struct {
	Data, BootSets string // folders
	LogLevel       string // debug, info, warn, error
}

// opened runs a command with the lab that its flags name.
type opened func(f func(ctx context.Context, l *Lab, args []string) error) func(*cobra.Command, []string) error

// Commands is joist lab.
func Commands(p *Program) *cobra.Command {
	var data, subnet string
	with := func(f func(ctx context.Context, l *Lab, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			if data == "" {
				data = p.Getenv("JOIST_DATA")
			}
			if data == "" {
				return p.Usage("which lab? name the engine's data folder: --data DIR, or JOIST_DATA")
			}
			l, err := p.Open(data, subnet)
			if err != nil {
				return err
			}
			return f(cmd.Context(), l, args)
		}
	}
	up := p.up(&data, with)
	down := &cobra.Command{
		Use: "down", Short: "End everything in the lab and take it away; the data folder stays",
		Example: "  joist lab down --data /tmp/demo", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, l *Lab, _ []string) error {
			if err := l.Down(ctx); err != nil {
				return err
			}
			if done, err := p.JSON(map[string]string{"namespace": l.Namespace}); done {
				return err
			}
			p.Printf("the lab is down: machines, engine and network namespace %s are gone\n", l.Namespace)
			return nil
		}),
	}
	exec := &cobra.Command{
		Use: "exec -- CMD [ARG...]", Short: "Run a command inside the lab's network",
		Example: "  joist lab exec --data /tmp/demo -- dig @10.77.0.1 etcd.demo.lab", Args: cobra.MinimumNArgs(1),
		RunE: with(func(ctx context.Context, l *Lab, args []string) error {
			code, err := l.Exec(ctx, args)
			if err != nil || code == 0 {
				return err
			}
			return p.Exit(code)
		}),
	}
	c := p.Group("lab", "A network of virtual machines, without a link to this host", up, down, exec, p.machine(with))
	c.PersistentFlags().StringVar(&data, "data", "", "the engine's data folder, which names the lab (default JOIST_DATA)")
	c.PersistentFlags().StringVar(&subnet, "subnet", "", "its IPv4 network (default 10.77.0.0/24)")
	return c
}

// engineStart is how long an engine may take until it answers; trying hardware virtualisation alone may take 10 s.
const engineStart = 90 * time.Second

func (p *Program) up(data *string, with opened) *cobra.Command {
	var o Engine
	var machines int
	var spec v1.MachineSpec
	c := &cobra.Command{
		Use:   "up",
		Short: "Make a lab, start an engine in it, and rack virtual machines",
		Long: `up makes the lab's network namespace, starts an engine in it that goes on by itself, and makes virtual machines, which are
off and know nothing but to boot from the network. What is there already is left as it is. Every third machine has UEFI firmware.`,
		Example: "  joist lab up --data /tmp/demo --bootsets build/bootsets --machines 3",
		Args:    cobra.NoArgs,
		RunE: with(func(ctx context.Context, l *Lab, _ []string) error {
			o.Data = *data
			if err := l.Up(ctx); err != nil {
				return err
			}
			engine := client.New(l.Socket)
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
			if done, err := p.JSON(map[string]any{"namespace": l.Namespace, "socket": l.Socket, "machines": machines}); done {
				return err
			}
			p.Printf("the lab is up: network namespace %s, engine at %s, %d machines\n", l.Namespace, l.Socket, machines)
			p.Printf("\nto reach it:\n  export JOIST_DATA=%s JOIST_SOCKET=%s\n", o.Data, l.Socket)
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

func (p *Program) machine(with opened) *cobra.Command {
	var spec v1.MachineSpec
	add := &cobra.Command{
		Use: "add NAME", Short: "Make a virtual machine, or change one", Example: "  joist lab machine add n4 --data /tmp/demo --firmware uefi", Args: cobra.ExactArgs(1),
		RunE: with(func(ctx context.Context, l *Lab, args []string) error {
			spec.Name = args[0]
			m, err := client.New(l.Socket).DefineMachine(ctx, spec)
			if err != nil {
				return err
			}
			if done, err := p.JSON(m); done {
				return err
			}
			p.Printf("%s is racked: %s\n", m.Name, m.MACs[0])
			return nil
		}),
	}
	machineFlags(add, &spec)
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Remove a virtual machine, its disk included", Example: "  joist lab machine remove n4 --data /tmp/demo", Args: cobra.ExactArgs(1),
		RunE: with(func(ctx context.Context, l *Lab, args []string) error {
			if err := client.New(l.Socket).UndefineMachine(ctx, args[0]); err != nil {
				return err
			}
			_, err := p.JSON(map[string]string{"name": args[0]})
			return err
		}),
	}
	return p.Group("machine", "Virtual machines of a lab", add, remove)
}
