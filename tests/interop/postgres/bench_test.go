package postgres_test

import (
	"fmt"
	"testing"

	"joist/engine/journal"
	"joist/engine/journal/journaltest"
	"joist/engine/journal/sqlstore"
)

// BenchmarkAppend appends durably in batches of so many completions, of two records each.
func BenchmarkAppend(b *testing.B) {
	server := startServer(b)
	for _, completions := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("completions=%d", completions), func(b *testing.B) {
			db, err := sqlstore.Open(b.Context(), sqlstore.Config{PostgreSQL: server.database(b)})
			must(b, err)
			w, err := journal.Open(b.Context(), journal.Config{Store: db.Journals(), Journal: "demo"})
			must(b, err)
			records := journaltest.Records(0, 2*completions) // of 300 bytes, on average
			for b.Loop() {
				must(b, w.Append(b.Context(), records))
			}
			b.ReportMetric(float64(b.N*completions)/b.Elapsed().Seconds(), "completions/s")
			must(b, db.Close())
		})
	}
}
