package supply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
)

func (p *Program) freezeCommand() *cobra.Command {
	var cluster, folder string
	c := &cobra.Command{
		Use: "freeze NAME", Short: "Freeze everything that a cluster is made of, under a name",
		Long: `freeze records one immutable set of everything that a cluster's goal uses: artifacts, packs, and the boot set of its machines, each by
digest. With --folder it takes the files of a folder, too, such as the packages that a boot set was built from; links and empty
files are refused. A cluster file with frozen = "NAME" is made
of exactly these, whatever else there is by then.`,
		Example: "  joist mirror freeze winter --cluster demo\n  joist mirror freeze winter --cluster demo --folder boot/.cache/packages",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := p.Pick(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			in := v1.Freeze{Name: args[0], Cluster: name}
			if folder != "" {
				if in.Files, err = p.putFolder(cmd.Context(), folder); err != nil {
					return err
				}
			}
			set, err := p.Client().Freeze(cmd.Context(), in)
			if err != nil {
				return err
			}
			if done, err := p.JSON(set); done {
				return err
			}
			p.printf("frozen set %s, %s, has %d files; write frozen = %q into a cluster file to use it\n", set.Name, set.Digest, len(set.Parts), set.Name)
			return nil
		},
	}
	c.Flags().StringVar(&cluster, "cluster", "", "the cluster (default the only one)")
	c.Flags().StringVar(&folder, "folder", "", "a folder whose files belong to the set, too")
	must(c.RegisterFlagCompletionFunc("cluster", p.Clusters))
	must(c.MarkFlagDirname("folder"))
	return c
}

// putFolder uploads every file of a folder. A set keeps files by place and content alone, so a folder with anything else in it
// is refused before something is sent: what was made of it without the rest would be another thing.
func (p *Program) putFolder(ctx context.Context, folder string) ([]v1.FrozenFile, error) {
	root, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return nil, fmt.Errorf("cannot freeze the folder %s: %w", folder, err)
	}
	paths, err := plainFiles(root)
	if err != nil {
		return nil, fmt.Errorf("cannot freeze the folder %s: %w", folder, err)
	}
	list := make([]v1.FrozenFile, 0, len(paths))
	for _, path := range paths {
		e, err := p.put(ctx, upload{Wanted{MirrorEntry: v1.MirrorEntry{Name: path}}, filepath.Join(root, filepath.FromSlash(path))})
		if err != nil {
			return nil, fmt.Errorf("cannot freeze the folder %s: %w", folder, err)
		}
		list = append(list, v1.FrozenFile{Path: path, Digest: e.Digest, Size: e.Size})
	}
	return list, nil
}

// plainFiles lists the files below a folder by their slash-separated paths in it. Anything but folders and files with content is
// an error.
func plainFiles(root string) ([]string, error) {
	var list, others []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			others = append(others, relative+" is a symbolic link")
		case !d.Type().IsRegular():
			others = append(others, relative+" is no regular file")
		case info.Size() == 0:
			others = append(others, relative+" is empty")
		case !fs.ValidPath(relative):
			others = append(others, fmt.Sprintf("the name %q is not UTF-8", relative))
		default:
			list = append(list, relative)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(others) > 0:
		more := ""
		if n := len(others) - 1; n > 0 {
			more = fmt.Sprintf(", and %d more", n)
		}
		return nil, fmt.Errorf("a frozen set keeps files with content alone, and %s%s; name a folder of plain files: of a boot set's cache, its packages", others[0], more)
	case len(list) == 0:
		return nil, errors.New("there are no files in it")
	}
	return list, nil
}

func (p *Program) setsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sets [NAME]", Short: "List the frozen sets, or the files of one",
		Example: "  joist mirror sets\n  joist mirror sets winter", Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeSets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return p.showSet(cmd.Context(), args[0])
			}
			list, err := p.Client().FrozenSets(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := p.JSON(list); done {
				return err
			}
			rows := [][]string{{"SET", "DIGEST", "MADE", "OF CLUSTER", "USED BY"}}
			for _, s := range list {
				rows = append(rows, []string{s.Name, shortDigest(s.Digest), s.Made.Local().Format("2006-01-02 15:04"), s.Cluster, strings.Join(s.Used, " ")})
			}
			p.Table(rows)
			return nil
		},
	}
}

func (p *Program) showSet(ctx context.Context, name string) error {
	set, err := p.Client().FrozenSet(ctx, name)
	if err != nil {
		return err
	}
	if done, err := p.JSON(set); done {
		return err
	}
	rows := [][]string{{"FILE", "SIZE", "DIGEST"}}
	for _, p := range set.Parts {
		rows = append(rows, []string{p.Path, megabytes(p.Size), p.Digest})
	}
	p.Table(rows)
	return nil
}

func (p *Program) thawCommand() *cobra.Command {
	return &cobra.Command{
		Use: "thaw NAME", Short: "Forget a frozen set that no cluster is pinned to",
		Long:    `thaw forgets a frozen set. Its files stay until joist mirror gc finds that nothing else names them.`,
		Example: "  joist mirror thaw winter", Args: cobra.ExactArgs(1), ValidArgsFunction: p.completeSets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.Client().Thaw(cmd.Context(), args[0]); err != nil {
				return err
			}
			if done, err := p.JSON(map[string]string{"forgotten": args[0]}); done {
				return err
			}
			p.printf("frozen set %s is forgotten\n", args[0])
			return nil
		},
	}
}

func (p *Program) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export NAME FOLDER", Short: "Copy the files of a frozen set into a folder",
		Example: "  joist mirror export winter /media/usb/winter", Args: cobra.ExactArgs(2), ValidArgsFunction: p.completeSets,
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := p.Client().FrozenSet(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, part := range set.Parts {
				if err := p.export(cmd.Context(), part, args[1]); err != nil {
					return err
				}
			}
			if done, err := p.JSON(set); done {
				return err
			}
			p.printf("%d files are in %s\n", len(set.Parts), args[1])
			return nil
		},
	}
}

func (p *Program) export(ctx context.Context, part v1.FrozenFile, folder string) error {
	if !filepath.IsLocal(filepath.FromSlash(part.Path)) {
		return fmt.Errorf("cannot export %q: it leads out of the folder", part.Path)
	}
	path := filepath.Join(folder, filepath.FromSlash(part.Path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot export: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot export: %w", err)
	}
	return errors.Join(p.Client().Artifact(ctx, part.Digest, f), f.Close())
}

func (p *Program) completeSets(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var names []string
	if list, err := p.Client().FrozenSets(ctx); err == nil { // without an engine there is nothing to complete
		for _, s := range list {
			names = append(names, s.Name+"\tof cluster "+s.Cluster)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
