package lang_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestScout: what would keep a machine in scout for ever, or is known only once it has left, is refused where it stands; what it may
// wait for and look at is not.
func TestScout(t *testing.T) {
	const name = "testdata/scout.txtar"
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	files, want := map[string][]byte{}, ""
	a.Files = slicesDelete(a.Files, func(f txtar.File) bool {
		if f.Name == "want" {
			want = string(f.Data)
			return true
		}
		files[f.Name] = f.Data
		return false
	})
	got := said(t, files)
	if *update {
		a.Files = append(a.Files, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
