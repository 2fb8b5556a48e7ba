package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"joist/cmd/joist/layout"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"joist/cmd/joist/author"
	"joist/workflows/lang/diag"
)

func (a *app) serveCommand() *cobra.Command {
	var o ServeOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run an engine until it is told to stop",
		Long: `serve runs an engine: DHCP, TFTP, HTTP and DNS on one network interface, agents' connections, and the API on a Unix socket
with mode 0600. Everything durable is in the data folder; one engine at a time may use it. Stopping loses nothing.`,
		Example: "  joist serve --data /var/lib/joist --interface eth1 --subnet 10.77.0.0/24 --address 10.77.0.1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.Local.Serve == nil {
				return missing("serve")
			}
			if o.Data == "" {
				return usage("cannot serve: no data folder is named; add --data DIR")
			}
			if o.Interface == "" || o.Subnet == "" {
				return usage("name the interface towards the machines and its network: --interface NAME --subnet 10.77.0.0/24; or use joist lab up, which does")
			}
			o.Socket = a.api.Socket()
			return a.Local.Serve(cmd.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Data, "data", "", "folder of everything durable (required)")
	f.StringVar(&o.Interface, "interface", "", "network interface towards the machines")
	f.StringVar(&o.Subnet, "subnet", "", "its IPv4 network, such as 10.77.0.0/24")
	f.StringVar(&o.Address, "address", "", "the engine's own address in it (default the first one)")
	f.StringVar(&o.BootSets, "bootsets", "", "folder with boot sets, each in a folder of its own")
	f.StringVar(&o.RunDir, "run-dir", "", "the lab's run folder, to make virtual machines there")
	f.StringVar(&o.Bridge, "bridge", "", "bridge that virtual machines are attached to (default the interface)")
	f.BoolVar(&o.Moved, "moved", false, "serve although machines know the engine by another address; they have to boot again")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&o.LogJSON, "log-json", false, "log as JSON lines")
	must(c.MarkFlagDirname("data"))
	return c
}

func (a *app) packCommand() *cobra.Command {
	lockers := author.Lockers{Out: a.Out, Text: func() bool { return a.output != "json" }, JSON: func(v any) error { _, err := a.json(v); return err }, Table: layout.Table, Lock: a.Local.LockPacks}
	tools := a.author()
	c := group("pack", "Check packs and cluster files, test packs, lock their versions", append([]*cobra.Command{tools.PackCheckCommand(), tools.PackTestCommand()}, lockers.Commands()...)...)
	c.SuggestFor = []string{"check", "validate", "lint"}
	return c
}

// author gives the commands for authors what they need.
func (a *app) author() *author.Tools {
	ink := a.colour(a.Out)
	t := &author.Tools{
		Out: a.Out, Err: a.Err, Red: ink.Red, Green: ink.Green, Faint: ink.Faint, Table: layout.Table, Source: a.source, Usage: usage, Stopped: &ExitError{Code: Stopped},
		Text: func() bool { return a.output != "json" }, Simulate: a.Local.Simulate, TestPack: a.Local.TestPack, CheckPack: a.Local.Check, CheckCluster: a.Local.CheckCluster,
		Terminal: func() bool { _, _, ok := terminal(a.Err); return ok },
		JSON:     func(v any) error { _, err := a.json(v); return err },
	}
	if t.CheckPack == nil || t.CheckCluster == nil {
		t.CheckPack = func(string) (diag.Diagnostics, error) { return nil, missing("check packs") }
		t.CheckCluster = t.CheckPack
	}
	if t.Simulate == nil {
		t.Simulate = func(context.Context, author.Options) (*author.Simulated, error) { return nil, missing("simulate") }
	}
	if t.TestPack == nil {
		t.TestPack = func(context.Context, string, string) (*author.PackTests, error) { return nil, missing("test packs") }
	}
	return t
}

func (a *app) fmtCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use: "fmt [FILE|DIR...]", Short: "Bring packs and cluster files into their canonical form",
		Long:    `fmt rewrites the *.hcl files that it is given, or that lie in the folders that it is given (default the present one), and names those that it changed. With - it formats its input.`,
		Example: "  joist fmt content\n  joist fmt --check demo.hcl",
		RunE: func(_ *cobra.Command, args []string) error {
			if a.Local.Format == nil {
				return missing("format")
			}
			if slices.Equal(args, []string{"-"}) {
				src, err := io.ReadAll(io.LimitReader(a.In, 4<<20))
				if err != nil {
					return fmt.Errorf("cannot read the input: %w", err)
				}
				out, err := a.Local.Format("<stdin>", src)
				if err != nil {
					return err
				}
				if done, err := a.json(map[string]string{"text": string(out)}); done {
					return err
				}
				_, err = a.Out.Write(out)
				return err
			}
			if len(args) == 0 {
				args = []string{"."}
			}
			return a.format(args, check)
		},
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing; exit with 1 if a file is not in canonical form")
	return c
}

func (a *app) format(args []string, check bool) error {
	changed := []string{}
	var errs []error
	for _, arg := range args {
		files, err := hclFiles(arg)
		if err != nil {
			return err
		}
		for _, file := range files {
			did, err := a.formatFile(file, check)
			if err != nil {
				errs = append(errs, err) // all of them are shown together
			}
			if did {
				changed = append(changed, file)
				if a.output != "json" {
					a.printf("%s\n", file)
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if _, err := a.json(map[string][]string{"changed": changed}); err != nil {
		return err
	}
	if check && len(changed) > 0 {
		return fmt.Errorf("%d files are not in their canonical form; joist fmt brings them there", len(changed))
	}
	return nil
}

func (a *app) formatFile(file string, check bool) (changed bool, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return false, fmt.Errorf("cannot format: %w", err)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("cannot format: %w", err)
	}
	out, err := a.Local.Format(file, src)
	if err != nil || bytes.Equal(src, out) || check {
		return err == nil && !bytes.Equal(src, out), err
	}
	return true, replaceFile(file, out, info.Mode().Perm())
}

// hclFiles gives a file itself, or the *.hcl files below a folder.
func hclFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot format: %w; give *.hcl files, folders that hold some, or - for the input", err)
	case !info.IsDir() && filepath.Ext(path) != ".hcl":
		return nil, fmt.Errorf("cannot format %s: it is no *.hcl file; give some, or folders that hold some", path)
	case !info.IsDir():
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Ext(p) == ".hcl" {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot format: %w", err)
	}
	return files, nil
}
