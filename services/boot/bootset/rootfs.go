package bootset

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// overlayFiles are copied over the installed system.
//
//go:embed all:rootfs
var overlayFiles embed.FS

// suite is the Debian release whose bootstrap script is used.
const suite = "bookworm"

// masked units and generators never start: no login on a console that carries logs, nothing that configures a network
// interface or renames one, no clock of its own, no session manager without a bus; and nothing that keeps, flushes or
// tidies what lies in memory only and ends with the boot, or mounts a file system for what a node does not have.
var masked = []string{
	"etc/systemd/system/apt-daily.timer",
	"etc/systemd/system/apt-daily-upgrade.timer",
	"etc/systemd/system/dpkg-db-backup.timer",
	"etc/systemd/system/systemd-tmpfiles-clean.timer",
	"etc/systemd/system/systemd-journal-flush.service",
	"etc/systemd/system/systemd-random-seed.service",
	"etc/systemd/system/systemd-user-sessions.service",
	"etc/systemd/system/systemd-remount-fs.service",
	"etc/systemd/system/modprobe@.service",
	"etc/systemd/system/sys-fs-fuse-connections.mount",
	"etc/systemd/system/sys-kernel-config.mount",
	"etc/systemd/system/sys-kernel-debug.mount",
	"etc/systemd/system/sys-kernel-tracing.mount",
	"etc/systemd/system/getty.target",
	"etc/systemd/system/systemd-logind.service",
	"etc/systemd/system/systemd-networkd.service",
	"etc/systemd/system/systemd-networkd.socket",
	"etc/systemd/system/systemd-network-generator.service",
	"etc/systemd/system/systemd-update-utmp.service",
	"etc/systemd/system/systemd-update-utmp-runlevel.service",
	"etc/systemd/system/systemd-firstboot.service",
	"etc/systemd/system-generators/systemd-getty-generator",
	// Generators run at each start and at each reload of units; only that of fstab finds something in a node.
	"etc/systemd/system-generators/systemd-cryptsetup-generator",
	"etc/systemd/system-generators/systemd-debug-generator",
	"etc/systemd/system-generators/systemd-gpt-auto-generator",
	"etc/systemd/system-generators/systemd-hibernate-resume-generator",
	"etc/systemd/system-generators/systemd-integritysetup-generator",
	"etc/systemd/system-generators/systemd-rc-local-generator",
	"etc/systemd/system-generators/systemd-run-generator",
	"etc/systemd/system-generators/systemd-system-update-generator",
	"etc/systemd/system-generators/systemd-sysv-generator",
	"etc/systemd/system-generators/systemd-veritysetup-generator",
	"etc/systemd/network/99-default.link",
}

func overlayDigest() (string, error) {
	values := []any{"overlay"}
	err := fs.WalkDir(overlayFiles, "rootfs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := overlayFiles.ReadFile(path)
		values = append(values, path, string(body))
		return err
	})
	return digestOf(values...), err
}

// root returns the folder of the installed system without kernel modules, building it if it is not cached.
func (b *builder) root(ctx context.Context, in inputs) (string, error) {
	cached := filepath.Join(b.Cache, "root-"+in.root[:16])
	if _, err := os.Stat(cached); err == nil {
		return cached, nil
	}
	debs, err := b.download(ctx, b.Lock[GroupImage])
	if err != nil {
		return "", err
	}
	temp, err := b.tempDir("root")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	mirror := filepath.Join(temp, "mirror")
	if err := b.mirror(ctx, mirror, debs); err != nil {
		return "", err
	}
	names := make([]string, 0, len(debs))
	for _, p := range b.Lock[GroupImage] {
		names = append(names, p.Name)
	}
	b.progress("root", fmt.Sprintf("installing %d packages", len(names)))
	root := filepath.Join(temp, "root")
	_, err = run(ctx, command{private: true, epoch: true, args: []string{
		"debootstrap", "--variant=minbase", "--merged-usr", "--no-check-gpg", "--include=" + strings.Join(names, ","), suite, root, "file://" + mirror,
	}})
	if err != nil {
		return "", fmt.Errorf("cannot install the node image's packages: %w", err)
	}
	if err := finishRoot(root); err != nil {
		return "", fmt.Errorf("cannot finish the node image: %w", err)
	}
	if err := os.Rename(root, cached); err != nil {
		return "", fmt.Errorf("cannot keep the node image's root: %w", err)
	}
	// Roots of older locks are large, and their images exist already.
	old, err := filepath.Glob(filepath.Join(b.Cache, "root-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		if dir != cached {
			_ = os.RemoveAll(dir) // only space is lost
		}
	}
	return cached, nil
}

// mirror lays out a local Debian archive of exactly the locked packages, so that debootstrap has no choice.
func (b *builder) mirror(ctx context.Context, folder string, debs []string) error {
	index := filepath.Join(folder, "dists", suite, "main/binary-amd64")
	pool := filepath.Join(folder, "pool")
	for _, d := range []string{index, pool} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	var packages strings.Builder
	for i, deb := range debs {
		// A colon in a file name, as an epoch would be, is not for debootstrap.
		name := fmt.Sprintf("%03d.deb", i)
		if err := linkOrCopy(deb, filepath.Join(pool, name)); err != nil {
			return err
		}
		control, err := run(ctx, command{args: []string{"dpkg-deb", "-f", deb}})
		if err != nil {
			return fmt.Errorf("cannot read package %s: %w", filepath.Base(deb), err)
		}
		info, err := os.Stat(deb)
		if err != nil {
			return err
		}
		fmt.Fprintf(&packages, "%s\nFilename: pool/%s\nSize: %d\nSHA256: %s\n\n",
			strings.TrimSpace(string(control)), name, info.Size(), b.Lock[GroupImage][i].SHA256)
	}
	if err := os.WriteFile(filepath.Join(index, "Packages"), []byte(packages.String()), 0o644); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(packages.String()))
	release := fmt.Sprintf("Suite: %[1]s\nCodename: %[1]s\nArchitectures: amd64\nComponents: main\nSHA256:\n %[2]s %[3]d main/binary-amd64/Packages\n",
		suite, hex.EncodeToString(sum[:]), packages.Len())
	return os.WriteFile(filepath.Join(folder, "dists", suite, "Release"), []byte(release), 0o644)
}

// leftovers are what installing leaves behind that differs from build to build, or that no node needs.
var leftovers = []string{
	"var/log/*", "var/cache/*", "var/lib/apt/lists/*", "var/tmp/*", "tmp/*", "run/*", "dev/*", "debootstrap", "root/.[a-z]*",
	"etc/*-", "etc/.pwd.lock", "etc/machine-id", "var/lib/dbus/machine-id", "etc/hostname", "etc/resolv.conf", "etc/mtab",
	"var/lib/dpkg/*-old", "var/lib/dpkg/lock*", "var/lib/dpkg/triggers/Lock", "var/lib/systemd/random-seed", "var/lib/systemd/catalog/database",
	"usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/lintian", "usr/share/zoneinfo/right", "usr/share/zoneinfo/posix",
	"etc/apt/sources.list", "etc/systemd/system/*.wants", "etc/systemd/system/*.requires", "etc/cron.*", "etc/init.d",
}

// finishRoot makes an installed system a node image's: nothing that identifies a machine or a build, our own files.
func finishRoot(root string) error {
	for _, pattern := range leftovers {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	if err := dropDocs(filepath.Join(root, "usr/share/doc")); err != nil {
		return err
	}
	if err := fixShadow(filepath.Join(root, "etc/shadow")); err != nil {
		return err
	}
	if err := copyOverlay(root); err != nil {
		return err
	}
	for _, path := range masked {
		if err := symlink("/dev/null", filepath.Join(root, path)); err != nil {
			return err
		}
	}
	links := map[string]string{
		"etc/systemd/system/multi-user.target.wants/joist-agent.service": "/etc/systemd/system/joist-agent.service",
		"etc/systemd/system/default.target":                              "/lib/systemd/system/multi-user.target",
		"etc/mtab":                                                       "../proc/self/mounts",
	}
	for path, target := range links {
		if err := symlink(target, filepath.Join(root, path)); err != nil {
			return err
		}
	}
	// Empty files: a machine id of its own is drawn at each boot. The stamps say that /usr was not updated since, or
	// systemd would rebuild caches at each boot.
	stamp := fmt.Sprintf("# Every file of this image has one time.\nTIMESTAMP_NSEC=%d\n", int64(imageEpoch)*1e9)
	for path, body := range map[string]string{
		"etc/machine-id": "", "etc/resolv.conf": "", "etc/hostname": "", "etc/apt/sources.list": "", "etc/.updated": stamp, "var/.updated": stamp,
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(body), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func symlink(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// dropDocs removes documentation but for copyright files, which redistribution asks for.
func dropDocs(doc string) error {
	return filepath.WalkDir(doc, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "copyright" {
			return err
		}
		return os.Remove(path)
	})
}

// shadowDate is the field of the day when a password was last changed: the day of the build.
var shadowDate = regexp.MustCompile(`(?m)^([^:\n]*:[^:\n]*:)\d*:`)

func fixShadow(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	day := fmt.Sprintf("${1}%d:", imageEpoch/86400)
	return os.WriteFile(path, shadowDate.ReplaceAll(b, []byte(day)), 0o640)
}

func copyOverlay(root string) error {
	return fs.WalkDir(overlayFiles, "rootfs", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(root, strings.TrimPrefix(path, "rootfs"))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		body, err := overlayFiles.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, body, 0o644)
	})
}
