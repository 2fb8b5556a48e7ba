package sqlstore

import (
	"slices"
	"testing"
)

func TestKeyed(t *testing.T) {
	dir := t.TempDir()
	keyed := openTest(t, Config{Dir: dir}).Keyed()
	for _, name := range []string{"b", "a", "b"} {
		must(t, keyed.Add(t.Context(), name))
	}
	for range 2 {
		must(t, keyed.Drop(t.Context(), "c"))
	}
	must(t, keyed.Drop(t.Context(), "a"))
	must(t, keyed.Add(t.Context(), "c"))
	if all, err := keyed.All(t.Context()); err != nil || !slices.Equal(all, []string{"b", "c"}) {
		t.Errorf("%q, %v", all, err)
	}
}
