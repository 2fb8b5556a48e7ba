package serve_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"joist/engine/agent"
	"joist/engine/agent/disk"
	"joist/engine/agent/sandbox"
	"joist/engine/agent/scout"
	"joist/engine/agent/wire"
	v1 "joist/services/api/v1"
)

// mac3 is a machine with a disk, whose power nobody but a person controls.
const (
	mac3  = "52:54:00:99:00:03"
	uuid3 = "33333333-2222-3333-4444-555555555555"
)

// TestWipe: a machine with a data disk of an earlier node is given to no cluster, until a person has it wiped: it boots
// once more, scout erases the disk, and the engine tells the proof.
func TestWipe(t *testing.T) {
	e := start(t, t.TempDir())
	e.push()
	place := dataDisk(t)
	name := "m-525400990003"
	file := filepath.Join(t.TempDir(), "c.hcl")
	must(t, os.WriteFile(file, []byte(`cluster "c" {
  workflow = etcd.cluster
  packs = {
    base = { source = "builtin" }
    etcd = { source = "builtin" }
  }
  nodes   = { member = ["`+name+`"] }
  with    = { domain = "c.lab" }
  storage = "disk"
}
`), 0o600))

	off := e.scoutUp(place, name)
	e.eventually("the facts are known", func() bool {
		_, text := e.api("GET", "/v1/machines/"+name, nil)
		return strings.Contains(text, `"incarnation"`)
	})
	e.want(1, "it has a data disk of an earlier node, which nobody here knows; wipe it first with joist node wipe "+name, "apply", file, "--no-wait")

	wiped := make(chan string, 1)
	go func() { // joist node wipe
		_, text := e.api("POST", "/v1/machines/"+name+"/wipe", []byte(`{"by":"me"}`))
		wiped <- text
	}()
	e.noticed("machine " + name + " is to be wiped, and this engine cannot switch it: boot it from the network")
	if disks, err := place.Look(); err != nil || disks[0].Incarnation() == "" {
		t.Fatalf("the scout that ran before the order has wiped the disk: %+v, %v", disks, err)
	}
	e.want(1, "it is being wiped", "apply", file, "--no-wait")
	off()
	off = e.scoutUp(place, name)
	text := <-wiped
	if !strings.Contains(text, "vda (320 MiB) was discarded and read back blank") {
		t.Fatalf("the wipe is answered with %s", text)
	}
	if disks, err := place.Look(); err != nil || disks[0].Ours() {
		t.Errorf("the disk is %+v, %v", disks, err)
	}
	out := e.want(0, "", "events", "--journal", "site")
	for _, kind := range []string{"wipe.ordered", "wiped"} {
		if !strings.Contains(out, kind) {
			t.Errorf("the site's journal has no %s", kind)
		}
	}
	off()
	e.want(0, "the goal is set", "apply", file, "--no-wait")
	e.want(1, "cannot wipe "+name+": cluster c has it; joist redeploy c", "node", "wipe", name, "--yes")
}

// dataDisk makes a data disk with an incarnation, on a loop device.
func dataDisk(t *testing.T) disk.Place {
	t.Helper()
	segment(t)
	dir := t.TempDir()
	place := disk.Place{Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev")}
	must(t, os.Mkdir(place.Sys, 0o755))
	must(t, os.Mkdir(place.Dev, 0o755))
	image := filepath.Join(dir, "vda.raw")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 320<<20))
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	must(t, os.Symlink("/sys/class/block/"+filepath.Base(device), filepath.Join(place.Sys, "vda")))
	must(t, os.Symlink(device, filepath.Join(place.Dev, "vda")))
	if out, err := exec.Command("mkfs.ext4", "-q", "-L", disk.Label, "-U", scout.DrawIncarnation(), device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	return place
}

// scoutUp boots the machine with the disk into a scout, whose key is approved, and gives what switches it off.
func (e *engine) scoutUp(place disk.Place, name string) (off func()) {
	e.t.Helper()
	id, root := e.boots(mac3, uuid3)
	ctx, cancel := context.WithCancel(e.t.Context())
	disks, err := place.Look()
	must(e.t, err)
	facts, err := json.Marshal(map[string]any{"disks": []scout.Disk{{Name: "vda", Size: disks[0].Size, Label: disks[0].Label, Incarnation: disks[0].Incarnation()}}})
	must(e.t, err)
	gather := func(context.Context) (json.RawMessage, error) { return facts, nil }
	incarnation, _, err := scout.Incarnation(place)
	must(e.t, err)
	config := agent.EnrolConfig{Dir: e.t.TempDir(), URLs: []string{"https://" + address + ":8443"}, Pin: root, Boot: id, Incarnation: incarnation, MAC: mac3, Agent: "test", Facts: gather}
	done := make(chan error, 1)
	go func() {
		identity, err := agent.Enrol(ctx, config)
		if err != nil {
			done <- err
			return
		}
		builtins := agent.Builtins(incarnation, gather)
		builtins["wipe"] = func(context.Context, sandbox.BuiltinCall) (json.RawMessage, error) {
			wiped, err := place.Wipe()
			if err != nil {
				return nil, err
			}
			return json.Marshal(map[string]any{"disks": wiped})
		}
		a, err := agent.New(agent.Config{Identity: identity, Stage: wire.Scout, Version: "test", Facts: gather, Builtins: builtins})
		if err != nil {
			done <- err
			return
		}
		done <- a.Run(ctx)
	}()
	var waits v1.Machine
	e.eventually("a new key waits", func() bool {
		for _, m := range e.status().Machines {
			if m.Name == name {
				waits = m
			}
		}
		return waits.Pending
	})
	e.want(0, "is approved", "node", "approve", name, waits.Fingerprint)
	e.eventually("its agent is connected", func() bool {
		for _, m := range e.status().Machines {
			if m.Name == name && m.Online {
				return true
			}
		}
		return false
	})
	return func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			e.t.Errorf("the agent: %v", fmt.Errorf("before it was switched off: %w", err))
		}
	}
}
