// Package qemu makes virtual machines that behave like bare metal: they know nothing but to boot from the network, have
// power that is switched from outside, firmware of either kind, and consoles; and they outlive the engine that
// started them. They stand on a bridge of the network namespace that the engine runs in (package lab makes one).
package qemu

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"sync"

	"joist/services/power"
)

// Config says where machines live. DataDir, RunDir and Bridge are required.
type Config struct {
	DataDir string // absolute; each machine has a folder in it: disk, firmware variables, voucher, consoles
	RunDir  string // absolute, short, gone after a reboot of the host: sockets and process records
	Bridge  string // bridge in the engine's network namespace
	Accel   Accel  // KVM or TCG; if empty KVM where it can run Kernel, else TCG
	Kernel  string // path of the boot set's kernel, to try KVM with; without one, KVM is not tried
	QEMU    string // emulator; "qemu-system-x86_64" if empty
	OVMF    string // folder of the UEFI firmware; "/usr/share/OVMF" if empty
	Log     *slog.Logger
}

// socketMax is the longest path of a Unix socket: sun_path has 108 bytes with the final zero (unix(7)).
const socketMax = 107

func (c Config) withDefaults() (Config, error) {
	if !filepath.IsAbs(c.DataDir) || !filepath.IsAbs(c.RunDir) {
		return c, fmt.Errorf("qemu: the data folder %q and the run folder %q must be absolute paths", c.DataDir, c.RunDir)
	}
	c.DataDir, c.RunDir = filepath.Clean(c.DataDir), filepath.Clean(c.RunDir)
	if c.Bridge == "" {
		return c, errors.New("qemu: no bridge is named")
	}
	if longest := len(c.RunDir) + len("/vm-.qmp") + 63; longest > socketMax {
		return c, fmt.Errorf("qemu: run folder %s is too long: a socket in it could have %d bytes, and at most %d work", c.RunDir, longest, socketMax)
	}
	switch c.Accel {
	case "", KVM, TCG:
	default:
		return c, fmt.Errorf("qemu: accelerator %q is neither %q nor %q", c.Accel, KVM, TCG)
	}
	if c.QEMU == "" {
		c.QEMU = "qemu-system-x86_64"
	}
	if c.OVMF == "" {
		c.OVMF = "/usr/share/OVMF"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Provider is the set of virtual machines of one data folder. It is safe for concurrent use. One Provider at a time
// works on a data folder.
type Provider struct {
	cfg      Config
	accel    Accel
	accelWhy string

	defining sync.Mutex // held by Define: two calls must not make two machines of one name

	mu       sync.Mutex
	machines map[string]*machine
}

// New opens the data folder and adopts the machines in it, those that run included. It tries KVM (Config.Accel), which
// takes up to 10 s where KVM does not work, once for each start of the host.
func New(cfg Config) (*Provider, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("virtual machines need root: they take ports on a network bridge; start joist as root")
	}
	path, err := exec.LookPath(cfg.QEMU)
	if err != nil {
		return nil, fmt.Errorf("%s is missing: install the Debian package qemu-system-x86", cfg.QEMU)
	}
	cfg.QEMU = path
	if _, err := net.InterfaceByName(cfg.Bridge); err != nil {
		return nil, fmt.Errorf("there is no bridge %s in this network namespace: start the engine inside the lab (joist lab exec)", cfg.Bridge)
	}
	if err := os.MkdirAll(filepath.Join(cfg.DataDir, "machines"), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the machines' folder: %w", err)
	}
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the run folder: %w", err)
	}
	p := &Provider{cfg: cfg, machines: map[string]*machine{}, accel: cfg.Accel, accelWhy: "configured"}
	if p.accel == "" {
		ok, why, err := rememberedKVM(context.Background(), cfg.DataDir, cfg.QEMU, cfg.Kernel)
		if err != nil {
			return nil, err
		}
		p.accel, p.accelWhy = TCG, why
		if ok {
			p.accel = KVM
		}
	}
	if err := p.adopt(); err != nil {
		return nil, err
	}
	return p, nil
}

// adopt reads the machines of the data folder and reports those that run.
func (p *Provider) adopt() error {
	entries, err := os.ReadDir(filepath.Join(p.cfg.DataDir, "machines"))
	if err != nil {
		return fmt.Errorf("cannot read the machines' folder: %w", err)
	}
	for _, e := range entries {
		m := p.machine(e.Name())
		err := m.load()
		if errors.Is(err, os.ErrNotExist) {
			continue // defined half-way, or removed half-way: Define starts over
		}
		if err != nil {
			return err
		}
		p.machines[e.Name()] = m
		id, err := m.process()
		if err != nil {
			return err
		}
		if id.PID != 0 {
			p.cfg.Log.Info("virtual machine adopted", "machine", e.Name(), "pid", id.PID)
		}
	}
	return nil
}

// Accel tells how processors are run, and why so.
func (p *Provider) Accel() (a Accel, why string) { return p.accel, p.accelWhy }

// Machines lists the inventory by name, with facts declared by the machines' Specs.
func (p *Provider) Machines(ctx context.Context) ([]Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Machine, 0, len(p.machines))
	for _, m := range p.machines {
		all = append(all, machineOf(p.cfg.DataDir, m.record().Spec))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// Define adds a machine, off and with the network as its boot device, or changes one. The same Spec again changes
// nothing. A disk can grow, and is never shrunk.
func (p *Provider) Define(ctx context.Context, spec Spec) (Machine, error) {
	spec, err := spec.withDefaults()
	if err != nil {
		return Machine{}, err
	}
	if err := p.firmware(spec.Firmware); err != nil {
		return Machine{}, fmt.Errorf("machine %s: %w", spec.Name, err)
	}
	p.defining.Lock()
	defer p.defining.Unlock()
	m, err := p.find(spec.Name)
	if err != nil {
		m = p.machine(spec.Name)
	}
	if err := m.lock(ctx); err != nil {
		return Machine{}, err
	}
	defer m.unlock()
	if err := m.define(spec); err != nil {
		return Machine{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.machines[spec.Name] = m
	return machineOf(p.cfg.DataDir, spec), nil
}

// firmware looks whether the files a firmware needs are installed.
func (p *Provider) firmware(f Firmware) error {
	if f == UEFI {
		for _, name := range []string{ovmfCode, ovmfVars} {
			if _, err := os.Stat(filepath.Join(p.cfg.OVMF, name)); err != nil {
				return fmt.Errorf("%s is missing: install the Debian package ovmf", filepath.Join(p.cfg.OVMF, name))
			}
		}
		return nil
	}
	for _, dir := range []string{"/usr/lib/ipxe/qemu", "/usr/share/qemu"} {
		if _, err := os.Stat(filepath.Join(dir, "efi-virtio.rom")); err == nil {
			return nil
		}
	}
	return errors.New("the network boot ROM efi-virtio.rom is missing: install the Debian package ipxe-qemu")
}

// Undefine powers a machine off and removes all that is its own, its disk included. An unknown machine is no error.
func (p *Provider) Undefine(ctx context.Context, name string) error {
	m, err := p.find(name)
	if errors.Is(err, power.ErrUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	if err := m.forceOff(ctx); err != nil {
		return err
	}
	if err := m.erase(); err != nil {
		return err
	}
	m.erased = true
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.machines, name)
	return nil
}

// Power gives the power control of a machine; power.ErrUnknown if there is no such machine. It is the raw one, to be
// put under a power.Controller.
func (p *Provider) Power(name string) (power.Power, error) {
	m, err := p.find(name)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Console gives the log of a machine's first serial port: firmware, kernel, login.
func (p *Provider) Console(name string) (Console, error) {
	m, err := p.find(name)
	if err != nil {
		return Console{}, err
	}
	return Console{path: m.files.console}, nil
}

// AgentLog gives the log of a machine's second serial port, on which the agent writes.
func (p *Provider) AgentLog(name string) (Console, error) {
	m, err := p.find(name)
	if err != nil {
		return Console{}, err
	}
	return Console{path: m.files.agent}, nil
}

// VoucherPrefix stands before the secret in the machine's SMBIOS type 11 string (SMBIOS § 7.12: OEM strings).
const VoucherPrefix = "joist.voucher="

// Voucher is the secret that the machine finds in its SMBIOS type 11 string, behind VoucherPrefix: 32 hexadecimal
// digits. A machine that was defined without one has none: empty.
func (p *Provider) Voucher(name string) (string, error) {
	m, err := p.find(name)
	if err != nil {
		return "", err
	}
	if m.record().Spec.Bare {
		return "", nil
	}
	raw, err := os.ReadFile(m.files.voucher)
	if err != nil {
		return "", fmt.Errorf("machine %s: cannot read its voucher: %w", name, err)
	}
	secret, ok := strings.CutPrefix(string(raw), VoucherPrefix)
	if !ok {
		return "", fmt.Errorf("machine %s: its voucher file does not begin with %q", name, VoucherPrefix)
	}
	return secret, nil
}

func newVoucher() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return VoucherPrefix + hex.EncodeToString(b[:])
}

func (p *Provider) find(name string) (*machine, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.machines[name]
	if !ok {
		return nil, fmt.Errorf("virtual machine %q: %w", name, power.ErrUnknown)
	}
	return m, nil
}

func sameSpec(a, b Spec) bool {
	if !a.Clock.Equal(b.Clock) {
		return false
	}
	a.Clock = b.Clock
	return reflect.DeepEqual(a, b)
}
