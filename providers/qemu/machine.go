package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"joist/providers/qemu/process"
	"joist/services/power"
)

// machine is one virtual machine. A machine that is off is no process; what a management controller would remember
// then (the boot order) is in its record.
type machine struct {
	name     string
	provider *Provider
	files    files
	turn     chan struct{} // held by whoever changes the machine or talks to its QEMU, which serves one client
	erased   bool          // undefined while somebody still holds its Power; guarded by turn

	mu  sync.Mutex
	rec record
}

var _ power.Power = (*machine)(nil)

func (p *Provider) machine(name string) *machine {
	return &machine{name: name, provider: p, files: p.cfg.filesOf(name), turn: make(chan struct{}, 1)}
}

func (m *machine) record() record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec
}

func (m *machine) setRecord(r record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec = r
}

func (m *machine) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // select would choose at random
		return fmt.Errorf("machine %s: %w", m.name, err)
	}
	select {
	case m.turn <- struct{}{}:
		if m.erased {
			m.unlock()
			return fmt.Errorf("virtual machine %q: %w", m.name, power.ErrUnknown)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("machine %s is busy: %w", m.name, ctx.Err())
	}
}

func (m *machine) unlock() { <-m.turn }

// recordName names the QEMU process among the processes of the run folder.
func (m *machine) recordName() string { return "vm-" + m.name }

// process finds the machine's QEMU, also one that an engine started which did not live to record it; the zero ID if
// the machine is off.
func (m *machine) process() (process.ID, error) {
	rec, err := process.Load(m.files.pids, m.recordName())
	if err == nil && rec.ID.Alive() {
		return rec.ID, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return process.ID{}, fmt.Errorf("machine %s: %w", m.name, err)
	}
	raw, err := os.ReadFile(m.files.pid)
	if errors.Is(err, os.ErrNotExist) {
		return process.ID{}, nil
	}
	if err != nil {
		return process.ID{}, fmt.Errorf("machine %s: cannot read its process id: %w", m.name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return process.ID{}, nil // QEMU died while writing it
	}
	id, err := process.Find(pid)
	if errors.Is(err, process.ErrGone) {
		return process.ID{}, nil
	}
	if err != nil {
		return process.ID{}, fmt.Errorf("machine %s: %w", m.name, err)
	}
	// The process id alone may be another program's by now; our socket's path on its command line tells.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(cmdline, []byte("path="+comma(m.files.qmp)+"\x00")) {
		return process.ID{}, nil
	}
	return id, process.Save(m.files.pids, m.recordName(), id)
}

// State implements power.Power. Off is the absence of the process; the boot order of a running machine is read from
// QEMU.
func (m *machine) State(ctx context.Context) (power.Status, error) {
	if err := m.lock(ctx); err != nil {
		return power.Status{}, err
	}
	defer m.unlock()
	id, err := m.process()
	if err != nil {
		return power.Status{}, err
	}
	r := m.record()
	st := power.Status{Power: power.Off, Boot: power.Boot{First: r.first(), Once: r.Once != ""}}
	if id.PID == 0 {
		return st, nil
	}
	st.Power = power.On
	if r.Spec.Disk == 0 {
		return st, nil
	}
	err = m.talk(ctx, func(q *qmp) error {
		nic, err := q.bootIndex(nicDevice)
		if err != nil {
			return err
		}
		disk, err := q.bootIndex(diskDevice)
		if err != nil {
			return m.withoutDisk(err)
		}
		st.Boot = power.Boot{First: power.Network}
		if disk >= 0 && (nic < 0 || disk < nic) {
			st.Boot.First = power.Disk
		}
		st.Boot.Once = r.Once == st.Boot.First
		return nil
	})
	if err != nil && !id.Alive() { // it ended while we asked
		return power.Status{Power: power.Off, Boot: power.Boot{First: r.first(), Once: r.Once != ""}}, nil
	}
	return st, err
}

// withoutDisk forgives that a machine was started before it was given its disk.
func (m *machine) withoutDisk(err error) error {
	var no *refusal
	if errors.As(err, &no) && no.Class == "DeviceNotFound" {
		return nil
	}
	return err
}

// talk holds one conversation with the machine's QEMU.
func (m *machine) talk(ctx context.Context, say func(*qmp) error) error {
	q, err := dialQMP(ctx, m.files.qmp)
	if err == nil {
		defer q.close()
		err = say(q)
	}
	if err != nil {
		return fmt.Errorf("machine %s: %w", m.name, err)
	}
	return nil
}

// On implements power.Power.
func (m *machine) On(ctx context.Context) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	id, err := m.process()
	if err != nil || id.PID != 0 {
		return err
	}
	if err := m.start(ctx); err != nil {
		return fmt.Errorf("machine %s: cannot start: %w", m.name, err)
	}
	if m.record().Once == "" {
		return nil
	}
	return m.usedUp(ctx)
}

func (m *machine) start(ctx context.Context) error {
	if err := m.prepare(); err != nil {
		return err
	}
	if err := m.addTap(); err != nil {
		return err
	}
	r := m.record()
	v := invocation{
		spec: r.Spec, machine: machineOf(m.provider.cfg.DataDir, r.Spec), files: m.files, boot: r.first(),
		accel: m.provider.accel, tap: tapOf(m.provider.cfg.DataDir, m.name), ovmf: m.provider.cfg.OVMF + "/" + ovmfCode,
	}
	cmd := exec.CommandContext(ctx, m.provider.cfg.QEMU, v.args()...)
	if err := process.Detach(cmd); err != nil { // a Ctrl-C during the start does not reach it either
		return err
	}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(said.String()))
	}
	id, err := m.process() // finds it by QEMU's own file, and records it
	if err != nil {
		return err
	}
	if id.PID == 0 {
		return errors.New("QEMU ended right after its start")
	}
	m.provider.cfg.Log.Info("virtual machine started", "machine", m.name, "pid", id.PID, "accel", v.accel, "boot", v.boot)
	return nil
}

// usedUp puts the lasting boot order back after a start that took the other one. QEMU gave the firmware its order at
// the reset; what is set now counts from the next one.
func (m *machine) usedUp(ctx context.Context) error {
	r := m.record()
	r.Once = ""
	if err := m.save(r); err != nil {
		return err
	}
	return m.applyOrder(ctx, r)
}

// applyOrder sets the boot order of a running machine.
func (m *machine) applyOrder(ctx context.Context, r record) error {
	if r.Spec.Disk == 0 {
		return nil
	}
	nic, disk := order(r.first())
	return m.talk(ctx, func(q *qmp) error {
		// Two devices never have the same index, not even for a moment: first take one away.
		for _, set := range []struct {
			device string
			index  int
		}{{nicDevice, -1}, {diskDevice, disk}, {nicDevice, nic}} {
			if err := q.setBootIndex(set.device, set.index); err != nil {
				return m.withoutDisk(err)
			}
		}
		return nil
	})
}

// Off implements power.Power.
func (m *machine) Off(ctx context.Context, mode power.Mode) error {
	if mode != power.Graceful && mode != power.Force {
		return fmt.Errorf("machine %s: cannot switch off in mode %q: %w", m.name, mode, power.ErrUnsupported)
	}
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	if mode == power.Force {
		return m.forceOff(ctx)
	}
	id, err := m.process()
	if err != nil || id.PID == 0 {
		return err
	}
	return m.talk(ctx, func(q *qmp) error {
		_, err := q.command("system_powerdown", nil)
		return err
	})
}

// quitLimit is how long QEMU may take to end by itself before it is killed.
const quitLimit = 2 * time.Second

// forceOff ends the QEMU process and waits until it is gone. QEMU is asked first (it removes its socket and lets go of
// the disk in order) and killed if it does not answer: force always works.
func (m *machine) forceOff(ctx context.Context) error {
	id, err := m.process()
	if err != nil {
		return err
	}
	if id.PID != 0 {
		polite, cancel := context.WithTimeout(ctx, quitLimit)
		if err := m.talk(polite, func(q *qmp) error { _, err := q.command("quit", nil); return err }); err == nil {
			_ = id.Wait(polite)
		}
		cancel()
		if err := id.Kill(ctx); err != nil {
			return fmt.Errorf("machine %s: %w", m.name, err)
		}
		m.provider.cfg.Log.Info("virtual machine stopped", "machine", m.name, "pid", id.PID)
	}
	for _, f := range []string{m.files.qmp, m.files.pid} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("machine %s: cannot remove what QEMU left: %w", m.name, err)
		}
	}
	return process.Forget(m.files.pids, m.recordName())
}

// resetQuiet is how long after a reset no further one may come: SeaBIOS answers a reset with one of its own, and both
// read the boot order.
const resetQuiet = time.Second

// Reset implements power.Power. It returns once QEMU has reported the reset.
func (m *machine) Reset(ctx context.Context) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	id, err := m.process()
	if err != nil {
		return err
	}
	if id.PID == 0 {
		return fmt.Errorf("machine %s: cannot reset: %w", m.name, power.ErrOff)
	}
	once := m.record().Once != ""
	err = m.talk(ctx, func(q *qmp) error {
		if _, err := q.command("system_reset", nil); err != nil {
			return err
		}
		if err := q.await("RESET", qmpTimeout); err != nil {
			return err
		}
		for once && q.await("RESET", resetQuiet) == nil {
		}
		return nil
	})
	if err != nil || !once {
		return err
	}
	return m.usedUp(ctx)
}

// SetBoot implements power.Power. A boot setting for once is used up by a power-on or a Reset; a restart that the
// guest makes by itself is not noticed and keeps it.
func (m *machine) SetBoot(ctx context.Context, boot power.Boot) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	r := m.record()
	if boot.First != power.Network && (boot.First != power.Disk || r.Spec.Disk == 0) {
		return fmt.Errorf("machine %s: cannot boot from %q: %w", m.name, boot.First, power.ErrUnsupported)
	}
	if boot.Once {
		r.Once = boot.First
	} else {
		r.Boot, r.Once = boot.First, ""
	}
	if err := m.save(r); err != nil {
		return err
	}
	id, err := m.process()
	if err != nil || id.PID == 0 {
		return err
	}
	return m.applyOrder(ctx, r)
}

// addTap makes the machine's port on the bridge; one that exists is put right.
func (m *machine) addTap() error {
	name := tapOf(m.provider.cfg.DataDir, m.name)
	bridge, err := netlink.LinkByName(m.provider.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("cannot find bridge %s in this network namespace: %w", m.provider.cfg.Bridge, err)
	}
	link, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("cannot make tap %s: %w", name, err)
		}
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("cannot find tap %s: %w", name, err)
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("cannot put tap %s on bridge %s: %w", name, m.provider.cfg.Bridge, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring tap %s up: %w", name, err)
	}
	return nil
}

func (m *machine) removeTap() error {
	name := tapOf(m.provider.cfg.DataDir, m.name)
	link, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("machine %s: cannot remove tap %s: %w", m.name, name, err)
	}
	return nil
}
