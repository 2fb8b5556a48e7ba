package addresses

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"joist/dhcp-dns/lease"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// TestWritesShareATransaction holds the first commit back until many more records wait.
func TestWritesShareATransaction(t *testing.T) {
	db, err := gorm.Open(sqlite.Open(filepath.Join(t.TempDir(), "x.db")), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if sql, err := db.DB(); err == nil {
		defer sql.Close()
	}
	if err := migrate(db); err != nil {
		t.Fatal(err)
	}
	entered, resume, commits := make(chan bool), make(chan bool), 0
	if err := db.Callback().Create().Before("gorm:create").Register("hold", func(*gorm.DB) {
		if commits++; commits == 1 {
			entered <- true
			<-resume
		}
	}); err != nil {
		t.Fatal(err)
	}
	s := startStore(db)
	record := func(last byte, mac lease.MAC) lease.Record {
		return lease.Record{Address: netip.AddrFrom4([4]byte{10, 0, 0, last}), MAC: mac, Expires: time.UnixMicro(1)}
	}
	waiting := []pending{s.put(record(1, "first"))}
	<-entered
	for i := range 200 {
		waiting = append(waiting, s.put(record(byte(i%100), "early")))
	}
	for i := range 100 {
		waiting = append(waiting, s.put(record(byte(i), "late")))
	}
	resume <- true
	for _, w := range waiting {
		if err := w.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	if commits != 2 {
		t.Errorf("%d records took %d transactions, want 2", len(waiting), commits)
	}
	records, _, err := load(db)
	if err != nil || len(records) != 100 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, r := range records {
		if r.MAC != "late" {
			t.Errorf("%v: %s was not the last to be put", r.Address, r.MAC)
		}
	}
}
