package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"joist/engine/entries"
	"joist/engine/journal"
)

// benchRecords makes records of 300 bytes, as a step's start and end are.
func benchRecords(n int) []journal.Record {
	records := make([]journal.Record, n)
	for i := range records {
		data := fmt.Appendf(nil, `{"instance":"demo/member[node-%05d]","attempt":1,"digest":"%s","outputs":{"client_url":"https://node-%05d.demo.lab:2379"},"text":"%s"}`,
			i, strings.Repeat("0f1e", 16), i, strings.Repeat("x", 79))
		records[i] = journal.Record{Time: time.Unix(1_790_000_000, int64(i)), Kind: "step.done", Version: 1, Data: data}
	}
	return records
}

func benchOpen(b *testing.B) *DB {
	b.Helper()
	db, err := Open(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

// BenchmarkAppend appends durably in batches of so many completions, of two records each.
func BenchmarkAppend(b *testing.B) {
	for _, completions := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("completions=%d", completions), func(b *testing.B) {
			w, err := journal.Open(b.Context(), journal.Config{Store: benchOpen(b).Journals(), Journal: "demo"})
			if err != nil {
				b.Fatal(err)
			}
			records := benchRecords(2 * completions)
			for b.Loop() {
				if err := w.Append(b.Context(), records); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*completions)/b.Elapsed().Seconds(), "completions/s")
			b.ReportMetric(float64(b.N*2*completions)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkJournals has many clusters append one completion at a time: they share commits.
func BenchmarkJournals(b *testing.B) {
	store := benchOpen(b).Journals()
	var number atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		w, err := journal.Open(context.Background(), journal.Config{Store: store, Journal: fmt.Sprint("cluster", number.Add(1))})
		if err != nil {
			b.Error(err)
			return
		}
		records := benchRecords(2)
		for pb.Next() {
			if err := w.Append(context.Background(), records); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "completions/s")
}

// BenchmarkRead reads a journal of 20,000 records from its beginning, as a start without a snapshot does.
func BenchmarkRead(b *testing.B) {
	for _, batch := range []int{2, 200} {
		b.Run(fmt.Sprintf("written=%d", batch), func(b *testing.B) {
			store := benchOpen(b).Journals()
			w, err := journal.Open(b.Context(), journal.Config{Store: store, Journal: "demo"})
			if err != nil {
				b.Fatal(err)
			}
			total := 20_000
			records := benchRecords(batch)
			for range total / batch {
				if err := w.Append(b.Context(), records); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				n := 0
				err := store.Read(b.Context(), "demo", 0, func(journal.Record) error { n++; return nil })
				if err != nil || n != total {
					b.Fatalf("%d records: %v", n, err)
				}
			}
			b.ReportMetric(float64(b.N*total)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkSnapshot keeps and loads a state of 10 MiB.
func BenchmarkSnapshot(b *testing.B) {
	store := benchOpen(b).Journals()
	w, err := journal.Open(b.Context(), journal.Config{Store: store, Snapshots: store, Journal: "demo"})
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Append(b.Context(), benchRecords(1)); err != nil {
		b.Fatal(err)
	}
	state := make([]byte, 10<<20)
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			if err := w.Snapshot(b.Context(), 1, 1, state); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if s, err := store.Load(b.Context(), "demo"); err != nil || len(s.Data) != len(state) {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEntries has many instances write an entry each, as a run on many nodes does: they share commits.
func BenchmarkEntries(b *testing.B) {
	store := benchOpen(b).Entries()
	var number atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			name := fmt.Sprintf("n%06d", number.Add(1))
			want := []entries.Entry{{Key: "a/" + name, Value: []byte(`["10.0.0.1"]`)}}
			_, err := store.Replace(context.Background(), entries.Scope{Service: "names", Cluster: "demo"}, entries.Writer{Owner: name, Epoch: 1}, want)
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
