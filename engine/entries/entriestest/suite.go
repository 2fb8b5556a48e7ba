// Package entriestest is the suite that every entries.Store passes.
package entriestest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"joist/engine/entries"
)

// Run runs the suite; each test gets a new, empty store.
func Run(t *testing.T, fresh func(t *testing.T) entries.Store) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, entries.Store)
	}{
		{"replace", testReplace},
		{"owners", testOwners},
		{"scopes", testScopes},
		{"epochs", testEpochs},
		{"many entries", testMany},
		{"symmetry", testSymmetry},
		{"at the same time", testConcurrent},
		{"like the memory store", testModel},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

var demo = entries.Scope{Service: "names", Cluster: "demo"}

// wanted makes entries from keys and values in turn.
func wanted(pairs ...string) []entries.Entry {
	var list []entries.Entry
	for pair := range slices.Chunk(pairs, 2) {
		list = append(list, entries.Entry{Key: pair[0], Value: json.RawMessage(pair[1])})
	}
	return list
}

// show lists a scope as "cluster key owner value" and the version.
func show(t *testing.T, s entries.Store, scope entries.Scope) ([]string, uint64) {
	t.Helper()
	list, version, err := s.List(t.Context(), scope)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range list {
		if e.Service != scope.Service {
			t.Errorf("entry %s of service %s among those of %s", e.Key, e.Service, scope.Service)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s", e.Cluster, e.Key, e.Owner, e.Value))
	}
	return lines, version
}

func replace(t *testing.T, s entries.Store, scope entries.Scope, owner string, pairs ...string) uint64 {
	t.Helper()
	version, err := s.Replace(t.Context(), scope, entries.Writer{Owner: owner, Epoch: 1}, wanted(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func expect(t *testing.T, s entries.Store, scope entries.Scope, want ...string) {
	t.Helper()
	if got, _ := show(t, s, scope); !slices.Equal(got, want) {
		t.Fatalf("entries (-want +got):\n%s", cmp.Diff(want, got))
	}
}

func testReplace(t *testing.T, s entries.Store) {
	expect(t, s, demo)
	_, none := show(t, s, demo)
	v1 := replace(t, s, demo, "x", "b", `1`, "a", `{"k":"ä"}`)
	expect(t, s, demo, `demo a x {"k":"ä"}`, `demo b x 1`)
	if again := replace(t, s, demo, "x", "a", `{"k":"ä"}`, "b", `1`); again != v1 || v1 <= none {
		t.Errorf("version %d, then %d, for the same set, after %d", v1, again, none)
	}
	for _, step := range []struct {
		pairs []string
		want  []string
	}{
		{[]string{"a", `2`, "b", `1`}, []string{`demo a x 2`, `demo b x 1`}},
		{[]string{"b", `1`, "c", `3`}, []string{`demo b x 1`, `demo c x 3`}},
		{[]string{"d", `null`, "d", `4`}, []string{`demo d x 4`}}, // of one key twice, the last one stands
		{nil, nil},
	} {
		version := replace(t, s, demo, "x", step.pairs...)
		expect(t, s, demo, step.want...)
		if _, listed := show(t, s, demo); version <= v1 || listed != version {
			t.Errorf("version %d after %d, listed as %d", version, v1, listed)
		}
		v1 = version
	}
	if version := replace(t, s, demo, "x"); version != v1 {
		t.Errorf("removing nothing changed the version from %d to %d", v1, version)
	}
}

func testOwners(t *testing.T, s entries.Store) {
	before := replace(t, s, demo, "x", "a", `1`, "b", `2`)
	_, err := s.Replace(t.Context(), demo, entries.Writer{Owner: "y", Epoch: 1}, wanted("c", `3`, "b", `2`, "a", `1`))
	var owned *entries.OwnedError
	if !errors.As(err, &owned) || *owned != (entries.OwnedError{Key: "b", Owner: "x", Asked: "y"}) {
		t.Fatalf("error %v", err)
	}
	expect(t, s, demo, `demo a x 1`, `demo b x 2`) // nothing of the call stands
	if _, version := show(t, s, demo); version != before {
		t.Errorf("a refused call changed the version from %d to %d", before, version)
	}
	replace(t, s, demo, "y", "c", `3`)
	replace(t, s, demo, "x", "b", `2`)
	expect(t, s, demo, `demo b x 2`, `demo c y 3`)
	replace(t, s, demo, "y", "a", `1`, "c", `3`) // free now
	expect(t, s, demo, `demo a y 1`, `demo b x 2`, `demo c y 3`)

	// The scope and owner that an entry names do not count: those of the call do.
	entry := entries.Entry{Scope: entries.Scope{Service: "certs", Cluster: "other"}, Key: "d", Owner: "x", Value: json.RawMessage(`4`)}
	if _, err := s.Replace(t.Context(), demo, entries.Writer{Owner: "z", Epoch: 1}, []entries.Entry{entry}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, demo, `demo a y 1`, `demo b x 2`, `demo c y 3`, `demo d z 4`)
}

func testScopes(t *testing.T, s entries.Store) {
	other, certs := entries.Scope{Service: "names", Cluster: "Other"}, entries.Scope{Service: "certs", Cluster: "demo"}
	v1 := replace(t, s, demo, "x", "a", `1`)
	v2 := replace(t, s, other, "y", "a", `2`)
	v3 := replace(t, s, certs, "z", "a", `3`)
	if v1 >= v2 || v2 >= v3 {
		t.Errorf("versions %d, %d, %d do not grow over scopes", v1, v2, v3)
	}
	expect(t, s, demo, `demo a x 1`)
	expect(t, s, other, `Other a y 2`)
	expect(t, s, certs, `demo a z 3`)
	expect(t, s, entries.Scope{Service: "names"}, `Other a y 2`, `demo a x 1`)
	expect(t, s, entries.Scope{Service: "balance"})
	replace(t, s, other, "x", "b", `5`) // an owner's entries elsewhere are left alone
	expect(t, s, demo, `demo a x 1`)
}

func testEpochs(t *testing.T, s entries.Store) {
	write := func(cluster string, epoch uint64, value string) error {
		_, err := s.Replace(t.Context(), entries.Scope{Service: "names", Cluster: cluster}, entries.Writer{Owner: "x", Epoch: epoch}, wanted("a", value))
		return err
	}
	for _, step := range []struct {
		cluster string
		epoch   uint64
		value   string
		newest  uint64 // in the error, 0 for none
	}{
		{"demo", 3, `1`, 0}, {"demo", 2, `2`, 3}, {"demo", 3, `3`, 0},
		{"demo", 7, `3`, 0},                      // changes nothing, and is seen all the same
		{"demo", 6, `3`, 7}, {"demo", 0, `3`, 7}, // would change nothing, and is refused all the same
		{"other", 1, `1`, 0}, {"demo", 8, `4`, 0},
	} {
		err := write(step.cluster, step.epoch, step.value)
		var stale *entries.StaleEpochError
		switch {
		case step.newest == 0 && err != nil:
			t.Fatalf("epoch %d: %v", step.epoch, err)
		case step.newest != 0 && (!errors.As(err, &stale) || *stale != entries.StaleEpochError{Asked: step.epoch, Newest: step.newest}):
			t.Fatalf("epoch %d: %v", step.epoch, err)
		}
	}
	// The epoch is the cluster's, whichever the service.
	_, err := s.Replace(t.Context(), entries.Scope{Service: "certs", Cluster: "demo"}, entries.Writer{Owner: "x", Epoch: 7}, nil)
	var stale *entries.StaleEpochError
	if !errors.As(err, &stale) {
		t.Errorf("another service: %v", err)
	}
	expect(t, s, entries.Scope{Service: "names"}, `demo a x 4`, `other a x 1`)
}

func testMany(t *testing.T, s entries.Store) {
	const n = 3000 // more than one statement takes
	var pairs, want []string
	for i := range n {
		key := fmt.Sprintf("k%04d", i)
		pairs = append(pairs, key, fmt.Sprint(i))
		want = append(want, fmt.Sprintf("demo %s x %d", key, i))
	}
	replace(t, s, demo, "x", pairs...)
	expect(t, s, demo, want...)
	replace(t, s, demo, "x", pairs[:10]...)
	expect(t, s, demo, want[:5]...)
}

// testSymmetry adds and removes owners in any order: the digest comes back.
func testSymmetry(t *testing.T, s entries.Store) {
	digest := func() string {
		t.Helper()
		list, _, err := s.List(t.Context(), entries.Scope{Service: "names"})
		if err != nil {
			t.Fatal(err)
		}
		return entries.Digest(list)
	}
	replace(t, s, demo, "founder", "a", `1`, "b", `2`)
	before := digest()
	replace(t, s, demo, "n1", "c", `3`)
	replace(t, s, demo, "n2", "d", `4`)
	if digest() == before {
		t.Error("the digest does not see two more entries")
	}
	replace(t, s, demo, "n1")
	replace(t, s, demo, "n2")
	if digest() != before {
		t.Error("adding and removing changed the digest")
	}
}

// testConcurrent has owners compete for one key: one has it in the end, and each success was a version of its own.
func testConcurrent(t *testing.T, s entries.Store) {
	const owners = 8
	versions := make([]uint64, owners)
	var wg sync.WaitGroup
	for i := range owners {
		wg.Go(func() {
			own := fmt.Sprintf("own%d", i)
			version, err := s.Replace(context.WithoutCancel(t.Context()), demo, entries.Writer{Owner: own, Epoch: 1}, wanted("shared", `1`, own, `2`))
			var owned *entries.OwnedError
			if err != nil && !errors.As(err, &owned) {
				t.Errorf("%s: %v", own, err)
			}
			versions[i] = version
		})
	}
	wg.Wait()
	won := slices.DeleteFunc(versions, func(v uint64) bool { return v == 0 })
	list, _ := show(t, s, demo)
	if len(won) != 1 || len(list) != 2 {
		t.Errorf("%d owners won, and there are %q", len(won), list)
	}
}

// testModel runs random calls on the store and on entries.Memory side by side.
func testModel(t *testing.T, s entries.Store) {
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++ // a service of its own for each run, in one store
		var model entries.Memory
		for range rapid.IntRange(1, 15).Draw(rt, "calls") {
			scope := entries.Scope{Service: fmt.Sprintf("service%d", round), Cluster: fmt.Sprintf("c%d-%d", round, rapid.IntRange(0, 1).Draw(rt, "cluster"))}
			writer := entries.Writer{
				Owner: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "owner"),
				Epoch: rapid.SampledFrom([]uint64{5, 5, 5, 5, 4, 6}).Draw(rt, "epoch"),
			}
			var want []entries.Entry
			for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 0, 3, rapid.ID).Draw(rt, "keys") {
				want = append(want, entries.Entry{Key: key, Value: json.RawMessage(rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "value"))})
			}
			_, before, _ := model.List(t.Context(), scope)
			_, version, err := s.List(t.Context(), scope)
			if err != nil {
				rt.Fatal(err)
			}
			wantVersion, wantErr := model.Replace(t.Context(), scope, writer, want)
			gotVersion, gotErr := s.Replace(t.Context(), scope, writer, want)
			if diff := cmp.Diff(wantErr, gotErr); diff != "" {
				rt.Fatalf("error (-want +got):\n%s", diff)
			}
			if gotErr == nil && (wantVersion > before) != (gotVersion > version) {
				rt.Fatalf("version from %d to %d where the model's went from %d to %d", version, gotVersion, before, wantVersion)
			}
			all := entries.Scope{Service: scope.Service}
			wantList, _, _ := model.List(t.Context(), all)
			gotList, _, err := s.List(t.Context(), all)
			if diff := cmp.Diff(wantList, gotList); diff != "" || err != nil {
				rt.Fatalf("entries (-want +got): %v\n%s", err, diff)
			}
		}
	})
}
