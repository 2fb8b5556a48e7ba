package etcd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRemovalKeepsQuorum runs the pack's own script: a member leaves only if those that are healthy without it are a quorum.
func TestRemovalKeepsQuorum(t *testing.T) {
	l := newLab(t)
	var list []*member
	for i := range 3 { // an address each, because the pack's members are told apart by it
		at := netip.AddrFrom4([4]byte{127, 78, 0, byte(i + 1)})
		list = append(list, &member{name: fmt.Sprint("n", i), client: netip.AddrPortFrom(at, 2379), peer: netip.AddrPortFrom(at, 2380)})
	}
	l.start(t, list)
	cert, key, ca := l.operator(t, "demo")
	as := []string{"--cert", cert, "--key", key, "--cacert", ca}
	living := func(m *member) []string { return append([]string{"--endpoints=https://" + m.client.String()}, as...) }
	for end := time.Now().Add(time.Minute); ; {
		out, err := etcdctl(t, append(living(list[2]), "endpoint", "health", "--cluster", "-w", "json")...)
		if err == nil && strings.Count(out, `"health":true`) == 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("health: %v\n%s", err, out)
		}
	}
	count := func() int {
		t.Helper()
		out, err := etcdctl(t, append(living(list[2]), "member", "list", "-w", "simple")...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(out, "started")
	}
	identity, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	remove := func(m *member) (later string) {
		t.Helper()
		dir := t.TempDir()
		inputs, err := json.Marshal(map[string]any{
			"client_url": "https://" + m.client.String(), "endpoint": "https://" + list[2].client.String(), "key": key,
			"identity": map[string]string{"leaf": string(identity), "chain": ""},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "inputs.json"), inputs, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"seat-remove.sh", "etcdctl.sh"} {
			body, err := os.ReadFile(filepath.Join("../../../content/etcd/files", name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "sh", "seat-remove.sh")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "JOIST_ACTION=remove", "JOIST_INPUTS="+dir+"/inputs.json", "JOIST_LATER="+dir+"/later")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("removing %s: %v\n%s", m.name, err, out)
		}
		said, err := os.ReadFile(filepath.Join(dir, "later"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(said))
	}

	list[0].kill()
	if later := remove(list[1]); later != "waiting for a quorum without 127.78.0.2: of the 2 members that remain 1 are healthy, and 2 have to be" || count() != 3 {
		t.Errorf("a living member of two: %q, %d members", later, count())
	}
	if later := remove(list[0]); later != "" || count() != 2 {
		t.Errorf("the dead member: %q, %d members", later, count())
	}
	if later := remove(list[1]); later != "" || count() != 1 {
		t.Errorf("one of two that are healthy: %q, %d members", later, count())
	}
}
