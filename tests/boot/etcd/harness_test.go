// Package etcd_test holds joist to its first promise, through its programs alone: machines that know nothing but to boot
// from the network become an etcd cluster, grow, shrink, break and recover.
package etcd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"joist/tests/boot/lab"
)

// own adds to a lab what the tests of etcd clusters ask of it.
type own struct{ *lab.Lab }

// memory of a machine in bytes: enough for image and etcd, and small enough for four beside a compiler.
const memory = 1536 << 20

func newLab(t *testing.T, machines int) own {
	t.Helper()
	return own{lab.New(t, rack(machines))}
}

func rack(machines int) lab.Machines { return lab.Machines{Count: machines, Memory: memory} }

// file writes a cluster file.
func (l own) file(name, workflow string, nodes int, with string) string {
	l.Helper()
	path := filepath.Join(l.Data, "..", name+".hcl")
	text := fmt.Sprintf(`cluster %q {
  workflow = %s
  packs = {
    base  = { source = "builtin" }
    etcd  = { source = "builtin" }
    proof = { source = %q }
  }
  nodes   = { member = select(facts.memory >= gib(1), %d) }
  with    = { domain = "%s.lab"%s }
  storage = "memory"
}
`, name, workflow, filepath.Join(l.Root, "tests/boot/etcd/testdata/proof"), nodes, name, with)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
	return path
}
