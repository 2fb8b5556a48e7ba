package artifacts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what to build, from where and to where.
type Config struct {
	// Source is this package's folder with the module cluster in it. Required.
	Source string
	// Out receives builds, each in a folder of its own, and the link "current" to the newest. Required.
	Out string
	// Cache keeps finished programs between builds, and the lock; Out/.cache where empty.
	Cache string
	// Arch is Go's name of the architecture to build for; this machine's where empty. Versions stamped into programs of
	// another architecture are not checked, for they do not run.
	Arch string
	// Go and Squash are the commands go and mksquashfs; found in PATH where empty.
	Go, Squash string
	// Progress is told what happens, the stage in one word and the detail in one line. It may be nil.
	Progress func(stage, detail string)
}

// currentName is the link to the newest build.
const currentName = "current"

// builder is one run of Build.
type builder struct {
	Config
}

func newBuilder(config Config) (*builder, error) {
	if config.Source == "" || config.Out == "" {
		return nil, errors.New("cannot build artifacts: the source and an output folder are needed")
	}
	if config.Cache == "" {
		config.Cache = filepath.Join(config.Out, ".cache")
	}
	for _, dir := range []*string{&config.Source, &config.Out, &config.Cache} {
		var err error
		if *dir, err = filepath.Abs(*dir); err != nil {
			return nil, err
		}
	}
	if config.Arch == "" {
		config.Arch = runtime.GOARCH
	}
	if config.Go == "" {
		config.Go = "go"
	}
	if config.Squash == "" {
		config.Squash = "mksquashfs"
	}
	if config.Progress == nil {
		config.Progress = func(string, string) {}
	}
	return &builder{Config: config}, nil
}

// Build builds what the source describes, or returns what equal inputs built before; "current" leads to it either way.
// Builds that share a cache wait for each other.
func Build(ctx context.Context, config Config) (*Set, error) {
	b, err := newBuilder(config)
	if err != nil {
		return nil, err
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	in, err := b.inputs(ctx)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(b.Out, in.set[:16])
	if set, err := Open(folder); err == nil && set.Inputs == in.set {
		b.Progress("done", "unchanged: "+folder)
		return set, b.point(folder)
	}
	start := time.Now()
	if err := b.build(ctx, in, folder); err != nil {
		return nil, err
	}
	set, err := Open(folder)
	if err != nil {
		return nil, err
	}
	b.Progress("done", fmt.Sprintf("%s in %s", folder, time.Since(start).Round(100*time.Millisecond)))
	return set, b.point(folder)
}

// build makes the files in a folder beside the final one, and renames it.
func (b *builder) build(ctx context.Context, in inputs, folder string) error {
	compiled, err := b.compile(ctx, in)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(b.Out, ".new-")
	if err != nil {
		return fmt.Errorf("cannot write into the output folder: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	m := Manifest{Inputs: in.set, Go: in.goVersion}
	for _, step := range []func(context.Context, inputs, string, string) ([]Artifact, error){b.programs, b.ownPrograms, b.images, b.bundles} {
		made, err := step(ctx, in, compiled, temp)
		if err != nil {
			return err
		}
		m.Artifacts = append(m.Artifacts, made...)
	}
	if err := m.write(temp); err != nil {
		return err
	}
	if err := os.RemoveAll(folder); err != nil { // one that Open refused
		return fmt.Errorf("cannot replace a damaged build: %w", err)
	}
	if err := os.Rename(temp, folder); err != nil {
		return fmt.Errorf("cannot put the build into place: %w", err)
	}
	return nil
}

// programs puts what was compiled into the build.
func (b *builder) programs(_ context.Context, in inputs, compiled, temp string) ([]Artifact, error) {
	licences := map[string]string{}
	for _, c := range components() {
		licences[c.module] = c.licence
	}
	var made []Artifact
	for _, p := range programs() {
		a := Artifact{
			Name: p.name, Kind: Program, Version: in.versions[p.module], Arch: b.Arch, File: p.folder + "/" + p.name,
			Licence: licences[p.module], Source: p.module + "@v" + in.versions[p.module],
		}
		if err := link(filepath.Join(compiled, p.name), filepath.Join(temp, a.File)); err != nil {
			return nil, err
		}
		made = append(made, a)
	}
	return made, nil
}

// ownPrograms compiles pause and echo.
func (b *builder) ownPrograms(ctx context.Context, _ inputs, _, temp string) ([]Artifact, error) {
	b.Progress("compile", strings.Join(own(), ", "))
	var made []Artifact
	for _, name := range own() {
		a := Artifact{Name: name, Kind: Program, Version: ownVersion, Arch: b.Arch, File: "bin/" + name, Licence: ownLicence}
		args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(temp, a.File), "./" + name}
		if _, err := b.goTool(ctx, b.Source, args...); err != nil {
			return nil, fmt.Errorf("cannot compile %s: %w", name, err)
		}
		made = append(made, a)
	}
	return made, nil
}

// inputs are what results are cached by, and what they are made from.
type inputs struct {
	goVersion string
	versions  map[string]string // by module, without the v
	flags     string            // of the linker
	programs  string            // digest of what the programs of others are compiled from
	set       string            // digest of all
}

func (b *builder) inputs(ctx context.Context) (inputs, error) {
	cluster := filepath.Join(b.Source, "cluster")
	said, err := b.goTool(ctx, cluster, "env", "GOVERSION")
	if err != nil {
		return inputs{}, fmt.Errorf("cannot ask Go for its version: %w", err)
	}
	in := inputs{goVersion: strings.TrimSpace(string(said))}
	if in.versions, err = b.versions(ctx, cluster); err != nil {
		return inputs{}, err
	}
	if in.flags, err = linkerFlags(in.versions); err != nil {
		return inputs{}, err
	}
	module, err := sourceDigest(cluster, "go.mod", "go.sum", "coredns/*.go")
	if err != nil {
		return inputs{}, err
	}
	source, err := sourceDigest(b.Source, "*.go", "pause/*.go", "echo/*.go")
	if err != nil {
		return inputs{}, err
	}
	var names []string
	for _, p := range programs() {
		names = append(names, p.name+" "+p.pkg)
	}
	in.programs = digestOf("programs", in.goVersion, b.Arch, module, in.flags, tags, names)
	squash, err := b.squashVersion(ctx)
	if err != nil {
		return inputs{}, err
	}
	in.set = digestOf("set", in.programs, source, squash)
	return in, nil
}

// versions reads what the module cluster requires.
func (b *builder) versions(ctx context.Context, cluster string) (map[string]string, error) {
	said, err := b.goTool(ctx, cluster, "mod", "edit", "-json")
	if err != nil {
		return nil, fmt.Errorf("cannot read cluster/go.mod: %w", err)
	}
	var mod struct {
		Require []struct {
			Path, Version string
			Indirect      bool
		}
	}
	if err := json.Unmarshal(said, &mod); err != nil {
		return nil, fmt.Errorf("cannot read cluster/go.mod: %w", err)
	}
	versions := map[string]string{}
	for _, r := range mod.Require {
		versions[r.Path] = strings.TrimPrefix(r.Version, "v")
	}
	return versions, nil
}

// sourceDigest is a digest of the files in dir that match the patterns; tests do not count.
func sourceDigest(dir string, patterns ...string) (string, error) {
	var all []string
	for _, p := range patterns {
		found, err := fs.Glob(os.DirFS(dir), p)
		if err != nil {
			return "", err
		}
		found = slices.DeleteFunc(found, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
		if len(found) == 0 {
			return "", fmt.Errorf("cannot find the source: %s has no %s", dir, p)
		}
		for _, name := range found {
			sum, err := fileDigest(filepath.Join(dir, name))
			if err != nil {
				return "", err
			}
			all = append(all, name+" "+sum)
		}
	}
	return digestOf(all), nil
}

// digestOf hashes values by their JSON form.
func digestOf(values ...any) string {
	h := sha256.New()
	e := json.NewEncoder(h)
	for _, v := range values {
		if err := e.Encode(v); err != nil {
			panic("internal error: cannot encode a build input: " + err.Error()) // all are plain data
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// point makes "current" lead to a build, in one step.
func (b *builder) point(folder string) error {
	temp := filepath.Join(b.Out, ".current")
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(folder), temp); err != nil {
		return fmt.Errorf("cannot point to the build: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(b.Out, currentName)); err != nil {
		return fmt.Errorf("cannot point to the build: %w", err)
	}
	return nil
}

// lock keeps other builds out, and clears what interrupted ones left half made. Compiled programs are not among that:
// Go looks at them and links what is missing or old.
func (b *builder) lock(ctx context.Context) (unlock func(), err error) {
	for _, dir := range []string{b.Out, b.Cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("cannot make the build's folders: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(b.Cache, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the artifact cache: %w", err)
	}
	for waited := false; ; waited = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("cannot lock the artifact cache: %w", err)
		}
		if !waited {
			b.Progress("wait", "another build uses this cache")
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(300 * time.Millisecond):
		}
	}
	left, err := filepath.Glob(filepath.Join(b.Out, ".new-*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot clear what an interrupted build left: %w", err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// link makes to a further name of from, and its folder; a copy where they lie on different file systems.
func link(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	err := os.Link(from, to)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) {
		return copyFile(from, to)
	}
	return err
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	body, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, body, info.Mode().Perm())
}
