package etcd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"joist/tests/boot/lab"
)

// TestDisk is the life of a machine's data disk: made for a node, found again after a power cut with the same incarnation
// and the same data, wiped and made anew, wiped and given back blank.
func TestDisk(t *testing.T) {
	l := newLab(t, 0)
	l.Must("lab", "machine", "add", "n1", "--data", l.Data, "--memory", fmt.Sprint(memory), "--disk", fmt.Sprint(6<<30))
	file := filepath.Join(l.Data, "..", "kept.hcl")
	text := fmt.Sprintf(`cluster "kept" {
  workflow = kept.cluster
  packs = {
    base = { source = "builtin" }
    kept = { source = %q }
  }
  nodes   = { keeper = ["n1"] }
  storage = "disk"
}
`, filepath.Join(l.Root, "tests/boot/etcd/testdata/kept"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first := l.life(l.Pursue("converged", "apply", file), 1)
	image := filepath.Join(l.Data, "machines/machines/n1/disk.raw")
	if blocks(t, image) == 0 {
		t.Error("nothing is on the disk")
	}

	before := l.Last("kept")
	l.Must("node", "power", "n1", "cycle")
	l.Await("the line after the power cut", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/kept" && e.Seq > before && e.Kind == "succeeded" && e.Instance() == "line[n1]"
	})
	if again := l.life(l.Pursue("converged", "watch", "kept"), 2); again != first {
		t.Errorf("after the power cut the incarnation is %s, and was %s", again, first)
	}
	l.Unchanged("kept")

	var re struct {
		Good   bool
		Rounds []json.RawMessage
	}
	l.Decode(&re, lab.Patience, "redeploy", "kept", "--times", "1", "--yes")
	t.Logf("redeploy: %s", re.Rounds)
	if !re.Good || len(re.Rounds) != 1 {
		t.Fatalf("redeploy: %+v", re)
	}
	second := l.life(l.Pursue("converged", "watch", "kept"), 1)
	if second == first {
		t.Error("a wiped node has the incarnation that it had")
	}
	l.Await("the end of the first incarnation", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/kept" && e.Kind == "node.ended" && e.Incarnation == first && strings.Contains(e.Why, "vda (6.0 GiB) was discarded and read back blank")
	})

	// The scout that wipes the disk comes from the frozen set as well: the engine has no other.
	l.Must("mirror", "freeze", "winter", "--cluster", "kept")
	if err := os.WriteFile(file, []byte(strings.Replace(text, "storage =", "frozen  = \"winter\"\n  storage =", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Pursue("converged", "apply", file)
	l.Sourceless()
	l.Pursue("destroyed", "destroy", "kept", "--yes")
	l.Await("the end of the second incarnation", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/kept" && e.Kind == "node.ended" && e.Incarnation == second && strings.Contains(e.Why, "read back blank")
	})
	if n := blocks(t, image); n != 0 {
		t.Errorf("the disk that was given back has %d blocks in use", n)
	}
}

// life wants the file on the data disk to have so many lines, and gives the node's incarnation.
func (l own) life(o lab.Outcome, lines int) string {
	l.Helper()
	if got, want := strings.Join(strings.Fields(string(o.Outputs["lines"])), ""), fmt.Sprintf(`{"n1":%d}`, lines); got != want {
		l.Errorf("the file on the data disk has %s lines, want %s", got, want)
	}
	members := l.Status("kept").Members
	if len(members) != 1 || members[0].Incarnation == "" {
		l.Fatalf("members %+v", members)
	}
	return members[0].Incarnation
}

// blocks is how much of a sparse file is in use, in blocks of 512 bytes.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks
}
