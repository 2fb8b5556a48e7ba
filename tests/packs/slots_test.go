package packs_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"joist/engine/model"
	"joist/engine/step"
)

// slotted is a cluster whose slots are filled otherwise than the pack does.
func slotted(t *testing.T, roles map[string][]string, slots string, change edits) *model.Model {
	t.Helper()
	m, ds := compile(t, strings.Replace(kubernetes(roles, ""), `storage = "disk"`, "storage = \"disk\"\n  slots = { "+slots+" }", 1), change)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	return m
}

// TestKubernetesChangesSlots: another network is set up on every node, another runtime on workers, one after the other and out of
// service; nothing else runs for either.
func TestKubernetesChangesSlots(t *testing.T) {
	for slots, want := range map[string]string{
		"network = kubernetes.vxlan": "network",
		`runtime = { step = kubernetes.containerd, with = { runtime = "crun" } }`: "in_service runtime",
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t)
			defer b.Close()
			b.up("c1", "w5", "w6")
			b.pursue(must(t, goal(1, 2), "", nil), goal(1, 2))
			ran := b.pursue(slotted(t, goal(1, 2), slots, nil), goal(1, 2))
			if got := strings.Join(tasks(ran, "c1", "w5", "w6"), " "); got != want || len(tasks(ran)) > 0 {
				t.Errorf("%s: ran %s and %s, want %s", slots, got, tasks(ran), want)
			}
			if want != "network" {
				order(t, ran, "remove in_service[w5]", "apply runtime[w5]", "apply in_service[w5]", "remove in_service[w6]", "apply runtime[w6]", "apply in_service[w6]")
			}
		})
	}
}

const vxlanScript = "kubernetes/files/vxlan.sh"

// TestVXLAN runs the overlay's script on a real device, as a node would: twice, and then with one node fewer.
func TestVXLAN(t *testing.T) {
	for name, p := range map[string]plant{
		"as it is":         {},
		"ways that are in": {vxlanScript, `ip route replace "$network"`, `ip route add "$network"`, "the second time"},
		"ways that stay":   {vxlanScript, "ip route del $route", ": ip route del $route", `what leads to pods is "10.64.1.0/24 10.64.2.0/24"`},
		"peers that stay":  {vxlanScript, `bridge fdb del "$gone"`, `: "$gone"`, `what the device knows of peers is "10.77.0.15 10.77.0.16"`},
		"another's number": {vxlanScript, `vxlan id "$id"`, `vxlan id 5`, "the second time made another device"},
		"by way of itself": {vxlanScript, `select(.key != $own)`, `select(true)`, "invalid gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := edits{}
			if p.file != "" {
				change = p.change(t)
			}
			err := overlaid(t, slotted(t, goal(1, 2), "network = kubernetes.vxlan", change).Task("network").Step)
			if (err == nil) != (p.found == "") || err != nil && !strings.Contains(err.Error(), p.found) {
				t.Errorf("want %q, got: %v", p.found, err)
			}
		})
	}
}

func overlaid(t *testing.T, s *model.Step) error {
	t.Helper()
	n := newStage(t, "c1", "10.77.0.11")
	say := func(line string) string {
		out, err := n.command(t.Context(), "/", "sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v %s", line, err, out)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	run := func(routes string) error {
		in := map[string]json.RawMessage{}
		text := `{"own": "c1", "address": "10.77.0.11", "port": 4789, "id": 77, "routes": {"c1": {"network": "10.64.0.0/24", "via": "10.77.0.11"}` + routes + `}}`
		if err := json.Unmarshal([]byte(text), &in); err != nil {
			t.Fatal(err)
		}
		if _, err := n.run(&s.Apply, step.Apply, in); err != nil {
			return err
		}
		_, err := n.run(s.Verify, step.Verify, in)
		return err
	}
	const w5, w6 = `, "w5": {"network": "10.64.1.0/24", "via": "10.77.0.15"}`, `, "w6": {"network": "10.64.2.0/24", "via": "10.77.0.16"}`
	if err := run(w5 + w6); err != nil {
		return err
	}
	device := say("ip -o link show joist-pods | cut -d: -f1")
	if err := run(w5 + w6); err != nil {
		return fmt.Errorf("the second time: %w", err)
	}
	if now := say("ip -o link show joist-pods | cut -d: -f1"); now != device {
		return fmt.Errorf("the second time made another device: %s, was %s", now, device)
	}
	last := run(w5)
	return first(
		expect("what leads to pods", say("ip -o route show proto 202 | cut -d' ' -f1"), "10.64.1.0/24"),
		expect("what the device knows of peers", say("bridge fdb show dev joist-pods | sed -n 's/.* dst \\([0-9.]*\\) .*/\\1/p' | sort"), "10.77.0.15"),
		last,
	)
}
