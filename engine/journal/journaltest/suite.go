// Package journaltest is the suite that every journal store passes, and the faults that tests inject into one.
package journaltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"joist/engine/journal"
)

// Handle is a store as one controller has it open.
type Handle struct {
	Store     journal.Store
	Snapshots journal.Snapshots
	Blobs     journal.Blobs
	Close     func() error
}

// Data is what controllers open one after the other.
type Data struct {
	// Open opens the data as a controller does that starts.
	Open func() (Handle, error)

	// Exclusive says that a second live controller is refused: by Open, or by Acquire of a journal that the first one has.
	Exclusive bool

	// DamageSnapshot and DamageRecord change one byte of what is stored; MissRecord removes what holds the record.
	DamageSnapshot func(t *testing.T, journal string)
	DamageRecord   func(t *testing.T, journal string, seq uint64) // nil: this store's records cannot be damaged
	MissRecord     func(t *testing.T, journal string, seq uint64) // nil as well
}

// Run runs the suite; each test gets new, empty data.
func Run(t *testing.T, fresh func(t *testing.T) Data) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, Data)
	}{
		{"acquire", testAcquire},
		{"append and read", testAppend},
		{"order and ranges", testRanges},
		{"fencing", testFencing},
		{"conflict", testConflict},
		{"refused batches leave nothing", testRefused},
		{"reading", testReading},
		{"many writers", testConcurrent},
		{"one winner", testOneWinner},
		{"reopen", testReopen},
		{"second controller", testSecond},
		{"snapshots", testSnapshots},
		{"damaged snapshot", testDamagedSnapshot},
		{"damaged record", testDamagedRecord},
		{"blobs", testBlobs},
		{"like the model", testModel},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

// Records makes n records after a sequence, whose content follows from their sequence alone.
func Records(after uint64, n int) []journal.Record {
	records := make([]journal.Record, n)
	for i := range records {
		seq := after + 1 + uint64(i)
		data, err := json.Marshal(map[string]any{"seq": seq, "text": strings.Repeat(fmt.Sprint(seq%10), int(seq*37%500))})
		if err != nil {
			panic(err) // a map of numbers and texts always encodes
		}
		// Times go back now and then: clocks do.
		at := time.Unix(1_790_000_000, int64(seq*seq*7919%1_000_000_007)).UTC()
		records[i] = journal.Record{Seq: seq, Time: at, Kind: fmt.Sprintf("test.kind%d", seq%3), Version: int(seq % 4), Data: data}
	}
	return records
}

// ReadAll returns the records after a sequence.
func ReadAll(t *testing.T, store journal.Store, name string, after uint64) []journal.Record {
	t.Helper()
	var all []journal.Record
	must(t, store.Read(t.Context(), name, after, func(r journal.Record) error {
		all = append(all, r)
		return nil
	}))
	return all
}

func open(t *testing.T, data Data) Handle {
	t.Helper()
	h, err := data.Open()
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

func acquire(t *testing.T, store journal.Store, name string) uint64 {
	t.Helper()
	epoch, err := store.Acquire(t.Context(), name, "test")
	must(t, err)
	return epoch
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return // quicker than a difference
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// equal compares records quickly: a test may read many.
func equal(a, b []journal.Record) bool {
	return slices.EqualFunc(a, b, func(a, b journal.Record) bool {
		return a.Seq == b.Seq && a.Time.Equal(b.Time) && a.Kind == b.Kind && a.Version == b.Version && bytes.Equal(a.Data, b.Data)
	})
}

// asError fails unless err is one of type E.
func asError[E error](t *testing.T, err error) E {
	t.Helper()
	var typed E
	if !errors.As(err, &typed) {
		t.Fatalf("error %v (%T) instead of %T", err, err, typed)
	}
	return typed
}

func testAcquire(t *testing.T, data Data) {
	s := open(t, data).Store
	list, err := s.List(t.Context())
	must(t, err)
	same(t, "journals at first", len(list), 0)
	if _, err := s.Acquire(t.Context(), "", "test"); err == nil {
		t.Fatal("a journal without a name was acquired")
	}
	last := uint64(0)
	for _, holder := range []string{"one", "two", "three"} {
		epoch, err := s.Acquire(t.Context(), "demo", holder)
		must(t, err)
		if epoch <= last {
			t.Fatalf("epoch %d after %d", epoch, last)
		}
		last = epoch
	}
	acquire(t, s, "another")
	acquire(t, s, "Zoo")
	list, err = s.List(t.Context())
	must(t, err)
	same(t, "number of journals", len(list), 3)
	same(t, "order", []string{list[0].Journal, list[1].Journal, list[2].Journal}, []string{"Zoo", "another", "demo"})
	same(t, "holder", list[2].Holder, "three")
	same(t, "epoch", list[2].Epoch, last)
	same(t, "last", list[2].Last, uint64(0))
}

func testAppend(t *testing.T, data Data) {
	s := open(t, data).Store
	epoch := acquire(t, s, "demo")
	want := []journal.Record{
		{Seq: 1, Time: time.Unix(0, 1), Kind: "a", Version: 0, Data: []byte(`null`)},
		{Seq: 2, Time: time.Date(1969, 1, 2, 3, 4, 5, 6, time.UTC), Kind: strings.Repeat("k", journal.MaxKind), Version: 1 << 30, Data: []byte(`{"b": [1, 2,  3]}`)},
		{Seq: 3, Time: time.Date(2261, 1, 1, 0, 0, 0, 999_999_999, time.FixedZone("east", 3600)), Kind: "ünï", Version: 7, Data: []byte(`"` + strings.Repeat("x", 300_000) + `"`)},
	}
	must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: 0, Records: want}))
	got := ReadAll(t, s, "demo", 0)
	for i := range want {
		want[i].Time = want[i].Time.UTC()
	}
	same(t, "records", got, want)
	same(t, "zone", got[2].Time.Location().String(), "UTC")

	input := Records(3, 2)
	kept := string(input[0].Data)
	must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: 3, Records: input}))
	input[0].Data[1] = 'X' // the caller's again
	same(t, "record after its writer changed the input", string(ReadAll(t, s, "demo", 3)[0].Data), kept)
}

func testRanges(t *testing.T, data Data) {
	s := open(t, data).Store
	epoch, other := acquire(t, s, "demo"), acquire(t, s, "other")
	var after uint64
	for _, n := range []int{1, 2, 700, 1, 1500, 40, 1, 1} {
		must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: after, Records: Records(after, n)}))
		after += uint64(n)
	}
	for i := range uint64(100) { // more rows than a page has
		must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: after + i, Records: Records(after+i, 1)}))
	}
	after += 100
	must(t, s.Append(t.Context(), journal.Batch{Journal: "other", Epoch: other, After: 0, Records: Records(0, 5)}))
	all := Records(0, int(after))
	for _, from := range []uint64{0, 1, 2, 3, 4, 500, 702, 703, 704, 2000, after - 101, after - 33, after - 1, after, after + 1, after + 1000} {
		want := all[min(from, after):]
		if got := ReadAll(t, s, "demo", from); !equal(got, want) {
			t.Fatalf("after %d: %d records that are not the %d wanted", from, len(got), len(want))
		}
	}
	same(t, "the other journal", ReadAll(t, s, "other", 0), Records(0, 5))
	same(t, "a journal that is not there", len(ReadAll(t, s, "none", 0)), 0)
	list, err := s.List(t.Context())
	must(t, err)
	same(t, "last sequences", []uint64{list[0].Last, list[1].Last}, []uint64{after, 5})
}

func testFencing(t *testing.T, data Data) {
	h := open(t, data)
	s := h.Store
	old := acquire(t, s, "demo")
	must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: old, After: 0, Records: Records(0, 2)}))
	epoch := acquire(t, s, "demo")
	for _, stale := range []uint64{old, 0, epoch + 1} {
		for _, after := range []uint64{2, 0, 7} { // being fenced weighs more than being wrong
			err := s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: stale, After: after, Records: Records(after, 1)})
			same(t, "error", *asError[*journal.FencedError](t, err), journal.FencedError{Journal: "demo", Epoch: stale, Newest: epoch})
		}
	}
	err := s.Append(t.Context(), journal.Batch{Journal: "never", Epoch: 0, Records: Records(0, 1)})
	same(t, "newest epoch of a journal never acquired", asError[*journal.FencedError](t, err).Newest, uint64(0))
	err = h.Snapshots.Save(t.Context(), old, journal.Snapshot{Journal: "demo", Seq: 2})
	asError[*journal.FencedError](t, err)
	must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: 2, Records: Records(2, 1)}))
	same(t, "records", ReadAll(t, s, "demo", 0), Records(0, 3))
}

func testConflict(t *testing.T, data Data) {
	s := open(t, data).Store
	epoch := acquire(t, s, "demo")
	must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: 0, Records: Records(0, 3)}))
	for _, after := range []uint64{0, 2, 4} {
		err := s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: after, Records: Records(after, 2)})
		same(t, "error", *asError[*journal.ConflictError](t, err), journal.ConflictError{Journal: "demo", After: after, Last: 3})
	}
	same(t, "records", ReadAll(t, s, "demo", 0), Records(0, 3))
}

func testRefused(t *testing.T, data Data) {
	s := open(t, data).Store
	epoch := acquire(t, s, "demo")
	for name, spoil := range map[string]func(*journal.Batch){
		"no records":      func(b *journal.Batch) { b.Records = nil },
		"no journal":      func(b *journal.Batch) { b.Journal = "" },
		"gap":             func(b *journal.Batch) { b.Records[2].Seq++ },
		"no kind":         func(b *journal.Batch) { b.Records[2].Kind = "" },
		"long kind":       func(b *journal.Batch) { b.Records[2].Kind = strings.Repeat("k", journal.MaxKind+1) },
		"version":         func(b *journal.Batch) { b.Records[2].Version = -1 },
		"no data":         func(b *journal.Batch) { b.Records[2].Data = nil },
		"data not JSON":   func(b *journal.Batch) { b.Records[2].Data = []byte(`{"a"`) },
		"two JSON values": func(b *journal.Batch) { b.Records[2].Data = []byte(`1 2`) },
		"no time":         func(b *journal.Batch) { b.Records[2].Time = time.Time{} },
		"long data": func(b *journal.Batch) {
			b.Records[2].Data = []byte(`"` + strings.Repeat("x", journal.MaxData) + `"`)
		},
	} {
		batch := journal.Batch{Journal: "demo", Epoch: epoch, After: 0, Records: Records(0, 3)}
		spoil(&batch)
		if err := s.Append(t.Context(), batch); err == nil {
			t.Fatalf("%s: accepted", name)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Append(ended, journal.Batch{Journal: "demo", Epoch: epoch, After: 0, Records: Records(0, 3)})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v of an append whose context had ended", err)
	}
	same(t, "records", len(ReadAll(t, s, "demo", 0)), 0)
}

func testReading(t *testing.T, data Data) {
	s := open(t, data).Store
	epoch := acquire(t, s, "demo")
	must(t, s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: 0, Records: Records(0, 10)}))
	enough := errors.New("enough")
	n := 0
	err := s.Read(t.Context(), "demo", 0, func(journal.Record) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 3 {
		t.Fatalf("error %v after %d records", err, n)
	}
	// The reader may write and read: no lock is held.
	var seen []uint64
	last := uint64(10)
	must(t, s.Read(t.Context(), "demo", 8, func(r journal.Record) error {
		seen = append(seen, r.Seq)
		last++
		return s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: last - 1, Records: Records(last-1, 1)})
	}))
	same(t, "records seen", seen, []uint64{9, 10})
	same(t, "records", ReadAll(t, s, "demo", 0), Records(0, 12))
}

func testConcurrent(t *testing.T, data Data) {
	s := open(t, data).Store
	const writers, appends, size = 12, 25, 3
	var wg sync.WaitGroup
	for i := range writers {
		name := fmt.Sprintf("cluster%d", i)
		wg.Go(func() {
			epoch, err := s.Acquire(t.Context(), name, "test")
			for n := uint64(0); n < appends && err == nil; n++ {
				err = s.Append(t.Context(), journal.Batch{Journal: name, Epoch: epoch, After: n * size, Records: Records(n*size, size)})
				if n%5 == 0 && err == nil { // one that must fail, alone
					stale := s.Append(t.Context(), journal.Batch{Journal: name, Epoch: epoch - 1, After: n * size, Records: Records(n*size, size)})
					var fenced *journal.FencedError
					if !errors.As(stale, &fenced) {
						err = fmt.Errorf("stale append: %w", stale)
					}
				}
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	for i := range writers {
		if got := ReadAll(t, s, fmt.Sprintf("cluster%d", i), 0); !equal(got, Records(0, appends*size)) {
			t.Errorf("journal %d has %d records that are not what was appended", i, len(got))
		}
	}
}

// testOneWinner has several goroutines append after the same record: one succeeds each time, the others see a conflict.
func testOneWinner(t *testing.T, data Data) {
	s := open(t, data).Store
	epoch := acquire(t, s, "demo")
	for after := range uint64(10) {
		results := make([]error, 6)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() {
				results[i] = s.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: after, Records: Records(after, 1)})
			})
		}
		wg.Wait()
		won := 0
		for _, err := range results {
			if err == nil {
				won++
			} else {
				asError[*journal.ConflictError](t, err)
			}
		}
		same(t, "winners", won, 1)
	}
	same(t, "records", ReadAll(t, s, "demo", 0), Records(0, 10))
}

func testReopen(t *testing.T, data Data) {
	h, err := data.Open()
	must(t, err)
	old := acquire(t, h.Store, "demo")
	must(t, h.Store.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: old, After: 0, Records: Records(0, 4)}))
	before, err := h.Store.List(t.Context())
	must(t, err)
	must(t, h.Close())

	h = open(t, data)
	after, err := h.Store.List(t.Context())
	must(t, err)
	same(t, "journals", after, before)
	same(t, "records", ReadAll(t, h.Store, "demo", 0), Records(0, 4))
	if epoch := acquire(t, h.Store, "demo"); epoch <= old {
		t.Fatalf("epoch %d after %d", epoch, old)
	}
}

func testSecond(t *testing.T, data Data) {
	first, err := data.Open()
	must(t, err)
	old, err := first.Store.Acquire(t.Context(), "demo", "the first one")
	must(t, err)
	if data.Exclusive {
		second, err := data.Open()
		if err == nil {
			_, err = second.Store.Acquire(t.Context(), "demo", "the second one")
			if _, other := second.Store.Acquire(t.Context(), "free", "the second one"); other != nil {
				t.Errorf("a journal that nobody holds: %v", other)
			}
			must(t, second.Close())
		}
		held := asError[*journal.HeldError](t, err)
		if held.Holder == "" || held.Since.IsZero() {
			t.Errorf("%q does not say who and since when", held)
		}
		must(t, first.Store.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: old, After: 0, Records: Records(0, 1)}))
	}
	must(t, first.Close())
	second := open(t, data)
	epoch, err := second.Store.Acquire(t.Context(), "demo", "the second one")
	must(t, err)
	if epoch <= old {
		t.Fatalf("epoch %d after %d", epoch, old)
	}
}
