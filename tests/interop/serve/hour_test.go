package serve_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/engine/agent"
	v1 "joist/services/api/v1"
)

const (
	mac1  = "52:54:00:99:00:01"
	mac2  = "52:54:00:99:00:02"
	uuid1 = "11111111-2222-3333-4444-555555555555"
	uuid2 = "99999999-2222-3333-4444-555555555555"
)

// TestMachines goes through what a machine and its operator meet: no boot set, discovery, approval, quarantine.
func TestMachines(t *testing.T) {
	data := t.TempDir()
	e := start(t, data)
	e.noticed("there is no boot set, so machines wait in iPXE; build one with joist bootset build")
	text, err := e.script(mac1, uuid1, "")
	must(t, err)
	if !strings.Contains(text, "the engine has no boot set") || strings.Contains(text, "joist.boot=") {
		t.Errorf("without a boot set a machine is told:\n%s", text)
	}
	e.noticed("machine " + mac1 + ": cannot choose a boot set: the engine has no boot set; build one with joist bootset build")

	e.push()
	if n := e.status().Notices; len(n) == 0 || strings.Contains(strings.Join(n, "\n"), "there is no boot set,") {
		t.Errorf("notices with a boot set: %q", n)
	}
	id, root := e.boots(mac1, uuid1)
	e.want(0, "m-525400990001", "node", "list")
	e.want(0, "script sent", "node", "show", "m-525400990001")
	e.want(1, `did you mean "m-525400990001"?`, "node", "show", "m-52540099001")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	machine := e.asks(ctx, mac1, id, root)
	var waits v1.Machine
	e.eventually("the key waits", func() bool {
		for _, m := range e.status().Machines {
			waits = m
		}
		return waits.Pending
	})
	e.eventually("the console shows the fingerprint", func() bool { return strings.Contains(machine.console.String(), waits.Fingerprint) })
	e.want(0, "claimed, waits: "+waits.Fingerprint, "status")
	e.want(1, "no key with the fingerprint 00000000 waits; compare it with the machine's console", "node", "approve", waits.Name, "0000-0000")
	e.want(1, "cannot approve a key of "+waits.Name, "node", "approve", waits.Name, "nonsense!")
	e.want(1, "there is no machine", "node", "approve", "nobody", waits.Fingerprint)
	select {
	case err := <-machine.err:
		t.Fatalf("a wrong fingerprint enrolled the machine, or ended it: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	e.want(0, "is approved", "node", "approve", waits.Name, waits.Fingerprint)
	must(t, <-machine.err)
	e.want(0, "approved", "node", "show", waits.Name)

	// A second key for the same boot id: both are out, and a person decides.
	other := e.asks(ctx, mac1, id, root)
	e.noticed("machine " + waits.Name + " is in quarantine")
	e.want(0, "quarantine", "node", "list")
	cancel()
	<-other.err

	// A boot id that was never given out.
	unknown := id
	unknown[0] ^= 0xff
	refusedOne := e.asks(t.Context(), mac2, unknown, root)
	var no *agent.RefusedError
	if err := <-refusedOne.err; !errors.As(err, &no) {
		t.Errorf("an unknown boot id is told %v", err)
	}
	e.noticed("this boot id was not given out by the engine")
	e.stop()
	e = start(t, data) // what was refused is in the journal
	e.noticed("this boot id was not given out by the engine")
	e.noticed("machine " + waits.Name + " is in quarantine")
	if first := e.status().Notices[0]; !regexp.MustCompile(`\((just now|\d+ (s|min) ago)\)$`).MatchString(first) {
		t.Errorf("a notice without its age: %q", first)
	}
}

// TestDuplicates: what two machines have in common is told.
func TestDuplicates(t *testing.T) {
	e := start(t, t.TempDir())
	e.push()
	e.boots(mac1, uuid1)
	e.boots(mac2, uuid1)
	e.noticed(mac2 + " asks to boot with the UUID of machine m-525400990001 (" + uuid1 + "): another network card of it, or two machines with one UUID")
	e.boots(mac1, uuid2)
	e.noticed("machine m-525400990001 (" + mac1 + ") asks to boot with UUID " + uuid2 + ", and had " + uuid1 + ": its mainboard was changed, or two machines have one MAC address")
	if n := e.status().Notices; !strings.Contains(n[0], "mainboard was changed") {
		t.Errorf("the newest notice is not first: %q", n)
	}
}

// TestMoved: machines know the engine by its address, so another one is refused until the operator says so.
func TestMoved(t *testing.T) {
	segment(t)
	run(t, "ip", "address", "add", "10.99.0.5/24", "dev", here)
	defer run(t, "ip", "address", "del", "10.99.0.5/24", "dev", here)
	data := t.TempDir()
	start(t, data, "--address", "10.99.0.5").stop() // nobody knows it yet
	e := start(t, data)
	e.push()
	id, root := e.boots(mac1, uuid1)
	machine := e.asks(t.Context(), mac1, id, root)
	e.eventually("the key waits", func() bool { s := e.status(); return len(s.Machines) == 1 && s.Machines[0].Pending })
	e.want(0, "approved", "node", "approve", "m-525400990001", e.status().Machines[0].Fingerprint)
	must(t, <-machine.err)
	e.stop()
	refused(t, 1, "cannot serve at 10.99.0.5/24: this data folder's engine was at 10.99.0.1/24, and 1 machines (m-525400990001) know it by that address only; serve at 10.99.0.1/24 again, or add --moved and then boot these machines from the network",
		serveArgs(data, "--address", "10.99.0.5", "--socket", filepath.Join(t.TempDir(), "s"))...)
	e = start(t, data, "--address", "10.99.0.5", "--moved")
	e.noticed("the engine moved from 10.99.0.1/24 to 10.99.0.5/24: boot these machines from the network")
	e.stop()
	start(t, data, "--address", "10.99.0.5").stop()
}

// TestRival: another DHCP server on the segment is told of, and stops nothing.
func TestRival(t *testing.T) {
	segment(t)
	log := &buffer{}
	rival := exec.Command("ip", "netns", "exec", far, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=far0", "--bind-interfaces",
		"--dhcp-range=10.99.0.100,10.99.0.110", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--user=root", "--pid-file=", "--dhcp-authoritative")
	rival.Stdout, rival.Stderr = log, log
	must(t, rival.Start())
	defer func() {
		_ = rival.Process.Kill() // it serves until then
		_ = rival.Wait()
		if t.Failed() {
			t.Log(log)
		}
	}()
	e := start(t, t.TempDir())
	e.noticed("another DHCP server, 10.99.0.2 (")
	e.want(0, "offers addresses on this segment; stop it, or give joist a network of its own", "status")
	if !strings.Contains(e.log.String(), "another DHCP server, 10.99.0.2") {
		t.Errorf("the log does not tell:\n%s", e.log)
	}
	e.push()
	e.boots(mac1, uuid1)
	e.stop()
}

// TestDiskFull: an engine whose disk is full ends with a sentence, and nothing that was acknowledged is lost.
func TestDiskFull(t *testing.T) {
	segment(t)
	disk := t.TempDir()
	must(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=6m"))
	defer func() { must(t, syscall.Unmount(disk, syscall.MNT_DETACH)) }()
	data := filepath.Join(disk, "data")
	ballast := filepath.Join(disk, "ballast")
	sentence := "cannot write " + filepath.Join(data, "joist.db") + ": the disk is full; free space and start again"

	fill(t, ballast, 0)
	code, _, errs := joist(t, serveArgs(data, "--socket", filepath.Join(t.TempDir(), "s"))...)
	if code != 1 || !strings.Contains(errs, "the disk is full; free space and start again") || strings.Count(errs, "\n") != 1 {
		t.Errorf("starting on a full disk: exit code %d\n%s", code, errs)
	}
	must(t, os.Remove(ballast))
	e := start(t, data)
	e.push()
	fill(t, ballast, 128<<10)
	acknowledged := map[string]bool{}
	for i := 0; ; i++ {
		if i == 4000 {
			t.Fatalf("%d scripts fitted on a full disk", i)
		}
		text, err := e.script(fmt.Sprintf("52:54:00:98:%02x:%02x", i>>8, i&0xff), "", fmt.Sprintf("127.0.%d.%d", 1+i>>8, i&0xff))
		if found := bootID.FindStringSubmatch(text); err == nil && found != nil {
			acknowledged[found[1]] = true
			continue
		}
		break
	}
	if code := e.wait(); code != 1 || !strings.Contains(e.log.String(), "\njoist: "+sentence+"\n") {
		t.Errorf("a full disk: exit code %d, want 1 and %q\n%s", code, sentence, e.log)
	}
	must(t, os.Remove(ballast))
	e = start(t, data)
	out := e.want(0, "", "events", "--journal", "site", "-o", "json")
	for id := range acknowledged {
		if !strings.Contains(out, id) {
			t.Errorf("boot id %s was acknowledged, and is gone", id)
		}
	}
	t.Logf("%d boot ids were acknowledged before the disk was full", len(acknowledged))
	if len(acknowledged) == 0 {
		t.Error("nothing was acknowledged")
	}
	if _, err := e.script(mac1, uuid1, ""); err != nil {
		t.Error(err)
	}
	e.stop()
}

// fill writes a file that leaves so many bytes free.
func fill(t *testing.T, name string, but int64) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	var block [4096]byte
	size := int64(0)
	for err == nil {
		_, err = f.Write(block[:])
		size += int64(len(block))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Truncate(max(0, size-int64(len(block))-but)))
	must(t, f.Close())
}

// TestBootSets: what is damaged is refused, and says what to do.
func TestBootSets(t *testing.T) {
	e := start(t, t.TempDir())
	sum := strings.Repeat("0", 64)
	code, said := e.api("PUT", "/v1/artifacts/sha256-"+sum, []byte("something else"))
	var p v1.Problem
	must(t, json.Unmarshal([]byte(said), &p))
	if code != http.StatusUnprocessableEntity || !p.Of(v1.Refused) {
		t.Errorf("an artifact with another digest: %d %s", code, said)
	}
	code, said = e.api("POST", "/v1/bootsets", manifest(t))
	if code != http.StatusNotFound || !strings.Contains(said, "there is no artifact sha256-") {
		t.Errorf("a boot set without its files: %d %s", code, said)
	}
	changed := strings.Replace(string(manifest(t)), "6.1.0-test", "6.1.0-tost", 1)
	code, said = e.api("POST", "/v1/bootsets", []byte(changed))
	if code != http.StatusUnprocessableEntity || !strings.Contains(said, "its digest is not that of what it lists") {
		t.Errorf("a changed manifest: %d %s", code, said)
	}
	e.stop()

	// A folder of builds with a set whose kernel lost its end.
	builds := t.TempDir()
	set := filepath.Join(builds, "virt-1")
	must(t, os.Mkdir(set, 0o700))
	for name, data := range parts() {
		must(t, os.WriteFile(filepath.Join(set, name), data, 0o600))
	}
	must(t, os.Truncate(filepath.Join(set, "vmlinuz"), 3))
	must(t, os.WriteFile(filepath.Join(set, "manifest.json"), manifest(t), 0o600))
	refused(t, 1, "cannot open boot set "+set+": vmlinuz has 3 bytes, the manifest says 8", serveArgs(t.TempDir(), "--bootsets", builds, "--socket", filepath.Join(t.TempDir(), "s"))...)
	refused(t, 1, "cannot open boot set "+set+": vmlinuz has 3 bytes, the manifest says 8", "bootset", "show", set)
}
