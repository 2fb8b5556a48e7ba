package serve_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// declared is a cluster file of Kubernetes: line 8 has the roles, line 9 the inputs.
func declared(control, worker, with string) []byte {
	return fmt.Appendf(nil, `cluster "demo" {
  workflow = kubernetes.cluster
  packs = {
    base       = { source = "builtin" }
    etcd       = { source = "builtin" }
    kubernetes = { source = "%s" }
  }
  nodes   = { control = %s, worker = %s }
  with    = { domain = "demo.lab"%s }
  storage = "memory"
}
`, "builtin", control, worker, with)
}

// calling is declared with a workflow of one's own around the pack's, which chooses the pods' network.
func calling(t *testing.T, dir, control, worker string) []byte {
	t.Helper()
	writeFile(t, filepath.Join(dir, "own/pack.hcl"), []byte(`pack "own" {
  version  = "1.0.0"
  summary  = "Kubernetes, as one site has it."
  requires = { kubernetes = ">= 0.1.0" }
}

workflow "cluster" {
  role "control" { min = 1 }
  role "worker" { min = 1 }
  input "domain" { type = fqdn }
  task "kube" {
    step  = kubernetes.cluster
    roles = { control = role.control, worker = role.worker }
    with  = { domain = input.domain, pod_cidr = "10.99.0.0/16" }
  }
}
`))
	file := strings.Replace(string(declared(control, worker, "")), "kubernetes.cluster", "own.cluster", 1)
	return []byte(strings.Replace(file, "  packs = {", "  packs = {\n    own        = { source = \"./own\" }", 1))
}

// leading is declared with a fixed URL in place of each node's own way to the API.
func leading(t *testing.T, dir, control, worker, link string) []byte {
	t.Helper()
	writeFile(t, filepath.Join(dir, "fixed/pack.hcl"), []byte(`pack "fixed" {
  version = "1.0.0"
  summary = "A way to the API that somebody else made."
}

step "given" {
  scope = "cluster"
  doc   = "Passes on a URL."
  input "link" { type = url }
  output "url" { type = url }
  apply { outputs = { url = input.link } }
}
`))
	file := strings.Replace(string(declared(control, worker, "")), "  storage", fmt.Sprintf("  slots   = { endpoint = { step = fixed.given, with = { link = %q } } }\n  storage", link), 1)
	return []byte(strings.Replace(file, "  packs = {", "  packs = {\n    fixed      = { source = \"./fixed\" }", 1))
}

// TestPlansRefused: what cannot work is refused when it is planned and when it is applied, with the place in the cluster file
// and what to change; and nothing is claimed.
func TestPlansRefused(t *testing.T) {
	dir := t.TempDir()
	e := start(t, filepath.Join(t.TempDir(), "data"), "--run-dir", "/run/plans", "--bridge", "down0") // sockets want a short path
	e.push()
	for _, a := range []struct{ name, version string }{
		{"etcd", "3.6.8"}, {"kubernetes-control", "1.36.3"}, {"kubernetes-node", "1.36.3"}, {"containerd", "2.2.9"}, {"images", "1"},
	} {
		file := filepath.Join(dir, a.name)
		writeFile(t, file, []byte("not a real "+a.name))
		e.want(0, "", "mirror", "add", file, "--kind", "bundle", "--name", a.name, "--version", a.version, "--licence", "Apache-2.0")
	}
	// Two machines that said how much memory they have, one that has not.
	for i, memory := range []string{"4294967296", "1073741824"} {
		mac := fmt.Sprintf("52:54:00:99:00:0%d", i+1)
		id, root := e.boots(mac, fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", i+1))
		machine := e.asksWith(t.Context(), mac, id, root, `{"memory":`+memory+`}`)
		name, fingerprint := fmt.Sprintf("m-52540099000%d", i+1), ""
		e.eventually("its key waits", func() bool {
			for _, m := range e.status().Machines {
				if m.Name == name {
					fingerprint = m.Fingerprint
				}
			}
			return fingerprint != ""
		})
		e.want(0, "is approved", "node", "approve", name, fingerprint)
		must(t, <-machine.err)
	}
	const large, small, silent = "m-525400990001", "m-525400990002", "m-525400990003"
	e.boots("52:54:00:99:00:03", "00000000-0000-4000-8000-000000000003")
	e.eventually("their facts are known", func() bool {
		return strings.Contains(e.want(0, "", "node", "show", large), "4294967296") && strings.Contains(e.want(0, "", "node", "show", small), "1073741824")
	})
	// Two machines that never ran, of a provider that knows how much memory they have.
	for name, memory := range map[string]int64{"n1": 1 << 30, "n2": 2 << 30} {
		if _, err := client.New(e.socket).DefineMachine(t.Context(), v1.MachineSpec{Name: name, Memory: memory}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(names ...string) string { return `["` + strings.Join(names, `", "`) + `"]` }
	file := filepath.Join(dir, "demo.hcl")
	for name, c := range map[string]struct {
		file []byte
		says []string
	}{
		"even members": {declared(list(large, silent), list(small), ""),
			[]string{"demo.hcl:8:", "An even number of control-plane members (2)", "give control 1, 3, 5 or 7 machines"}},
		"a role without nodes": {declared(list(large), "[]", ""),
			[]string{"demo.hcl:8:", `role "worker" of workflow kubernetes.cluster has too few nodes: 0`, "Give it at least 1."}},
		"a role left out": {[]byte(strings.Replace(string(declared(list(large), "[]", "")), ", worker = []", "", 1)),
			[]string{"demo.hcl:1:", `role "worker" of workflow kubernetes.cluster has too few nodes: 0`, "Give it at least 1."}},
		"too little memory, named": {declared(list(large), list(small), ""),
			[]string{"demo.hcl:8:", "machine " + small + " has 1.00 GiB of memory, and needs 1.80 GiB as worker", "Give it more memory, or choose another machine."}},
		"too little memory, never booted": {declared(list(large), list("n1"), ""),
			[]string{"demo.hcl:8:", "machine n1 has 1.00 GiB of memory, and needs 1.80 GiB as worker", "Give it more memory, or choose another machine."}},
		"too little memory, in two roles": {declared(list(large), list(large), ""),
			[]string{"demo.hcl:8:", "machine " + large + " has 4.00 GiB of memory, and needs 4.60 GiB as control and worker"}},
		"too little memory, selected": {declared(list(large), "select(facts.memory < gib(2), 1)", ""),
			[]string{"demo.hcl:8:", "cannot find 1 machine for role worker", small + " has 1.00 GiB of memory, and a worker needs 1.80 GiB", "n1 has 1.00 GiB of memory, and a worker needs 1.80 GiB"}},
		"overlapping networks": {declared(list(large), list(silent), `, pod_cidr = "10.32.128.0/17"`),
			[]string{"demo.hcl:9:", "service_cidr (10.32.0.0/16) and pod_cidr (10.32.128.0/17) overlap: change one of them."}},
		"pods on the machines' network": {declared(list(large), list(silent), `, pod_cidr = "10.99.0.0/16"`),
			[]string{"demo.hcl:9:", "pod_cidr (10.99.0.0/16) overlaps with 10.99.0.0/24, the network of the machines and of the cluster's endpoint", "Choose one that has no address of 10.99.0.0/24."}},
		"Services on the machines' network": {declared(list(large), list(silent), `, service_cidr = "10.96.0.0/12"`),
			[]string{"demo.hcl:9:", "service_cidr (10.96.0.0/12) overlaps with 10.99.0.0/24"}},
		"pods on the machines' network, by a workflow that calls": {calling(t, dir, list(large), list(silent)),
			[]string{"demo.hcl:1:", "within of task kube.pods (10.99.0.0/16) overlaps with 10.99.0.0/24, the network of the machines", "Choose one that has no address of 10.99.0.0/24."}},
		"an endpoint that cluster DNS hides": {declared(list(large), list(silent), `, cluster_domain = "demo.lab"`),
			[]string{"demo.hcl:9:", "domain (demo.lab), or the API's name in it, lies in cluster_domain (demo.lab)", "Change one of them."}},
		"a way to the API that leads nowhere": {leading(t, dir, list(large), list(silent), "https://0.0.0.0:6443"),
			[]string{"demo.hcl:1:", "url of task endpoint is https://0.0.0.0:6443, which leads to no machine", "Choose the address of a machine or of a balancer."}},
		"a way to the API inside the cluster": {leading(t, dir, list(large), list(silent), "https://10.32.0.1:6443"),
			[]string{"demo.hcl:", "url of task endpoint is https://10.32.0.1:6443, in the cluster's own network service_cidr (10.32.0.0/16)", "Choose an address that machines reach without the cluster, or another network."}},
		"a machine that is not there": {declared(list(large), list("nobody"), ""),
			[]string{"demo.hcl:8:", "cannot give nobody to role worker of cluster demo: there is no machine of that name"}},
	} {
		writeFile(t, file, c.file)
		for _, verb := range []string{"plan", "apply"} {
			code := 1
			if strings.HasPrefix(c.says[1], "cannot ") && verb == "plan" { // a plan says which machines are missing
				code = 0
			}
			said := e.want(code, c.says[0], verb, file)
			for _, want := range c.says {
				if !strings.Contains(said, want) {
					t.Errorf("%s, %s: want %q\n%s", name, verb, want, said)
				}
			}
		}
	}
	e.refusesSkew(dir)
	if s := e.status(); len(s.Clusters) != 0 {
		t.Errorf("a refused cluster is there: %v", s.Clusters)
	}
	// What is left works: a machine that has said nothing yet may have enough.
	writeFile(t, file, declared(list(large), list(silent), ""))
	e.want(0, "", "plan", file)
	// One of 2 GiB has enough by its provider's word, although its kernel will have less to give.
	writeFile(t, file, declared(list(large), list("n2"), ""))
	e.want(0, "", "plan", file)
}

// refusesSkew plans with a pack whose kubelet is newer than its apiserver, or four minor versions behind it.
func (e *engine) refusesSkew(dir string) {
	t := e.t
	t.Helper()
	for version, says := range map[string]string{
		"1.37.0": "artifact node 1.37.0 is newer than control 1.36.3, which it follows",
		"1.32.9": "artifact node 1.32.9 is too old for control 1.36.3: it may be 3 minor versions behind",
	} {
		writeFile(t, filepath.Join(dir, "p/pack.hcl"), []byte(strings.Replace(suppliedPack, "artifact \"tool\"", fmt.Sprintf(`artifact "control" {
  version = "1.36.3"
  licence = "MIT"
  steps   = 1
}

artifact "node" {
  version = "%s"
  licence = "MIT"
  follows = "control"
  behind  = 3
}

artifact "tool"`, version), 1)))
		writeFile(t, filepath.Join(dir, "p/files/use.sh"), []byte("#!/bin/sh\n"))
		writeFile(t, filepath.Join(dir, "skew.hcl"), clusterFile(""))
		if said := e.want(1, says, "plan", filepath.Join(dir, "skew.hcl")); !strings.Contains(said, "pack.hcl:15:") || !strings.Contains(said, "Change one of the versions.") {
			t.Errorf("%s", said)
		}
	}
}

const servedPack = `pack "q" {
  version  = "1.0.0"
  summary  = "Two endpoints and a way to one."
  requires = { base = ">= 0.1.0" }
}

step "given" {
  scope = "cluster"
  doc   = "A way that somebody else made."
  input "link" { type = url }
  output "url" { type = url }
  apply { outputs = { url = input.link } }
}

workflow "cluster" {
  input "domain" { type = fqdn }
  input "name" {
    type    = string
    default = "api"
  }
  input "port" {
    type    = number
    default = 6443
  }
  input "link" {
    type    = url
    default = "https://192.0.2.1:6443"
  }
  input "cidr" {
    type    = cidr
    default = "10.32.0.0/16"
  }
  task "front" {
    step = base.balancer
    with = { name = "${input.name}.${input.domain}", port = input.port }
  }
  task "other" {
    step = base.balancer
    with = { name = "other.${input.domain}", port = 6443 }
  }
  task "network" {
    step = base.network
    with = { within = input.cidr, prefix = 24 }
  }
  task "given" {
    step = given
    with = { link = input.link }
  }
}
`

// TestEndpointsRefused: an endpoint that nobody could reach is refused when it is planned and when it is applied, with the input
// that is to blame and what to change.
func TestEndpointsRefused(t *testing.T) {
	dir := t.TempDir()
	e := start(t, filepath.Join(t.TempDir(), "data"))
	writeFile(t, filepath.Join(dir, "q/pack.hcl"), []byte(servedPack))
	file := func(name, with string) string {
		path := filepath.Join(dir, name+".hcl")
		writeFile(t, path, fmt.Appendf(nil, "cluster %q {\n  workflow = q.cluster\n  packs    = { base = { source = \"builtin\" }, q = { source = \"./q\" } }\n  nodes    = {}\n  with = {\n    %s\n  }\n}\n", name, with))
		return path
	}
	e.want(0, "converged", "apply", file("first", `domain = "demo.lab"`))
	for name, c := range map[string]struct {
		with string
		says []string
	}{
		"another's zone":        {`domain = "demo.lab"`, []string{"second.hcl:6:", "https://api.demo.lab:6443 leads to cluster first already, so nobody would reach this cluster there", "Choose another name or port, such as those of a domain of its own."}},
		"within another's zone": {`domain = "second.demo.lab"`, []string{"second.hcl:6:", "second/front could not be found by the name api.second.demo.lab: cluster first has the zone demo.lab", "Give the clusters domains of which neither contains the other."}},
		"no port":               {"domain = \"second.lab\"\n    port = 70000", []string{"second.hcl:7:", "nobody could reach second/front at 70000: that is no port", "Choose a whole number from 1 to 65535."}},
		"twice":                 {"domain = \"second.lab\"\n    name = \"other\"", []string{"second.hcl:6:", "second/front and second/other both want to be reached at https://other.second.lab:6443"}},
		"the name server":       {"domain = \"second.lab\"\n    name = \"ns\"", []string{"name ns.second.lab is that of the name server itself"}},
		"a way to nowhere":      {"domain = \"second.lab\"\n    link = \"https://0.0.0.0:6443\"", []string{"url of task given is https://0.0.0.0:6443, which leads to no machine"}},
		"a way inside":          {"domain = \"second.lab\"\n    cidr = \"192.0.2.0/24\"", []string{"second.hcl:7:", "https://192.0.2.1:6443, in the cluster's own network cidr (192.0.2.0/24): nobody could reach it before there is a cluster"}},
	} {
		for _, verb := range []string{"plan", "apply"} {
			said := e.want(1, c.says[0], verb, file("second", c.with))
			for _, want := range c.says {
				if !strings.Contains(said, want) {
					t.Errorf("%s, %s: want %q\n%s", name, verb, want, said)
				}
			}
		}
	}
	e.want(0, "converged", "apply", file("second", `domain = "second.lab"`))
	e.want(0, "converged", "apply", file("first", `domain = "demo.lab"`)) // what it has itself is in nobody's way
}
