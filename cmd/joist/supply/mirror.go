// Package supply has the commands around what clusters are made of: boot sets, the mirror, and frozen sets.
package supply

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// Wanted is an artifact that somebody names.
type Wanted struct {
	v1.MirrorEntry        // its digest is empty if that is left open
	By             string // what names it: "pack p"
}

// Program is what the commands need of the program that they are part of. All of it is required but Wanted, Download and Build.
type Program struct {
	Out, Err io.Writer
	Now      func() time.Time
	Client   func() *client.Client
	// Quiet reports whether the output is for programs.
	Quiet func() bool
	// JSON reports whether the output is for programs, and writes v if so.
	JSON func(v any) (bool, error)
	// Table writes rows for people; the first has the titles.
	Table func(rows [][]string)
	// Usage makes the error of a command line that makes no sense.
	Usage func(format string, args ...any) error
	// Pick gives the cluster that is meant: the one named, or the only one that there is.
	Pick func(ctx context.Context, named string) (string, error)
	// Clusters completes the names of clusters.
	Clusters cobra.CompletionFunc
	// Wanted lists what artifacts the packs of a cluster file name; nil where packs cannot be read.
	Wanted func(file string) ([]Wanted, error)
	// Download is what pull and add download through; nil for http.DefaultTransport.
	Download http.RoundTripper
	// Build builds a boot set and gives its folder; nil where none can be built.
	Build func(ctx context.Context, o BuildOptions, progress func(stage, detail string)) (folder string, err error)
}

// completionTime bounds how long completion asks the engine.
const completionTime = 2 * time.Second

func (p *Program) printf(format string, args ...any) { fmt.Fprintf(p.Out, format, args...) }

func must(err error) {
	if err != nil {
		panic("internal error: " + err.Error())
	}
}

// Command is joist mirror; group makes a command out of others.
func Command(group func(use, short string, commands ...*cobra.Command) *cobra.Command, p *Program) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List what the engine has for clusters",
		Example: "  joist mirror list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := p.Client().Mirror(cmd.Context())
			if err != nil {
				return err
			}
			return p.showMirror(entries)
		},
	}
	verify := &cobra.Command{
		Use: "verify", Short: "Read every file of the mirror and of the frozen sets again",
		Example: "  joist mirror verify", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.verifyMirror(cmd.Context()) },
	}
	var c v1.MirrorCollect
	gc := &cobra.Command{
		Use: "gc", Short: "Remove files that nothing names",
		Long: `gc removes files that no cluster, no boot set, no frozen set and no entry of the mirror names; uploads of the last hour stay.
With --unused it takes out entries, too, that no cluster and no frozen set uses.`,
		Example: "  joist mirror gc --dry-run\n  joist mirror gc --unused", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.collect(cmd.Context(), c) },
	}
	gc.Flags().BoolVar(&c.Unused, "unused", false, "also take out entries that no cluster and no frozen set uses")
	gc.Flags().BoolVar(&c.DryRun, "dry-run", false, "remove nothing; say what would be removed")
	return group("mirror", "What clusters are made of: files by digest, and frozen sets of them",
		list, p.mirrorAddCommand(), p.mirrorPullCommand(), verify, gc, p.freezeCommand(), p.setsCommand(), p.thawCommand(), p.exportCommand())
}

func (p *Program) showMirror(entries []v1.MirrorEntry) error {
	if done, err := p.JSON(entries); done {
		return err
	}
	rows := [][]string{{"NAME", "KIND", "VERSION", "ARCH", "SIZE", "DIGEST", "LICENCE", "USED BY"}}
	for _, e := range entries {
		rows = append(rows, []string{e.Name, e.Kind, e.Version, e.Arch, megabytes(e.Size), shortDigest(e.Digest), e.Licence, strings.Join(e.Used, " ")})
	}
	p.Table(rows)
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// shortDigest leaves out what people do not compare.
func shortDigest(d string) string { return d[:min(len(d), len("sha256-")+12)] }

func (p *Program) mirrorAddCommand() *cobra.Command {
	var e v1.MirrorEntry
	var manifest, sum string
	var replace bool
	c := &cobra.Command{
		Use: "add [FILE|FOLDER]", Short: "Give files to the engine, for clusters to use",
		Long: `add gives the engine a file and says what it is; or, from a manifest, many. Without a file it downloads what --url names on this
machine, and wants its checksum. A manifest is a JSON object whose "artifacts" are objects with name, kind, version, arch, file (relative
to the manifest; without one it is downloaded), url, sha256, size and licence; a folder is that of its manifest.json. A file that is not
what its sha256 says is refused, and nothing that the engine has is downloaded.`,
		Example: `  joist mirror add --kind bundle --name etcd --version 3.6.5 --licence Apache-2.0 etcd.squashfs
  joist mirror add --kind program --name runc --version 1.3.0 --licence Apache-2.0 --url https://example.net/runc.amd64 --sha256 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
  joist mirror add --manifest artifacts/current/manifest.json
  joist mirror add artifacts/current`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
					manifest, args = filepath.Join(args[0], "manifest.json"), nil
				}
			}
			switch {
			case manifest != "" && (len(args) > 0 || e.URL != ""), manifest == "" && len(args) == 0 && e.URL == "":
				return p.Usage("name either a file, --url URL with --sha256, or --manifest FILE; see joist mirror add --help")
			case manifest != "":
				return p.addManifest(cmd.Context(), manifest, replace)
			case e.Name == "" || e.Version == "" || e.Licence == "":
				return p.Usage("say what the file is: --name, --version and --licence")
			}
			if sum != "" {
				e.Digest = "sha256-" + strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(sum, "sha256:"), "sha256-"))
			}
			u := upload{Wanted: Wanted{e, "the command"}}
			if len(args) == 1 {
				u.path = args[0]
			} else if !checksum.MatchString(e.Digest) {
				return p.Usage("give the checksum of %s with --sha256, 64 hexadecimal digits from whoever publishes it: nothing else says that what comes over a network is the right file", e.URL)
			}
			return p.bring(cmd.Context(), []upload{u}, replace)
		},
	}
	f := c.Flags()
	f.StringVar(&manifest, "manifest", "", "a manifest of many files")
	f.StringVar(&e.Name, "name", "", "what the file is called in packs")
	f.StringVar(&e.Kind, "kind", "file", "file, program, image or bundle")
	f.StringVar(&e.Version, "version", "", "its version")
	f.StringVar(&e.Arch, "arch", "amd64", "amd64 or arm64")
	f.StringVar(&e.Licence, "licence", "", "its licence, an SPDX expression")
	f.StringVar(&e.URL, "url", "", "where it came from; without a file, where to download it")
	f.StringVar(&sum, "sha256", "", "its checksum, if it is known from elsewhere; a download has to have it")
	f.BoolVar(&replace, "replace", false, "take the place of another file of the same name, kind, version and architecture")
	must(c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"file", "program", "image", "bundle"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions([]string{"amd64", "arm64"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.MarkFlagFilename("manifest", "json"))
	return c
}

// checksum is a digest as the engine writes it.
var checksum = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// upload is a file with what is to be said of it. Its size may be open; so may its digest, unless it has to be downloaded first.
type upload struct {
	Wanted
	path string // empty for one that is to be downloaded, or that the engine has
}

func (p *Program) addManifest(ctx context.Context, manifest string, replace bool) error {
	data, err := os.ReadFile(manifest)
	if err != nil {
		return fmt.Errorf("cannot read the manifest: %w", err)
	}
	var m struct {
		Artifacts []struct {
			Name, Kind, Version, Arch, File, SHA256, Licence, URL string
			Size                                                  int64
		}
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("cannot read the manifest %s: %w", manifest, err)
	}
	if len(m.Artifacts) == 0 {
		return fmt.Errorf("the manifest %s names no artifacts", manifest)
	}
	var list []upload
	for _, e := range m.Artifacts {
		u := upload{Wanted: Wanted{v1.MirrorEntry{
			Kind: cmp.Or(e.Kind, "file"), Name: e.Name, Version: e.Version, Arch: e.Arch, Digest: "sha256-" + e.SHA256, Size: e.Size, Licence: e.Licence, URL: e.URL,
		}, "the manifest " + manifest}}
		switch file := filepath.FromSlash(e.File); {
		case !checksum.MatchString(u.Digest), file == "" && e.URL == "", file != "" && !filepath.IsLocal(file):
			return fmt.Errorf("the manifest %s: artifact %q needs a file below the manifest's folder or a url, and a sha256", manifest, e.Name)
		case file != "":
			u.path = filepath.Join(filepath.Dir(manifest), file)
		}
		list = append(list, u)
	}
	return p.bring(ctx, list, replace)
}

// bring adds files, and downloads before that those that neither this machine nor the engine has.
func (p *Program) bring(ctx context.Context, list []upload, replace bool) error {
	if !slices.ContainsFunc(list, func(u upload) bool { return u.path == "" }) {
		return p.add(ctx, list, replace) // a folder for downloads is not looked for
	}
	dir, err := os.MkdirTemp("", "joist-pull-")
	if err != nil {
		return fmt.Errorf("cannot keep downloads: %w", err)
	}
	defer os.RemoveAll(dir)
	for i := range list {
		u := &list[i]
		if u.path != "" {
			continue
		}
		switch there, err := p.Client().HasArtifact(ctx, u.Digest); {
		case err != nil:
			return err
		case there != nil && (u.Size == 0 || u.Size == there.Size):
			u.Size = there.Size
			continue
		}
		u.path = filepath.Join(dir, fmt.Sprint(i))
		if err := p.download(ctx, u.Wanted, u.path); err != nil {
			return err
		}
	}
	return p.add(ctx, list, replace)
}

// add uploads files and then enters them, all or none.
func (p *Program) add(ctx context.Context, list []upload, replace bool) error {
	in := v1.MirrorAdd{Replace: replace}
	for _, u := range list {
		e, err := p.put(ctx, u)
		if err != nil {
			return err
		}
		in.Entries = append(in.Entries, e)
	}
	if _, err := p.Client().AddToMirror(ctx, in); err != nil {
		return err
	}
	if done, err := p.JSON(in.Entries); done {
		return err
	}
	for _, e := range in.Entries {
		p.printf("%s %s %s (%s) is in the mirror, %s\n", e.Kind, e.Name, e.Version, e.Arch, e.Digest)
	}
	return nil
}

// put checks a file and uploads it, unless the engine has it.
func (p *Program) put(ctx context.Context, u upload) (v1.MirrorEntry, error) {
	if u.path == "" {
		return u.MirrorEntry, nil
	}
	f, err := os.Open(u.path)
	if err != nil {
		return u.MirrorEntry, fmt.Errorf("cannot add %s: %w", u.Name, err)
	}
	defer f.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, f)
	if err != nil {
		return u.MirrorEntry, fmt.Errorf("cannot add %s: %w", u.Name, err)
	}
	got := "sha256-" + hex.EncodeToString(hash.Sum(nil))
	switch {
	case u.Size > 0 && u.Size != size:
		return u.MirrorEntry, fmt.Errorf("cannot add %s: %s has %d bytes and should have %d; it is truncated, or another file: bring it again", u.Name, u.path, size, u.Size)
	case u.Digest != "" && u.Digest != got:
		return u.MirrorEntry, fmt.Errorf("cannot add %s: %s is %s and should be %s; it is damaged, or another file: bring it again", u.Name, u.path, got, u.Digest)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return u.MirrorEntry, fmt.Errorf("cannot add %s: %w", u.Name, err)
	}
	u.Digest, u.Size = got, size
	_, err = p.Client().PutArtifact(ctx, got, f, size)
	return u.MirrorEntry, err
}

func (p *Program) mirrorPullCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pull FILE", Short: "Download what a cluster file's packs name with a URL and a checksum",
		Long: `pull reads a cluster file and its packs on this machine, downloads each artifact that has a URL and a checksum and that the engine
does not have, or has damaged, verifies it, and gives it to the engine: all of them, or none if one fails. Until then they lie in a folder below
TMPDIR. What has no URL has to be brought with joist mirror add.`,
		Example: "  joist mirror pull demo.hcl", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if p.Wanted == nil {
				return errors.New("this joist cannot read packs yet")
			}
			wanted, err := p.Wanted(args[0])
			if err != nil {
				return err
			}
			return p.pull(cmd.Context(), wanted)
		},
	}
}

func (p *Program) pull(ctx context.Context, wanted []Wanted) error {
	have, err := p.Client().Mirror(ctx)
	if err != nil {
		return err
	}
	var list []upload
	var open []string
	for _, w := range wanted {
		there, err := p.has(ctx, have, w)
		switch {
		case err != nil:
			return err
		case there:
		case w.URL == "" || w.Digest == "":
			open = append(open, fmt.Sprintf("%s %s %s (%s)", w.Kind, w.Name, w.Version, w.Arch))
		default:
			list = append(list, upload{Wanted: w})
		}
	}
	if len(list) > 0 {
		if err := p.bring(ctx, list, false); err != nil {
			return err
		}
	} else if done, err := p.JSON([]v1.MirrorEntry{}); err != nil {
		return err
	} else if !done && len(open) == 0 {
		p.printf("nothing is to be downloaded: the mirror has what the packs name\n")
	}
	if len(open) > 0 {
		return fmt.Errorf("these have no URL with a checksum and have to be brought with joist mirror add: %s", strings.Join(open, ", "))
	}
	return nil
}

// has reports whether the engine has what is wanted: an entry in its list, and its file, whole.
func (p *Program) has(ctx context.Context, list []v1.MirrorEntry, w Wanted) (bool, error) {
	for _, e := range list {
		same := e.Kind == w.Kind && e.Name == w.Name && e.Version == w.Version && e.Arch == w.Arch
		if w.Digest == "" && same || w.Digest != "" && e.Digest == w.Digest {
			file, err := p.Client().HasArtifact(ctx, e.Digest)
			return file != nil, err
		}
	}
	return false, nil
}

func (p *Program) verifyMirror(ctx context.Context) error {
	list, err := p.Client().VerifyMirror(ctx)
	if err != nil {
		return err
	}
	bad := 0
	for _, f := range list {
		if f.Error != "" {
			bad++
		}
	}
	if done, err := p.JSON(list); !done {
		for _, f := range list {
			if f.Error != "" {
				p.printf("%s, %s: %s\n", f.Digest, strings.Join(f.What, ", "), f.Error)
			}
		}
		if bad == 0 {
			p.printf("%d files are what their digests say\n", len(list))
		}
	} else if err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d files are missing or damaged; joist mirror add brings them back, and joist mirror pull what packs name with a URL", bad, len(list))
	}
	return nil
}

func (p *Program) collect(ctx context.Context, c v1.MirrorCollect) error {
	done, err := p.Client().CollectMirror(ctx, c)
	if err != nil {
		return err
	}
	if is, err := p.JSON(done); is {
		return err
	}
	did := "removed"
	if c.DryRun {
		did = "would remove"
	}
	for _, e := range done.Entries {
		p.printf("%s the entry %s %s %s (%s)\n", did, e.Kind, e.Name, e.Version, e.Arch)
	}
	p.printf("%s %d files, %s\n", did, len(done.Files), megabytes(done.Bytes))
	return nil
}
