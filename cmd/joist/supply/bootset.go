package supply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"joist/services/boot/bootset"
)

// BuildOptions is what joist bootset build was told.
type BuildOptions struct {
	Profile, Out, Cache, Agent, Firmware string
}

// BootSets is joist bootset; group makes a command out of others.
func BootSets(group func(use, short string, commands ...*cobra.Command) *cobra.Command, p *Program) *cobra.Command {
	var o BuildOptions
	build := &cobra.Command{
		Use: "build", Short: "Build a boot set: kernel, scout and node image",
		Example: "  joist bootset build --profile virt --out boot --agent bin/joist-agent", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.Build == nil {
				return errors.New("this joist cannot build boot sets yet")
			}
			if o.Agent == "" {
				return p.Usage("no agent is named: --agent FILE, the static joist-agent that becomes scout")
			}
			folder, err := p.Build(cmd.Context(), o, func(stage, detail string) {
				if !p.Quiet() {
					fmt.Fprintf(p.Err, "%s %-10s %s\n", p.Now().Format("15:04:05"), stage, detail)
				}
			})
			if err != nil {
				return err
			}
			return p.showBootSet(folder)
		},
	}
	f := build.Flags()
	f.StringVar(&o.Profile, "profile", "virt", "virt or metal")
	f.StringVar(&o.Out, "out", "boot", "folder that receives boot sets, each in a folder of its own")
	f.StringVar(&o.Cache, "cache", "", "folder of packages and intermediate results (default OUT/.cache)")
	f.StringVar(&o.Agent, "agent", "", "the static joist-agent (required)")
	f.StringVar(&o.Firmware, "firmware", "", "folder that becomes scout's /lib/firmware")
	must(build.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"virt", "metal"}, cobra.ShellCompDirectiveNoFileComp)))
	show := &cobra.Command{
		Use: "show DIR", Short: "Show a boot set, and check that its parts belong together",
		Example: "  joist bootset show boot/virt-3f2a", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return p.showBootSet(args[0]) },
	}
	list := &cobra.Command{
		Use: "list", Short: "List the boot sets that the engine has", Example: "  joist bootset list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sets, err := p.Client().BootSets(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := p.JSON(sets); done {
				return err
			}
			rows := [][]string{{"BOOT SET", "PROFILE", "KERNEL", ""}}
			for _, s := range sets {
				note := ""
				if s.Default {
					note = "default"
				}
				rows = append(rows, []string{s.Digest, s.Profile, s.Kernel, note})
			}
			p.Table(rows)
			return nil
		},
	}
	push := &cobra.Command{
		Use: "push DIR", Short: "Give a boot set to the engine",
		Example: "  joist bootset push boot/virt-3f2a", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.pushBootSet(cmd.Context(), args[0]) },
	}
	return group("bootset", "Build boot sets and look at them", build, show, list, push)
}

func (p *Program) showBootSet(folder string) error {
	s, err := bootset.Open(folder)
	if err != nil {
		return err
	}
	if done, err := p.JSON(s); done {
		return err
	}
	rows := [][]string{{"boot set", s.Digest}, {"folder", s.Folder}, {"profile", string(s.Profile)}, {"kernel", s.KernelVersion}, {"scout's modules", fmt.Sprint(s.ScoutModules)}}
	for _, f := range []bootset.File{s.Kernel, s.Initrd, s.Image} {
		rows = append(rows, []string{f.File, fmt.Sprintf("%.1f MB  sha256-%s", float64(f.Size)/1e6, f.SHA256)})
	}
	p.Table(rows)
	return nil
}

func (p *Program) pushBootSet(ctx context.Context, folder string) error {
	s, err := bootset.Open(folder)
	if err != nil {
		return err
	}
	for _, f := range []bootset.File{s.Kernel, s.Initrd, s.Image} {
		if err := p.push(ctx, s.Path(f), f); err != nil {
			return err
		}
	}
	manifest, err := os.ReadFile(filepath.Join(folder, "manifest.json"))
	if err != nil {
		return fmt.Errorf("cannot read the boot set: %w", err)
	}
	set, err := p.Client().RegisterBootSet(ctx, manifest)
	if err != nil {
		return err
	}
	if done, err := p.JSON(set); done {
		return err
	}
	p.printf("boot set %s is registered\n", set.Digest)
	return nil
}

func (p *Program) push(ctx context.Context, path string, f bootset.File) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot read the boot set: %w", err)
	}
	defer file.Close()
	_, err = p.Client().PutArtifact(ctx, "sha256-"+f.SHA256, file, f.Size)
	return err
}
