// Package lab makes the network that virtual machines are racked in: a network namespace with a bridge, without a link
// to the host, without forwarding and without a firewall rule, so that a lab changes nothing about the host's network
// and many labs exist side by side. The engine is started inside the namespace and never changes it.
//
// A lab belongs to a data folder, which names it; nothing but that path is needed to take it down again, whatever was
// killed in between.
package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"joist/providers/qemu/process"
)

// Bridge is the name of the bridge in every lab's namespace.
const Bridge = "joist0"

// Config says which lab. Data is required.
type Config struct {
	Data   string       // the engine's data folder; need not exist
	Subnet netip.Prefix // IPv4, at most /29 long; 10.77.0.0/24 if zero. It exists in the namespace only: labs may have the same one
	Root   string       // folder of all labs' run folders, at most 40 bytes; "/run/joist" if empty
}

// Lab is one lab. Its methods may be used from several processes; Up and Down exclude each other by a file lock.
type Lab struct {
	data   string
	id     string
	root   string
	subnet netip.Prefix
}

// Open names the lab of a data folder. It changes nothing.
func Open(cfg Config) (*Lab, error) {
	if cfg.Data == "" {
		return nil, errors.New("lab: no data folder is named")
	}
	data, err := filepath.Abs(cfg.Data)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if !cfg.Subnet.IsValid() {
		cfg.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, 0}), 24)
	}
	if !cfg.Subnet.Addr().Is4() || cfg.Subnet.Bits() > 29 || cfg.Subnet != cfg.Subnet.Masked() {
		return nil, fmt.Errorf("lab: %s is no IPv4 network of at least 8 addresses", cfg.Subnet)
	}
	if cfg.Root == "" {
		cfg.Root = "/run/joist"
	}
	if !filepath.IsAbs(cfg.Root) || len(cfg.Root) > 40 { // sockets in it must keep within 107 bytes
		return nil, fmt.Errorf("lab: the run folder %q is not absolute, or longer than 40 bytes", cfg.Root)
	}
	sum := sha256.Sum256([]byte(data))
	return &Lab{data: data, id: hex.EncodeToString(sum[:4]), root: filepath.Clean(cfg.Root), subnet: cfg.Subnet}, nil
}

// Name is the network namespace: "joist-" and 8 hexadecimal digits of the data folder's path.
func (l *Lab) Name() string { return "joist-" + l.id }

// RunDir is the folder of the lab's sockets and process records.
func (l *Lab) RunDir() string { return filepath.Join(l.root, l.id) }

// Pids is the folder of the lab's process records (package process); Down ends every process recorded there.
func (l *Lab) Pids() string { return filepath.Join(l.RunDir(), "pids") }

// Subnet is the lab's network.
func (l *Lab) Subnet() netip.Prefix { return l.subnet }

// Address is the engine's address on the bridge: the first one of the network.
func (l *Lab) Address() netip.Addr { return l.subnet.Addr().Next() }

// marker is the file in the run folder that says whose it is.
type marker struct {
	Data   string       `json:"data"`
	Subnet netip.Prefix `json:"subnet"`
}

func (l *Lab) markerPath() string { return filepath.Join(l.RunDir(), "lab.json") }

func (l *Lab) readMarker() (marker, error) {
	var m marker
	raw, err := os.ReadFile(l.markerPath())
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%s is damaged: %w", l.markerPath(), err)
	}
	return m, nil
}

// IsUp tells whether the lab exists whole.
func (l *Lab) IsUp() bool {
	m, err := l.readMarker()
	return err == nil && m.Data == l.data && l.namespaced()
}

func (l *Lab) namespaced() bool {
	_, err := os.Stat(filepath.Join("/run/netns", l.Name()))
	return err == nil
}

// Up makes the lab. One that is up already is left alone; what is left of one that went down half-way is taken away
// first. It needs root and iproute2.
func (l *Lab) Up(ctx context.Context) error {
	if err := ready(); err != nil {
		return err
	}
	release, err := l.exclude(ctx)
	if err != nil {
		return err
	}
	defer release()
	m, err := l.readMarker()
	switch {
	case err == nil && m.Data != l.data:
		return fmt.Errorf("the lab %s belongs to the data folder %s; choose another path than %s", l.Name(), m.Data, l.data)
	case err == nil && l.namespaced() && m.Subnet != l.subnet:
		return fmt.Errorf("the lab %s is up with the network %s, not %s: take it down first", l.Name(), m.Subnet, l.subnet)
	case err == nil && l.namespaced():
		return nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	}
	if err := l.down(ctx); err != nil {
		return fmt.Errorf("cannot clear what is left of the lab: %w", err)
	}
	if err := l.build(ctx); err != nil {
		return errors.Join(err, l.down(context.WithoutCancel(ctx)))
	}
	return nil
}

// build makes namespace, bridge and, last, the marker that says the lab is whole.
func (l *Lab) build(ctx context.Context) error {
	if err := os.MkdirAll(l.Pids(), 0o700); err != nil {
		return fmt.Errorf("cannot make the run folder: %w", err)
	}
	ns := l.Name()
	mac := sha256.Sum256([]byte("joist bridge\x00" + l.data))
	steps := [][]string{
		{"netns", "add", ns},
		// A new namespace takes the host's forwarding over. IPv6 would only add noise: no part of the lab speaks it.
		{"netns", "exec", ns, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward" +
			"; for i in all default; do f=/proc/sys/net/ipv6/conf/$i/disable_ipv6; [ ! -e $f ] || echo 1 >$f; done"},
		{"-n", ns, "link", "set", "lo", "up"},
		// A bridge without an address of its own takes its ports' lowest one, and changes it as machines come and go.
		{"-n", ns, "link", "add", Bridge, "address", fmt.Sprintf("02:%x:%x:%x:%x:%x", mac[0], mac[1], mac[2], mac[3], mac[4]),
			"type", "bridge", "stp_state", "0", "forward_delay", "0"},
		{"-n", ns, "address", "add", netip.PrefixFrom(l.Address(), l.subnet.Bits()).String(), "dev", Bridge},
		{"-n", ns, "link", "set", Bridge, "up"},
	}
	for _, args := range steps {
		if _, err := ip(ctx, args...); err != nil {
			return fmt.Errorf("cannot build the lab's network: %w", err)
		}
	}
	// Commands in the namespace ask the engine for names: ip puts this file in the place of theirs (ip-netns(8)).
	if err := os.MkdirAll(l.resolver(), 0o755); err != nil {
		return fmt.Errorf("cannot give the lab's commands a name server: %w", err)
	}
	if err := os.WriteFile(filepath.Join(l.resolver(), "resolv.conf"), fmt.Appendf(nil, "nameserver %s\n", l.Address()), 0o644); err != nil {
		return fmt.Errorf("cannot give the lab's commands a name server: %w", err)
	}
	raw, err := json.Marshal(marker{Data: l.data, Subnet: l.subnet})
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.markerPath(), raw, 0o600); err != nil {
		return fmt.Errorf("cannot mark the lab as made: %w", err)
	}
	return nil
}

// Command prepares a command to be run inside the lab. The process that is started becomes the command: their process
// ids are the same.
func (l *Lab) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	if err := ready(); err != nil {
		return nil, err
	}
	if len(argv) == 0 {
		return nil, errors.New("lab: no command is given")
	}
	if !l.IsUp() {
		return nil, fmt.Errorf("the lab of %s is not up", l.data)
	}
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.Name()}, argv...)...), nil
}

// Service is a long-running program of the lab: the engine.
type Service struct {
	Name string // names its record; a file name
	Argv []string
	Env  []string // as for os/exec; the caller's environment if nil
	Log  string   // file that takes both its outputs, appended to
}

// Start runs a program inside the lab that outlives the caller: in a session of its own, recorded for Down. The
// returned command may be waited for, and need not be.
func (l *Lab) Start(ctx context.Context, s Service) (*exec.Cmd, process.ID, error) {
	cmd, err := l.Command(context.WithoutCancel(ctx), s.Argv...)
	if err != nil {
		return nil, process.ID{}, err
	}
	out, err := os.OpenFile(s.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, process.ID{}, fmt.Errorf("cannot open the log of %s: %w", s.Name, err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, s.Env
	if err := process.Detach(cmd); err != nil {
		return nil, process.ID{}, err
	}
	if err := cmd.Start(); err != nil {
		return nil, process.ID{}, fmt.Errorf("cannot start %s: %w", s.Name, err)
	}
	id, err := process.Find(cmd.Process.Pid)
	if err == nil {
		err = process.Save(l.Pids(), s.Name, id)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, process.ID{}, fmt.Errorf("cannot start %s: %w", s.Name, err)
	}
	return cmd, id, nil
}

// Down ends every process of the lab and removes its namespace and run folder, in whatever state they are. The data
// folder stays. A lab that does not exist is no error.
func (l *Lab) Down(ctx context.Context) error {
	if err := ready(); err != nil {
		return err
	}
	release, err := l.exclude(ctx)
	if err != nil {
		return err
	}
	defer release()
	m, err := l.readMarker()
	if err == nil && m.Data != l.data {
		return fmt.Errorf("the lab %s belongs to the data folder %s, not to %s", l.Name(), m.Data, l.data)
	}
	return l.down(ctx)
}

// down works in an order that loses nothing: while the namespace has its name, the processes in it can be listed.
func (l *Lab) down(ctx context.Context) error {
	if inside, err := l.inside(); err != nil || inside {
		if err == nil {
			err = errors.New("this command runs inside the lab; run it outside")
		}
		return fmt.Errorf("cannot take the lab down: %w", err)
	}
	// A damaged record must not keep the lab up for good; its process is found in the namespace.
	records, _ := process.LoadAll(l.Pids())
	for _, r := range records {
		if err := r.ID.Kill(ctx); err != nil {
			return fmt.Errorf("cannot end %s: %w", r.Name, err)
		}
	}
	if l.namespaced() {
		if err := l.empty(ctx); err != nil {
			return err
		}
		if _, err := ip(ctx, "netns", "delete", l.Name()); err != nil {
			return fmt.Errorf("cannot delete the lab's network namespace: %w", err)
		}
	}
	for _, dir := range []string{l.resolver(), l.RunDir()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("cannot remove %s: %w", dir, err)
		}
	}
	_ = os.Remove(filepath.Dir(l.resolver())) // succeeds for the last namespace that has files of its own
	return nil
}

// resolver is the folder of what replaces files of /etc for commands in the namespace.
func (l *Lab) resolver() string { return filepath.Join("/etc/netns", l.Name()) }

// emptyLimit bounds how long processes in the namespace may go on starting others.
const emptyLimit = 20 * time.Second

// empty kills what is in the namespace until nothing is: a process may have started another one meanwhile.
func (l *Lab) empty(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, emptyLimit)
	defer cancel()
	for {
		out, err := ip(ctx, "netns", "pids", l.Name())
		if err != nil {
			return fmt.Errorf("cannot list the lab's processes: %w", err)
		}
		found := false
		for _, f := range strings.Fields(out) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return fmt.Errorf("cannot list the lab's processes: unexpected %q", f)
			}
			id, err := process.Find(pid)
			if errors.Is(err, process.ErrGone) {
				continue
			}
			if err != nil {
				return err
			}
			found = true
			if err := id.Kill(ctx); err != nil {
				return fmt.Errorf("cannot end process %d of the lab: %w", pid, err)
			}
		}
		if !found {
			return nil
		}
	}
}

// inside tells whether this process is in the lab's namespace; it would end itself there.
func (l *Lab) inside() (bool, error) {
	var here, there unix.Stat_t
	if err := unix.Stat(filepath.Join("/run/netns", l.Name()), &there); err != nil {
		return false, nil //nolint:nilerr // no namespace: nobody is inside
	}
	if err := unix.Stat("/proc/self/ns/net", &here); err != nil {
		return false, fmt.Errorf("cannot tell the own network namespace: %w", err)
	}
	return here.Dev == there.Dev && here.Ino == there.Ino, nil
}

// exclude takes the lab's lock. The lock's file is removed by whoever gives it back, so it is looked at again once
// taken: it may have been the removed one.
func (l *Lab) exclude(ctx context.Context) (release func(), err error) {
	if err := os.MkdirAll(l.root, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", l.root, err)
	}
	path := l.RunDir() + ".lock"
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, os.ErrNotExist) { // the folder went with the last lab
			if err = os.MkdirAll(l.root, 0o755); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("cannot lock the lab: %w", err)
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && same(f, path) {
			return func() {
				_ = os.Remove(path)
				_ = f.Close()
				_ = os.Remove(l.root) // succeeds for the last lab only: the folder is empty then
			}, nil
		}
		_ = f.Close()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another command works on the lab %s: %w", l.Name(), ctx.Err())
		case <-tick.C:
		}
	}
}

func same(f *os.File, path string) bool {
	mine, err1 := f.Stat()
	now, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, now)
}

// ready tells in one sentence what is missing.
func ready() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root: it makes a network namespace; run the command as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("ip is missing: install the Debian package iproute2")
	}
	return nil
}

func ip(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
