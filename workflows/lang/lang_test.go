package lang_test

import (
	"os"
	"path/filepath"
	"testing"

	"joist/engine/model"
	"joist/engine/step"
	"joist/workflows/lang"
)

var catalogue = lang.Catalogue{
	Calls: []step.Signature{
		{Call: "names.put", Inputs: map[string]string{"name": "fqdn", "addresses": "list(address)", "zone": "fqdn"}, Outputs: map[string]string{"fqdn": "fqdn"}, Optional: []string{"zone"}},
		{Call: "certs.sign", Inputs: map[string]string{"csr": "csr", "profile": "string", "names": "list(fqdn)"}, Outputs: map[string]string{"certificate": "certificate"}},
		{Call: "balance.front", Inputs: map[string]string{"name": "fqdn", "port": "number"}, Outputs: map[string]string{"url": "url"}},
		{Call: "balance.back", Inputs: map[string]string{"front": "url", "address": "address", "port": "number"}},
		{Call: "secrets.make", Inputs: map[string]string{"name": "string"}, Outputs: map[string]string{"token": "secret(string)"}},
	},
	Builtins: []step.Signature{
		{Call: "key", Inputs: map[string]string{"purpose": "string"}, Outputs: map[string]string{"path": "path", "csr": "csr"}},
		{Call: "file", Inputs: map[string]string{"purpose": "string"}, Outputs: map[string]string{"path": "path", "csr": "csr"}},
	},
}

func load(t testing.TB, name string) *lang.Pack {
	t.Helper()
	files, err := lang.ReadFS(os.DirFS(filepath.Join("testdata", name)))
	if err != nil {
		t.Fatal(err)
	}
	p, ds := lang.Load(files, catalogue)
	if len(ds) > 0 {
		t.Fatalf("%s:\n%s", name, ds.Text())
	}
	return p
}

func source(t testing.TB) lang.Source {
	t.Helper()
	text, err := os.ReadFile("testdata/demo.hcl")
	if err != nil {
		t.Fatal(err)
	}
	file, ds := lang.LoadCluster("demo.hcl", text)
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	return lang.Source{Packs: map[string]*lang.Pack{"base": load(t, "base"), "etcd": load(t, "etcd")}, Cluster: file}
}

func compile(t testing.TB) *model.Model {
	t.Helper()
	m, ds := lang.Compile(source(t))
	if len(ds) > 0 {
		t.Fatal(ds.Text())
	}
	return m
}

// TestDesignExample: the etcd pack of the design compiles without a remark.
func TestDesignExample(t *testing.T) {
	m := compile(t)
	var names []string
	at := map[string]int{}
	for i := range m.Tasks {
		task := &m.Tasks[i]
		names = append(names, task.Name)
		for _, e := range task.Edges() {
			if _, ok := at[e.Task]; !ok {
				t.Errorf("%s stands before %s, to which it refers", task.Name, e.Task)
			}
		}
		at[task.Name] = i
	}
	if len(names) != 11 {
		t.Errorf("tasks: %v", names)
	}
	if m.Trust != model.Approved || m.Storage != "memory" || len(m.Rollouts) != 1 || len(m.Outputs) != 1 || m.Roles[0].Min != 1 {
		t.Errorf("model: %+v", m)
	}
}
