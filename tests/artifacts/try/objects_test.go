package try_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"joist/cmd/system"
	"joist/content"
	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang"
)

// inputs is the scope of expressions that look at the workflow's inputs alone.
type inputs map[string]value.Value

func (in inputs) Lookup(r model.Ref) value.Value { return in[r.Name] }

// objects gives what the shipped workflow applies to a cluster, by task.
func objects(t *testing.T) map[string]string {
	t.Helper()
	const folder = "../../../content/examples"
	data, err := os.ReadFile(filepath.Join(folder, "kubernetes.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	file, diags := lang.LoadCluster("kubernetes.hcl", data)
	if diags.HasErrors() {
		t.Fatal(diags.Text())
	}
	archives, _, err := content.Gather(content.Wish{File: file, Folder: folder, Catalogue: system.Catalogue()})
	if err != nil {
		t.Fatal(err)
	}
	packs, _, err := content.Unpack(archives, system.Catalogue())
	if err != nil {
		t.Fatal(err)
	}
	m, diags := lang.Compile(lang.Source{Packs: packs, Cluster: file})
	if diags.HasErrors() {
		t.Fatal(diags.Text())
	}
	found := map[string]string{}
	for _, task := range m.Tasks {
		for _, a := range task.With {
			if task.Step.Name != "kubernetes.manifest" || a.Name != "objects" {
				continue
			}
			v, err := a.Expr.Eval(inputs(m.Inputs))
			if err != nil {
				t.Fatal(err)
			}
			found[task.Name] = v.Cty().AsString()
		}
	}
	return found
}

// script runs a script of the Kubernetes pack as an agent does, and gives what it said and how it ended.
func (c *controlPlane) script(name, action string, inputs map[string]any) (string, error) {
	c.t.Helper()
	files, err := content.Find("kubernetes", content.Builtin, "")
	if err != nil {
		c.t.Fatal(err)
	}
	inputs["url"], inputs["key"] = "https://127.0.0.1:6443", c.file("admin.key")
	inputs["identity"] = map[string]string{"leaf": c.read("admin.crt"), "chain": c.read("ca.crt")}
	given, err := json.Marshal(inputs)
	if err != nil {
		c.t.Fatal(err)
	}
	dir := c.t.TempDir()
	write(c.t, filepath.Join(dir, "script"), string(files["files/"+name]))
	write(c.t, filepath.Join(dir, "kubectl.sh"), string(files["files/kubectl.sh"]))
	write(c.t, filepath.Join(dir, "inputs.json"), string(given))
	if err := os.Mkdir(filepath.Join(dir, "artifacts"), 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Symlink(c.control, filepath.Join(dir, "artifacts/kubernetes-control")); err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(c.t.Context(), "sh", "./script")
	cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "LANG=C.UTF-8", "JOIST_ACTION=" + action, "JOIST_INPUTS=" + filepath.Join(dir, "inputs.json")}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	return strings.TrimSpace(said.String()), err
}

// What the verifies of the cluster's objects and of its members say of a real control plane, of which somebody changes something.
func TestObjectsAsApplied(t *testing.T) {
	if !inside(t) {
		return
	}
	wanted := objects(t)
	if len(wanted) != 2 {
		t.Fatalf("the workflow applies objects in %d tasks", len(wanted))
	}
	c := newControlPlane(t)
	kubectl := func(args ...string) { run(t, c.kubectl(args...)...) }
	verify := func(task, last string, more ...string) {
		t.Helper()
		said, err := c.script("as-applied.sh", "verify", map[string]any{"objects": wanted[task]})
		lines := strings.Split(said, "\n")
		if (err == nil) != (last == "") || lines[len(lines)-1] != last || slices.ContainsFunc(more, func(m string) bool { return !strings.Contains(said, m) }) {
			t.Errorf("of %s the verify says, %v:\n%s\nwant %q and %q", task, err, said, last, more)
		}
	}
	apply := func(task string) {
		t.Helper()
		if said, err := c.script("manifest.sh", "apply", map[string]any{"objects": wanted[task]}); err != nil {
			t.Fatalf("%s: %v\n%s", task, err, said)
		}
	}
	for _, task := range []string{"roles", "dns"} {
		apply(task)
		verify(task, "")
	}

	kubectl("delete", "clusterrolebinding", "joist:operators")
	verify("roles", "not as applied: rbac.authorization.k8s.io.v1.ClusterRoleBinding..joist:operators", "+  name: cluster-admin")
	verify("dns", "")
	apply("roles")
	verify("roles", "")

	kubectl("--namespace", "kube-system", "patch", "configmap", "coredns", "--type", "merge", "--patch", `{"data":{"Corefile":"elsewhere"}}`)
	kubectl("--namespace", "kube-system", "scale", "deployment", "coredns", "--replicas", "0")
	verify("dns", "not as applied: apps.v1.Deployment.kube-system.coredns v1.ConfigMap.kube-system.coredns", "-  Corefile: elsewhere", "-  replicas: 0", "+  replicas: 2")
	if got := run(t, c.kubectl("--namespace", "kube-system", "get", "configmap", "coredns", "--output", "jsonpath={.data.Corefile}")...); got != "elsewhere" {
		t.Errorf("the verify changed something: %q", got)
	}
	// What others add to an object is theirs.
	apply("dns")
	kubectl("--namespace", "kube-system", "annotate", "deployment", "coredns", "someone=else")
	verify("dns", "")

	joined := func(want string) {
		t.Helper()
		if said, err := c.script("joined.sh", "verify", map[string]any{"name": "w1"}); (err == nil) != (want == "") || said != want {
			t.Errorf("of the member the verify says %q, %v; want %q", said, err, want)
		}
	}
	joined("node w1 is not in the cluster any more")
	kubectl("create", "--filename", write(t, c.file("node.json"), `{"apiVersion":"v1","kind":"Node","metadata":{"name":"w1"}}`))
	joined("")
}
