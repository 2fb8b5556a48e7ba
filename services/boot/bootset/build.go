package bootset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Profile says for which machines a boot set is.
type Profile string

// The two profiles.
const (
	Virt  Profile = "virt"  // virtual machines: Debian's cloud kernel, a handful of drivers
	Metal Profile = "metal" // real machines: Debian's kernel, every wired network, storage, TPM and IPMI driver
)

func (p Profile) kernelPackage() string {
	if p == Metal {
		return "linux-image-amd64"
	}
	return "linux-image-cloud-amd64"
}

// ParseProfile reads a profile's name.
func ParseProfile(s string) (Profile, error) {
	switch p := Profile(s); p {
	case Virt, Metal:
		return p, nil
	}
	return "", fmt.Errorf("%q is not a boot set profile; there are virt and metal", s)
}

// Config says what to build.
type Config struct {
	// Profile is virt where empty.
	Profile Profile
	// Out receives boot sets, each in a folder of its own.
	Out string
	// Cache keeps packages and intermediate results between builds; several Outs may share it. Required.
	Cache string
	// Agent is the static joist-agent that becomes scout. Required by Build.
	Agent string
	// Firmware is a folder whose content becomes scout's /lib/firmware. None where empty.
	Firmware string
	// Lock is DefaultLock where nil.
	Lock Lock
}

// Progress is told what a build does: the stage in one word, and the detail in one line. It may be nil.
type Progress func(stage, detail string)

// recipe changes whenever the code below makes other files from equal inputs.
const recipe = "1"

// imageEpoch is the time of every file in an image and of the image itself, in seconds since 1970. One fixed time for
// all keeps systemd from taking the system for one whose /usr was just updated.
const imageEpoch = 1767225600

// builder is one run of Build or Renew.
type builder struct {
	Config
	progress Progress
}

func newBuilder(config Config, progress Progress) (*builder, error) {
	if config.Profile == "" {
		config.Profile = Virt
	}
	if _, err := ParseProfile(string(config.Profile)); err != nil {
		return nil, err
	}
	if config.Cache == "" {
		return nil, errors.New("cannot build a boot set: no cache folder is configured")
	}
	if progress == nil {
		progress = func(string, string) {}
	}
	if config.Lock == nil {
		lock, err := DefaultLock()
		if err != nil {
			return nil, err
		}
		config.Lock = lock
	}
	var err error
	if config.Cache, err = filepath.Abs(config.Cache); err != nil {
		return nil, err
	}
	if config.Out, err = filepath.Abs(config.Out); err != nil {
		return nil, err
	}
	if err := checkTools(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(config.Cache, "tmp"), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the cache folder: %w", err)
	}
	return &builder{Config: config, progress: progress}, nil
}

// Build builds a boot set below config.Out, or returns the one that equal inputs built before; its manifest is the newest
// there either way. Builds that share a
// cache wait for each other; what an interrupted build left behind is removed.
func Build(ctx context.Context, config Config, progress Progress) (*Set, error) {
	if config.Agent == "" || config.Out == "" {
		return nil, errors.New("cannot build a boot set: the agent's file and an output folder are needed")
	}
	b, err := newBuilder(config, progress)
	if err != nil {
		return nil, err
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	inputs, err := b.inputs(ctx)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(b.Out, string(b.Profile)+"-"+inputs.set[:16])
	if set, err := Open(folder); err == nil {
		now := time.Now() // whoever looks for the set that was asked for last finds it by its manifest's time
		if err := os.Chtimes(filepath.Join(folder, manifestName), now, now); err != nil {
			return nil, fmt.Errorf("cannot touch the boot set: %w", err)
		}
		b.progress("done", "unchanged: "+set.Digest)
		return set, nil
	}
	start := time.Now()
	if err := b.build(ctx, inputs, folder); err != nil {
		return nil, err
	}
	set, err := Open(folder)
	if err != nil {
		return nil, err
	}
	b.progress("done", fmt.Sprintf("%s in %s", set.Digest, time.Since(start).Round(100*time.Millisecond)))
	return set, nil
}

// build makes the files in a temporary folder beside the set's, and renames it.
func (b *builder) build(ctx context.Context, inputs inputs, folder string) error {
	kernel, err := b.kernel(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(kernel.folder)
	image, err := b.image(ctx, inputs, kernel)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return fmt.Errorf("cannot make the output folder: %w", err)
	}
	temp, err := os.MkdirTemp(b.Out, ".new-")
	if err != nil {
		return fmt.Errorf("cannot write into the output folder: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	b.progress("initramfs", "packing scout")
	modules, err := b.initramfs(ctx, kernel, filepath.Join(temp, initrdName))
	if err != nil {
		return err
	}
	if err := linkOrCopy(kernel.image, filepath.Join(temp, kernelName)); err != nil {
		return err
	}
	if err := linkOrCopy(image, filepath.Join(temp, imageName)); err != nil {
		return err
	}
	m := Manifest{Format: manifestFormat, Profile: b.Profile, KernelVersion: kernel.version, Inputs: inputs.set, ScoutModules: modules}
	if err := m.write(temp); err != nil {
		return err
	}
	if err := os.RemoveAll(folder); err != nil { // a set that Open refused
		return fmt.Errorf("cannot replace the damaged boot set: %w", err)
	}
	if err := os.Rename(temp, folder); err != nil {
		return fmt.Errorf("cannot put the boot set into place: %w", err)
	}
	return nil
}

// inputs are the digests by which results are cached.
type inputs struct {
	root  string // the unpacked root without kernel modules
	image string
	set   string
}

func (b *builder) inputs(ctx context.Context) (inputs, error) {
	for _, group := range []string{GroupImage, kernelGroup(b.Profile)} {
		if len(b.Lock[group]) == 0 {
			return inputs{}, fmt.Errorf("the package lock has no group %q; renew it with: make lock", group)
		}
	}
	agent, err := fileDigest(b.Agent)
	if err != nil {
		return inputs{}, fmt.Errorf("cannot read the agent: %w", err)
	}
	firmware, err := treeDigest(b.Firmware)
	if err != nil {
		return inputs{}, fmt.Errorf("cannot read the firmware folder: %w", err)
	}
	packer, err := run(ctx, command{args: []string{"mksquashfs", "-version"}})
	if err != nil {
		// Some versions of mksquashfs exit 1 after printing their version.
		var tool *toolError
		if !errors.As(err, &tool) {
			return inputs{}, err
		}
		packer = []byte(tool.said)
	}
	version, _, _ := strings.Cut(string(packer), "\n")
	overlay, err := overlayDigest()
	if err != nil {
		return inputs{}, err
	}
	var in inputs
	in.root = digestOf("root", recipe, overlay, b.Lock[GroupImage], masked)
	in.image = digestOf("image", in.root, b.Lock[kernelGroup(b.Profile)], version, squashArgs)
	in.set = digestOf("set", in.image, agent, firmware, b.Profile, scoutModules(b.Profile))
	return in, nil
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

// lock keeps other builds out of the cache, and clears what interrupted ones left there.
func (b *builder) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(b.Cache, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the boot set cache: %w", err)
	}
	for waited := false; ; waited = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("cannot lock the boot set cache: %w", err)
		}
		if !waited {
			b.progress("wait", "another build uses this cache")
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(300 * time.Millisecond):
		}
	}
	// Tools run in mount namespaces of their own, so nothing is mounted below what is removed here.
	temp := filepath.Join(b.Cache, "tmp")
	if err = os.RemoveAll(temp); err == nil {
		err = os.MkdirAll(temp, 0o755) // a build that waits may have made it
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot clear the boot set cache: %w", err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// tempDir makes a folder that the next build removes if this one does not.
func (b *builder) tempDir(name string) (string, error) {
	dir, err := os.MkdirTemp(filepath.Join(b.Cache, "tmp"), name+"-")
	if err != nil {
		return "", fmt.Errorf("cannot make a temporary folder: %w", err)
	}
	return dir, os.Chmod(dir, 0o755)
}
