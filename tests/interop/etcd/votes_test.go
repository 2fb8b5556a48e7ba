package etcd

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/content"
	"joist/pki/authority"
)

// scripts runs scripts of the pack as an agent does, as the operator of the cluster.
type scripts struct {
	files  map[string][]byte // of the pack
	inputs map[string]any
}

func (l *lab) scripts(t *testing.T, front netip.AddrPort) *scripts {
	t.Helper()
	files, err := content.Find("etcd", content.Builtin, "")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, _ := l.operator(t, "demo")
	pems, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	leaf, chain, ok := strings.Cut(string(pems), "-----END CERTIFICATE-----\n")
	if !ok {
		t.Fatalf("no certificates in %s", pems)
	}
	return &scripts{files: files, inputs: map[string]any{
		"key": key, "endpoint": "https://" + front.String(), "identity": authority.Certificate{Leaf: leaf + "-----END CERTIFICATE-----\n", Chain: chain},
	}}
}

// run runs one for a member; what it says is one line, or the last one of what it says when it fails.
func (s *scripts) run(t *testing.T, script, action string, m *member) (string, error) {
	t.Helper()
	dir := t.TempDir()
	inputs := maps.Clone(s.inputs)
	inputs["client_url"] = "https://" + m.client.String()
	given, err := json.Marshal(inputs)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"inputs.json": given, "script": s.files["files/"+script], "etcdctl.sh": s.files["files/etcdctl.sh"]} {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "./script")
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8", "JOIST_ACTION=" + action, "JOIST_INPUTS=" + filepath.Join(dir, "inputs.json")}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	return lines[len(lines)-1], err
}

// expect runs the verify of a vote.
func (s *scripts) expect(t *testing.T, m *member, holds bool, want string) {
	t.Helper()
	said, err := s.run(t, "votes.sh", "verify", m)
	if (err == nil) != holds || !strings.Contains(said, want) {
		t.Errorf("of %s the verify says %q, %v; want %q", m.name, said, err, want)
	}
}

// TestVotes holds the verify of the step voter to what becomes of members: one that votes, is down, was taken out, and is let
// in again without a vote.
func TestVotes(t *testing.T) {
	l := newLab(t)
	list := l.members(t, 3)
	nobody, front := netip.MustParseAddrPort("127.0.0.1:1"), list[0].client
	founding := l.scripts(t, nobody)
	as := func(args ...string) []string {
		cert, key, ca := filepath.Join(l.dir, "operator-demo.crt"), filepath.Join(l.dir, "operator-demo.key"), filepath.Join(l.dir, "operator-demo.ca")
		return append([]string{"--endpoints=https://" + front.String(), "--cert", cert, "--key", key, "--cacert", ca}, args...)
	}
	until(t, func() (bool, string) {
		out, err := etcdctl(t, as("endpoint", "health", "--cluster", "-w", "json")...)
		return err == nil && strings.Count(out, `"health":true`) == 3, out
	})
	for _, m := range list {
		founding.expect(t, m, true, "votes")
	}
	s, lost := l.scripts(t, front), list[2]
	lost.kill()
	s.expect(t, lost, true, "votes, and does not answer now")
	founding.expect(t, lost, false, "says whether it votes")

	listed, err := etcdctl(t, as("member", "list")...)
	if err != nil {
		t.Fatal(err)
	}
	id := ""
	for line := range strings.Lines(listed) {
		if strings.Contains(line, lost.client.String()) {
			id, _, _ = strings.Cut(line, ",")
		}
	}
	if out, err := etcdctl(t, as("member", "remove", id)...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.expect(t, lost, false, "is no member any more")

	if out, err := etcdctl(t, as("member", "add", "n2", "--learner", "--peer-urls=https://"+lost.peer.String())...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.again(t, lost)
	until(t, func() (bool, string) {
		said, err := s.run(t, "votes.sh", "verify", lost)
		return err != nil && strings.HasSuffix(said, "is a learner: it has no vote"), said
	})
	until(t, func() (bool, string) { // once it is in sync
		said, err := s.run(t, "promote.sh", "apply", lost)
		return err == nil, said
	})
	s.expect(t, lost, true, "votes")
}

// again starts a member that has nothing in a cluster that has begun.
func (l *lab) again(t *testing.T, m *member) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(l.dir, m.name)); err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.Command(m.cmd.Path, append(m.cmd.Args[1:], "--initial-cluster-state", "existing")...)
	m.cmd.Stderr = &m.log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.kill)
}

func until(t *testing.T, done func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		ok, said := done()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the last said was %s", said)
		}
	}
}
