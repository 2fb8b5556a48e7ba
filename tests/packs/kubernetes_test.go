package packs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
)

// kubernetes is a cluster file; extra is further lines of with.
func kubernetes(roles map[string][]string, extra string) string {
	list := func(names []string) string { return strings.ReplaceAll(fmt.Sprintf("%q", names), " ", ", ") }
	return fmt.Sprintf(`cluster "demo" {
  workflow = kubernetes.cluster
  packs = {
    base       = { source = "builtin" }
    etcd       = { source = "builtin" }
    kubernetes = { source = "builtin" }
  }
  nodes = { control = %s, worker = %s }
  with = {
    domain = "demo.lab"
    %s
  }
  storage = "disk"
}
`, list(roles["control"]), list(roles["worker"]), extra)
}

func goal(control, worker int) map[string][]string {
	roles := map[string][]string{"control": {}, "worker": {}}
	for i := range control {
		roles["control"] = append(roles["control"], fmt.Sprintf("c%d", i+1))
	}
	for i := range worker {
		roles["worker"] = append(roles["worker"], fmt.Sprintf("w%d", i+5))
	}
	return roles
}

func must(t *testing.T, roles map[string][]string, extra string, change map[string]func(string) string) *model.Model {
	t.Helper()
	m, ds := compile(t, kubernetes(roles, extra), change)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	return m
}

// order fails unless each action comes after the one before it in the list, and all of them were done.
func order(t *testing.T, ran []did, want ...string) {
	t.Helper()
	before := -1
	for i, w := range want {
		at := slices.IndexFunc(ran, func(d did) bool { return d.String() == w })
		if at < 0 {
			t.Errorf("%s was not done", w)
			continue
		}
		if at < before {
			t.Errorf("%s was done before %s", w, want[i-1])
		}
		before = at
	}
}

// tasks gives the tasks of what was done on some nodes, each once; no names: single instances.
func tasks(ran []did, nodes ...string) []string {
	var out []string
	for _, d := range ran {
		if d.Node == "" && len(nodes) == 0 || slices.Contains(nodes, d.Node) {
			out = append(out, d.Task)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// bubble runs a test on a cluster that has come up.
func bubble(t *testing.T, control, worker int, f func(t *testing.T, b *bed, ran []did)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.Close()
		b.up("c1", "c2", "c3", "w5", "w6", "w7")
		ran := b.pursue(must(t, goal(control, worker), "", nil), goal(control, worker))
		f(t, b, ran)
	})
}

func TestKubernetesComesUp(t *testing.T) {
	bubble(t, 3, 2, func(t *testing.T, b *bed, ran []did) {
		for _, c := range []string{"c1", "c2", "c3"} {
			for _, other := range []string{"c1", "c2", "c3"} { // no key signs before every apiserver knows it
				order(t, ran, "apply token_file["+other+"]", "apply apiserver["+c+"]")
			}
			order(t, ran, "apply front", "apply serving["+c+"]", "apply apiserver["+c+"]", "apply controllers["+c+"]")
			order(t, ran, "apply etcd.voter["+c+"]", "apply etcd.backend["+c+"]")
			order(t, ran, "apply apiserver["+c+"]", "apply backend["+c+"]")
		}
		for _, w := range []string{"w5", "w6"} {
			order(t, ran, "apply layers["+w+"]", "apply runtime["+w+"]", "apply kubelet["+w+"]", "apply member["+w+"]", "apply in_service["+w+"]")
		}
		// One control-plane member after the other, and what needs one of them waits for no more.
		var members []did
		for _, d := range ran {
			if d.Task == "apiserver" || d.Task == "controllers" {
				members = append(members, d)
			}
		}
		for i := 0; i+1 < len(members); i += 2 {
			if members[i].Task != "apiserver" || members[i+1].Task != "controllers" || members[i].Node != members[i+1].Node {
				t.Errorf("the control plane came up as %s", members)
			}
		}
		order(t, ran, members[0].String(), "apply roles", members[2].String())
		for _, d := range ran {
			if d.action != step.Apply {
				t.Errorf("%s in the first run", d)
			}
		}
	})
}

func TestKubernetesGrowsByAWorker(t *testing.T) {
	bubble(t, 1, 2, func(t *testing.T, b *bed, _ []did) {
		ran := b.pursue(must(t, goal(1, 3), "", nil), goal(1, 3))
		order(t, ran, "apply pods[w7]", "apply kubelet[w7]", "apply member[w7]", "apply in_service[w7]")
		// Of the others only what speaks of all nodes: names and routes.
		if got := strings.Join(tasks(ran, "c1", "w5", "w6"), " "); got != "hosts network" {
			t.Errorf("on other nodes ran %s", got)
		}
		if got := tasks(ran); len(got) > 0 {
			t.Errorf("once for the cluster ran %s", got)
		}
	})
}

func TestKubernetesLosesAWorker(t *testing.T) {
	bubble(t, 1, 3, func(t *testing.T, b *bed, _ []did) {
		ran := b.pursue(must(t, goal(1, 2), "", nil), goal(1, 2))
		order(t, ran, "remove in_service[w7]", "remove member[w7]", "remove kubelet_cert[w7]")
		order(t, ran, "apply network[c1]", "remove pods[w7]")
		if got := strings.Join(tasks(ran, "c1", "w5", "w6"), " "); got != "hosts network" {
			t.Errorf("on other nodes ran %s", got)
		}
	})
}

func TestKubernetesGrowsItsControlPlane(t *testing.T) {
	bubble(t, 1, 2, func(t *testing.T, b *bed, _ []did) {
		ran := b.pursue(must(t, goal(3, 2), "", nil), goal(3, 2))
		for _, c := range []string{"c2", "c3"} {
			order(t, ran, "apply etcd.seat["+c+"]", "apply etcd.member["+c+"]", "apply etcd.voter["+c+"]", "apply apiserver["+c+"]", "apply backend["+c+"]")
			order(t, ran, "apply token_file[c1]", "apply apiserver["+c+"]") // the old member knows the new key first
		}
		// The one that was there learns the new keys, for which its apiserver is started anew while no client is sent to it.
		// Nothing else of it is touched: it has an etcd member of its own.
		order(t, ran, "remove backend[c1]", "apply token_file[c1]", "apply backend[c1]")
		if got := strings.Join(tasks(ran, "c1"), " "); got != "backend endpoint etcd.hosts hosts token_file token_keys" {
			t.Errorf("on the member that was there ran %s", got)
		}
		for _, task := range tasks(ran, "w5", "w6") {
			if task != "hosts" && task != "network" && task != "endpoint" {
				t.Errorf("%s ran on a worker", task)
			}
		}
		// And back.
		ran = b.pursue(must(t, goal(1, 2), "", nil), goal(1, 2))
		for _, c := range []string{"c2", "c3"} { // no client is sent to an apiserver whose etcd goes
			order(t, ran, "remove backend["+c+"]", "remove apiserver["+c+"]", "remove etcd.voter["+c+"]", "remove etcd.member["+c+"]")
		}
	})
}

func TestKubernetesChangesKubeletsOneByOne(t *testing.T) {
	bubble(t, 1, 3, func(t *testing.T, b *bed, _ []did) {
		edit := map[string]func(string) string{"kubernetes/files/kubelet.sh": func(s string) string { return s + "# another\n" }}
		ran := b.pursue(must(t, goal(1, 3), "", edit), goal(1, 3))
		if got := strings.Join(tasks(ran, "c1", "w5", "w6", "w7"), " "); got != "in_service kubelet" {
			t.Errorf("a new kubelet ran %s", got)
		}
		order(t, ran, "remove in_service[w5]", "apply kubelet[w5]", "apply in_service[w5]", "remove in_service[w6]", "apply kubelet[w6]",
			"apply in_service[w6]", "remove in_service[w7]", "apply kubelet[w7]", "apply in_service[w7]")
	})
}

// A renewed certificate changes a file, and restarts nothing.
func TestKubernetesRenewsQuietly(t *testing.T) {
	bubble(t, 1, 2, func(t *testing.T, b *bed, _ []did) {
		b.mu.Lock()
		b.issued[0], b.ran = b.issued[1], nil
		b.mu.Unlock()
		for _, target := range []history.Target{{Task: "kubelet_cert", Node: "w5"}, {Task: "kubelet_serving", Node: "w5"}, {Task: "serving", Node: "c1"}} {
			if err := b.Happen(t.Context(), history.Forced{Target: target, By: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		ran := b.rest()
		if got, want := strings.Join(tasks(ran, "c1", "w5", "w6"), " "), "kubelet_cert kubelet_files kubelet_serving kubelet_serving_files serving serving_files"; got != want {
			t.Errorf("renewals ran %s, want %s", got, want)
		}
	})
}

func TestKubernetesKeepsItsSecret(t *testing.T) {
	bubble(t, 1, 1, func(t *testing.T, b *bed, _ []did) {
		ran := b.pursue(must(t, goal(1, 1), "max_pods = 100", nil), goal(1, 1))
		if got := strings.Join(tasks(ran), " "); got != "" {
			t.Errorf("once for the cluster ran %s again", got)
		}
	})
}

func TestKubernetesRefuses(t *testing.T) {
	for extra, want := range map[string]string{
		`pod_cidr = "10.32.128.0/17"`:     "service_cidr (10.32.0.0/16) and pod_cidr (10.32.128.0/17) overlap: change one of them.",
		`service_cidr = "10.0.0.0/8"`:     "give it a prefix from /12 to /24",
		`pod_prefix = 16`:                 "choose one from /17 to /28",
		`cluster_domain = "demo.lab"`:     "nobody inside would find api.demo.lab",
		`cluster_domain = "api.demo.lab"`: "nobody inside would find api.demo.lab",
		`pod_prefix = 24.5`:               "choose one from /17 to /28",
		`pod_prefix = 99`:                 "choose one from /17 to /28",
		`max_pods = 300`:                  "max_pods (300) pods do not fit into a part of /24",
		`max_pods = 0`:                    "max_pods (0) pods do not fit into a part of /24: choose a whole number from 1",
		`max_pods = 1.5`:                  "max_pods (1.5) pods do not fit into a part of /24",
		`token_hours = 0`:                 "token_hours is 0: choose a whole number of hours from 1",
		`token_hours = 1.5`:               "token_hours is 1.5",
		`token_hours = 9000`:              "to 8760, a year",
		`pod_cidr = "fd00::/64"`:          "service_cidr (10.32.0.0/16) and pod_cidr (fd00::/64) have to be networks of IPv4",
		`service_cidr = "fd00::/112"`:     "service_cidr (fd00::/112) and pod_cidr (10.200.0.0/16) have to be networks of IPv4",
		`pod_cidr = "10.200.0.0/23"
    pod_prefix = 24`: "has too few parts of /24 for 3 workers",
	} {
		if _, ds := compile(t, kubernetes(goal(1, 3), extra), nil); !strings.Contains(ds.Text(), want) || strings.Contains(ds.Text(), "Invalid function argument") {
			t.Errorf("%s: want %q\n%s", extra, want, ds.Text())
		}
	}
	for _, roles := range []map[string][]string{goal(2, 1), goal(1, 0), goal(0, 1)} {
		if _, ds := compile(t, kubernetes(roles, ""), nil); !ds.HasErrors() {
			t.Errorf("%v was accepted", roles)
		}
	}
}
