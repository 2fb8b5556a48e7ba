package serve_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/cmd/system"
	"joist/engine/agent"
	"joist/engine/agent/artifacts"
	"joist/engine/agent/wire"
	"joist/services/api"
	v1 "joist/services/api/v1"
)

// yearOn is the clock of those who live a year later.
func yearOn() time.Time { return time.Now().AddDate(1, 0, 1) }

// startAt is start of an engine within this process, whose clock is another one.
func startAt(t *testing.T, data string, now func() time.Time) (e *engine, stop func()) {
	t.Helper()
	segment(t)
	e = &engine{t: t, socket: filepath.Join(t.TempDir(), "s"), log: &buffer{}, ended: make(chan struct{})}
	socket, err := api.Listen(e.socket)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := system.Open(ctx, system.Config{
		Data: data, Interface: here, Subnet: netip.MustParsePrefix(subnet), Address: netip.MustParseAddr(address), Now: now,
		Log: slog.New(slog.NewTextHandler(e.log, nil)),
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	var failed error
	go func() {
		failed = s.Serve(ctx, "test", socket)
		s.Close()
		close(e.ended)
	}()
	stop = func() {
		cancel()
		<-e.ended
		if failed != nil {
			t.Errorf("the engine ended with: %v\n%s", failed, e.log)
		}
	}
	return e, stop
}

// works boots a machine into a node by whose clock it is now, and gives its name, its identity and what ends it. Steps run as
// they do on a node; only the machine is this one.
func (e *engine) works(mac, uuid string, now func() time.Time) (name string, id *agent.Identity, stop func()) {
	e.t.Helper()
	boot, root := e.boots(mac, uuid)
	name = "m-" + strings.ReplaceAll(mac, ":", "")
	ctx, cancel := context.WithCancel(context.Background())
	dir := e.t.TempDir()
	facts := func(context.Context) (json.RawMessage, error) { return json.RawMessage(`{"memory":4294967296}`), nil }
	enrolled, done := make(chan *agent.Identity, 1), make(chan error, 1)
	go func() {
		done <- func() error {
			id, err := agent.Enrol(ctx, agent.EnrolConfig{
				Dir: filepath.Join(dir, "identity"), URLs: []string{"https://" + address + ":8443"}, Pin: root, Boot: boot, Incarnation: "of-" + name, MAC: mac,
				Agent: "test", Facts: facts, Now: now,
			})
			if err != nil {
				return err
			}
			enrolled <- id
			kept, err := artifacts.Open(artifacts.Config{Dir: filepath.Join(dir, "artifacts"), Marks: filepath.Join(dir, "marks"), Client: http.DefaultClient})
			if err != nil {
				return err
			}
			a, err := agent.New(agent.Config{Identity: id, Stage: wire.Node, Version: "test", Facts: facts, Artifacts: kept, Now: now})
			if err != nil {
				return err
			}
			return a.Run(ctx)
		}()
	}()
	machine := func() v1.Machine {
		for _, m := range e.status().Machines {
			if m.Name == name {
				return m
			}
		}
		return v1.Machine{}
	}
	e.eventually("its key waits", func() bool { return machine().Pending })
	e.want(0, "is approved", "node", "approve", name, machine().Fingerprint)
	e.eventually("its agent is connected", func() bool { return machine().Online })
	return name, <-enrolled, func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			e.t.Errorf("the agent: %v", err)
		}
	}
}

// sourceless takes from an engine's data, while nobody serves from it, whatever clusters could be made of but for frozen sets: the
// mirror's entries and the boot sets.
func sourceless(t *testing.T, data string) {
	t.Helper()
	catalogue := filepath.Join(data, "mirror", "catalogue.json")
	raw, err := os.ReadFile(catalogue)
	must(t, err)
	var all map[string]json.RawMessage
	must(t, json.Unmarshal(raw, &all))
	all["entries"] = json.RawMessage("[]")
	raw, err = json.Marshal(all)
	must(t, err)
	must(t, os.WriteFile(catalogue, raw, 0o600))
	sets, err := filepath.Glob(filepath.Join(data, "bootsets", "*.json"))
	must(t, err)
	if len(sets) == 0 {
		t.Fatal("no boot set is registered")
	}
	for _, path := range sets {
		must(t, os.Remove(path))
	}
}

// TestYearOn: a cluster that is pinned to a frozen set gets another node after a year, when every source is gone: from the same
// bits, with certificates that are valid then. Only the clock of engine and nodes is a year on.
func TestYearOn(t *testing.T) {
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	e := start(t, data)
	e.push()
	tool, kept := filepath.Join(dir, "tool"), filepath.Join(t.TempDir(), "kept")
	bits := []byte(strings.Repeat("these very bits ", 100_000))
	writeFile(t, tool, bits)
	writeFile(t, kept, bits)
	writeFile(t, filepath.Join(dir, "p/pack.hcl"), []byte(suppliedPack))
	writeFile(t, filepath.Join(dir, "p/files/use.sh"), []byte("#!/bin/sh\ncmp artifacts/tool "+kept+"\n"))
	e.want(0, "", "mirror", "add", tool, "--kind", "program", "--name", "tool", "--version", "1.2.3", "--licence", "MIT")
	first, _, off := e.works("52:54:00:99:01:01", "00000000-0000-4000-8000-000000000101", time.Now)
	e.boots("52:54:00:99:01:02", "00000000-0000-4000-8000-000000000102") // a spare one is racked, and seen
	const second = "m-525400990102"
	file := filepath.Join(dir, "demo.hcl")
	goal := func(wait, frozen string, names ...string) {
		t.Helper()
		list := fmt.Sprintf("%q", names)
		writeFile(t, file, []byte(strings.Replace(string(clusterFile(frozen)), "m = []", "m = "+strings.ReplaceAll(list, `" "`, `", "`), 1)))
		e.want(0, "", "apply", file, wait)
	}
	goal("--no-wait=false", "", first)
	e.want(0, "frozen set winter", "mirror", "freeze", "winter", "--cluster", "demo")
	goal("--no-wait=false", "  frozen   = \"winter\"\n", first)
	off()
	e.stop()

	sourceless(t, data)
	must(t, os.RemoveAll(filepath.Join(dir, "p")))
	must(t, os.Remove(tool))
	e, stop := startAt(t, data, yearOn)
	defer stop()
	if got := e.mirrored(); len(got) != 0 {
		t.Errorf("the mirror still has %+v", got)
	}
	if now := e.status().Now; now.Before(time.Now().AddDate(1, 0, 0)) {
		t.Fatalf("the engine's clock says %s", now)
	}
	e.want(0, "files are what their digests say", "mirror", "verify")
	goal("--no-wait", "  frozen   = \"winter\"\n", first, second)
	_, _, off = e.works("52:54:00:99:01:01", "00000000-0000-4000-8000-000000000101", yearOn)
	defer off()
	name, id, off2 := e.works("52:54:00:99:01:02", "00000000-0000-4000-8000-000000000102", yearOn)
	defer off2()
	e.want(0, "converged", "watch", "demo")
	ran := false
	for line := range strings.Lines(e.want(0, "", "events", "--journal", "cluster/demo")) {
		ran = ran || strings.Contains(line, "  succeeded  ") && strings.Contains(line, second) && strings.HasPrefix(line, yearOn().UTC().Format("2006"))
	}
	if !ran || name != second {
		t.Errorf("%s (%s) did not run its step by the clock of that year", second, name)
	}

	valid := func(what string, chain []byte) {
		t.Helper()
		block, _ := pem.Decode(chain)
		if block == nil {
			t.Fatalf("%s is no PEM: %s", what, chain)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		if now := yearOn(); now.Before(cert.NotBefore) || now.After(cert.NotAfter) || time.Now().After(cert.NotBefore) {
			t.Errorf("%s is valid from %s to %s, and it is %s", what, cert.NotBefore, cert.NotAfter, now)
		}
	}
	if id.Expired(yearOn()) || !id.Expired(yearOn().AddDate(0, 0, 2)) {
		t.Error("the new node's certificate is not one of that day")
	}
	e.want(0, "", "cert", "--cluster", "demo", "--dir", filepath.Join(dir, "client"))
	chain, err := os.ReadFile(filepath.Join(dir, "client/cert.pem"))
	must(t, err)
	valid("an operator's certificate", chain)
}
