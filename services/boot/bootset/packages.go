package bootset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// imagePackages is what a node image has beyond Debian's essential and required packages; make lock resolves it.
var imagePackages = []string{
	"apt", "usr-is-merged", "systemd", "systemd-sysv", "udev", "kmod", "etcd-server", "etcd-client", "iproute2", "nftables",
	"e2fsprogs", "util-linux", "jq", "curl", "ca-certificates", "openssl", "procps", "haproxy", "runc", "crun", "conntrack", "socat",
}

// download makes sure that every package lies in the cache folder with its digest, and returns their paths.
func (b *builder) download(ctx context.Context, packages []Package) ([]string, error) {
	folder := filepath.Join(b.Cache, "packages")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the package cache: %w", err)
	}
	var missing []Package
	paths := make([]string, len(packages))
	for i, p := range packages {
		paths[i] = filepath.Join(folder, p.file())
		sum, err := fileDigest(paths[i])
		if err != nil || sum != p.SHA256 {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return paths, nil
	}
	b.progress("packages", fmt.Sprintf("fetching %d of %d packages", len(missing), len(packages)))
	err := b.fetch(ctx, missing, folder)
	var tool *toolError
	if errors.As(err, &tool) && notFound.MatchString(tool.said) {
		// Perhaps apt's lists are old, or were never fetched on this machine.
		b.progress("packages", "renewing apt's lists")
		if _, err := run(ctx, command{args: []string{"apt-get", "-q", "update"}}); err != nil {
			return nil, fmt.Errorf("cannot renew apt's package lists: %w", err)
		}
		err = b.fetch(ctx, missing, folder)
	}
	if errors.As(err, &tool) {
		if m := notFound.FindStringSubmatch(tool.said); m != nil {
			return nil, fmt.Errorf("the package mirror no longer has a version of the lock file: %s; renew the lock with: make lock", strings.TrimSpace(m[1]))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot fetch packages: %w", err)
	}
	return paths, nil
}

var notFound = regexp.MustCompile(`(?m)^E: ((?:Version '.*' for '.*' was not found|Unable to locate package .*|Can't find a source to download version .*|Can't select .*).*)$`)

// fetch downloads into a fresh folder and moves what has the right digest into place.
func (b *builder) fetch(ctx context.Context, packages []Package, folder string) error {
	temp, err := b.tempDir("fetch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	args := []string{"apt-get", "-q", "-o", "APT::Sandbox::User=root", "download"}
	for _, p := range packages {
		args = append(args, fmt.Sprintf("%s:%s=%s", p.Name, b.debArch(p), p.Version))
	}
	if _, err := run(ctx, command{dir: temp, args: args}); err != nil {
		return err
	}
	for _, p := range packages {
		from := filepath.Join(temp, p.file())
		sum, err := fileDigest(from)
		if err != nil {
			return fmt.Errorf("apt-get fetched %s under another name: %w", p.Name, err)
		}
		if sum != p.SHA256 {
			return fmt.Errorf("package %s %s has SHA-256 %s, the lock file says %s", p.Name, p.Version, sum, p.SHA256)
		}
		if err := os.Rename(from, filepath.Join(folder, p.file())); err != nil {
			return fmt.Errorf("cannot keep package %s: %w", p.Name, err)
		}
	}
	return nil
}

// debArch is the architecture to ask apt for; packages for all architectures are listed under the machine's.
func (b *builder) debArch(p Package) string {
	if p.Arch == "all" {
		return "amd64"
	}
	return p.Arch
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Renew resolves the newest versions that this machine's apt offers, downloads them into config.Cache, and returns
// the lock. It runs apt-get update first.
func Renew(ctx context.Context, config Config, progress Progress) (Lock, error) {
	b, err := newBuilder(config, progress)
	if err != nil {
		return nil, err
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	b.progress("lock", "renewing apt's lists")
	if _, err := run(ctx, command{args: []string{"apt-get", "-q", "update"}}); err != nil {
		return nil, fmt.Errorf("cannot renew apt's package lists: %w", err)
	}
	required, err := b.required(ctx)
	if err != nil {
		return nil, err
	}
	lock := Lock{}
	groups := map[string][]string{GroupImage: append(required, imagePackages...)}
	for _, p := range []Profile{Virt, Metal} {
		groups[kernelGroup(p)] = []string{p.kernelPackage()}
	}
	for group, names := range groups {
		b.progress("lock", "resolving "+group)
		packages, err := b.resolve(ctx, names)
		if err != nil {
			return nil, err
		}
		if group != GroupImage {
			packages = slices.DeleteFunc(packages, func(p Package) bool { return !kernelFile.MatchString(p.Name) })
			if len(packages) != 1 {
				return nil, fmt.Errorf("package %s leads to %d kernels instead of one", names[0], len(packages))
			}
		}
		if lock[group], err = b.digests(ctx, packages); err != nil {
			return nil, err
		}
	}
	return lock, nil
}

var (
	kernelFile  = regexp.MustCompile(`^linux-image-[0-9]`)
	installLine = regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) .*\[([a-z0-9]+)\]\)`)
)

// required lists the packages that every Debian system has.
func (b *builder) required(ctx context.Context) ([]string, error) {
	out, err := run(ctx, command{args: append(b.aptEmpty("apt-cache"), "dumpavail")})
	if err != nil {
		return nil, err
	}
	var names []string
	for stanza := range strings.SplitSeq(string(out), "\n\n") {
		name, want := "", false
		for line := range strings.SplitSeq(stanza, "\n") {
			if v, ok := strings.CutPrefix(line, "Package: "); ok {
				name = v
			}
			want = want || line == "Essential: yes" || line == "Priority: required"
		}
		if want && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// aptEmpty is an apt program that believes nothing is installed.
func (b *builder) aptEmpty(program string) []string {
	return []string{program, "-o", "Dir::State::status=/dev/null", "-o", "APT::Install-Recommends=false", "-o", "Debug::NoLocking=1"}
}

// resolve lists what installing the named packages on an empty system would install.
func (b *builder) resolve(ctx context.Context, names []string) ([]Package, error) {
	out, err := run(ctx, command{args: append(append(b.aptEmpty("apt-get"), "-s", "install"), names...)})
	if err != nil {
		return nil, fmt.Errorf("cannot resolve the packages: %w", err)
	}
	var packages []Package
	for _, m := range installLine.FindAllStringSubmatch(string(out), -1) {
		packages = append(packages, Package{Name: m[1], Version: m[2], Arch: m[3]})
	}
	return packages, nil
}

// digests downloads packages and fills in what they hash to; apt has checked them against the signed indexes.
func (b *builder) digests(ctx context.Context, packages []Package) ([]Package, error) {
	temp, err := b.tempDir("lock")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	args := []string{"apt-get", "-q", "-o", "APT::Sandbox::User=root", "download"}
	for _, p := range packages {
		args = append(args, fmt.Sprintf("%s:%s=%s", p.Name, b.debArch(p), p.Version))
	}
	if _, err := run(ctx, command{dir: temp, args: args}); err != nil {
		return nil, fmt.Errorf("cannot fetch packages: %w", err)
	}
	for i := range packages {
		if packages[i].SHA256, err = fileDigest(filepath.Join(temp, packages[i].file())); err != nil {
			return nil, fmt.Errorf("apt-get fetched %s under another name: %w", packages[i].Name, err)
		}
	}
	return packages, nil
}
