package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"joist/services/power"
)

// Names of the UEFI firmware's files (Debian package ovmf): 4 MiB flash, no Secure Boot.
const (
	ovmfCode = "OVMF_CODE_4M.fd"
	ovmfVars = "OVMF_VARS_4M.fd"
)

// logMax is how long a console's file may be at a power-on; a longer one is set aside (one generation is kept).
const logMax = 16 << 20

// files are a machine's paths.
type files struct {
	dir, record, vars, disk, voucher, console, agent string // in the data folder
	qmp, pid, pids                                   string // in the run folder
}

func (c Config) filesOf(name string) files {
	dir := filepath.Join(c.DataDir, "machines", name)
	in := func(n string) string { return filepath.Join(dir, n) }
	run := filepath.Join(c.RunDir, "vm-"+name)
	return files{
		dir: dir, record: in("machine.json"), vars: in("vars.fd"), disk: in("disk.raw"), voucher: in("voucher"),
		console: in("console.log"), agent: in("agent.log"),
		qmp: run + ".qmp", pid: run + ".pid", pids: filepath.Join(c.RunDir, "pids"),
	}
}

// record is what must outlive the engine and the host's run folder.
type record struct {
	Spec Spec         `json:"spec"`
	Boot power.Device `json:"boot"`           // lasting
	Once power.Device `json:"once,omitempty"` // for the next start
}

// first is what the next start tries first.
func (r record) first() power.Device {
	if r.Once != "" {
		return r.Once
	}
	return r.Boot
}

func (m *machine) load() error {
	raw, err := os.ReadFile(m.files.record)
	if err != nil {
		return fmt.Errorf("machine %s: cannot read its record: %w", m.name, err)
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("machine %s: cannot read its record %s: %w", m.name, m.files.record, err)
	}
	if r.Spec.Name != m.name || r.Boot == "" {
		return fmt.Errorf("machine %s: its record %s is that of another machine", m.name, m.files.record)
	}
	m.setRecord(r)
	return nil
}

// save makes the record durable before it counts.
func (m *machine) save(r record) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := writeDurably(m.files.record, raw); err != nil {
		return fmt.Errorf("machine %s: cannot write its record: %w", m.name, err)
	}
	m.setRecord(r)
	return nil
}

func writeDurably(path string, raw []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// define writes what a Spec asks for.
func (m *machine) define(spec Spec) error {
	if err := os.MkdirAll(m.files.dir, 0o700); err != nil {
		return fmt.Errorf("machine %s: cannot make its folder: %w", m.name, err)
	}
	err := m.load()
	switch {
	case errors.Is(err, os.ErrNotExist):
		m.setRecord(record{})
	case err != nil:
		return err
	}
	r := m.record()
	if r.Spec.Name != "" && sameSpec(r.Spec, spec) {
		return nil
	}
	if spec.Disk < r.Spec.Disk {
		return fmt.Errorf("machine %s: its disk of %d bytes cannot shrink to %d; undefine the machine first", m.name, r.Spec.Disk, spec.Disk)
	}
	r.Spec = spec
	if r.Boot == "" {
		r.Boot = power.Network
	}
	if _, err := os.Stat(m.files.voucher); !spec.Bare && errors.Is(err, os.ErrNotExist) {
		if err := writeDurably(m.files.voucher, []byte(newVoucher())); err != nil {
			return fmt.Errorf("machine %s: cannot write its voucher: %w", m.name, err)
		}
	}
	return m.save(r)
}

// prepare makes the files that QEMU opens: the disk, the firmware's variables and the logs.
func (m *machine) prepare() error {
	spec := m.record().Spec
	if spec.Disk > 0 {
		f, err := os.OpenFile(m.files.disk, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return fmt.Errorf("cannot make the disk: %w", err)
		}
		st, err := f.Stat()
		if err == nil && st.Size() < spec.Disk {
			err = f.Truncate(spec.Disk) // sparse: takes no space until written
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("cannot make the disk: %w", err)
		}
	}
	if spec.Firmware == UEFI {
		if _, err := os.Stat(m.files.vars); errors.Is(err, os.ErrNotExist) {
			raw, err := os.ReadFile(filepath.Join(m.provider.cfg.OVMF, ovmfVars))
			if err == nil {
				err = writeDurably(m.files.vars, raw)
			}
			if err != nil {
				return fmt.Errorf("cannot copy the firmware's variables: %w", err)
			}
		}
	}
	for _, log := range []string{m.files.console, m.files.agent} {
		if st, err := os.Stat(log); err == nil && st.Size() > logMax {
			if err := os.Rename(log, log+".1"); err != nil {
				return fmt.Errorf("cannot set the console's log aside: %w", err)
			}
		}
		f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) // so that it can be followed before the first byte
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return fmt.Errorf("cannot make the console's log: %w", err)
		}
	}
	return nil
}

// erase removes all that is the machine's, the record first: a folder without one is no machine.
func (m *machine) erase() error {
	if err := m.removeTap(); err != nil {
		return err
	}
	if err := os.Remove(m.files.record); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("machine %s: cannot remove its record: %w", m.name, err)
	}
	if err := os.RemoveAll(m.files.dir); err != nil {
		return fmt.Errorf("machine %s: cannot remove its folder: %w", m.name, err)
	}
	return nil
}
