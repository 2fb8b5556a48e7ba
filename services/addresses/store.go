package addresses

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"joist/dhcp-dns/lease"

	"github.com/go-gormigrate/gormigrate/v2"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// leaseRow is a lease.Record in the database. Times are microseconds since 1970, zero for none.
type leaseRow struct {
	Address     string `gorm:"column:address;primaryKey"`
	MAC         string `gorm:"column:mac"`
	Phase       string `gorm:"column:phase"`
	Started     int64  `gorm:"column:started"`
	Expires     int64  `gorm:"column:expires"`
	Quarantined int64  `gorm:"column:quarantined"`
}

// TableName implements gorm's schema.Tabler.
func (leaseRow) TableName() string { return "address_leases" }

// reservationRow is a lease.Reservation in the database.
type reservationRow struct {
	MAC     string `gorm:"column:mac;primaryKey"`
	Address string `gorm:"column:address"`
}

// TableName implements gorm's schema.Tabler.
func (reservationRow) TableName() string { return "address_reservations" }

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

func rowOf(r lease.Record) leaseRow {
	return leaseRow{Address: r.Address.String(), MAC: string(r.MAC), Phase: string(r.Phase),
		Started: micros(r.Started), Expires: micros(r.Expires), Quarantined: micros(r.Quarantined)}
}

// migrate brings the tables to the present version. Each migration is written out and never changed afterwards.
func migrate(db *gorm.DB) error {
	options := &gormigrate.Options{TableName: "address_migrations", IDColumnName: "id", IDColumnSize: 64, UseTransaction: true}
	err := gormigrate.New(db, options, []*gormigrate.Migration{{
		ID: "001-leases-and-reservations",
		Migrate: func(tx *gorm.DB) error {
			for _, statement := range []string{
				`CREATE TABLE address_leases (address TEXT PRIMARY KEY, mac TEXT NOT NULL, phase TEXT NOT NULL,
					started BIGINT NOT NULL, expires BIGINT NOT NULL, quarantined BIGINT NOT NULL)`,
				`CREATE TABLE address_reservations (mac TEXT PRIMARY KEY, address TEXT NOT NULL UNIQUE)`,
			} {
				if err := tx.Exec(statement).Error; err != nil {
					return err
				}
			}
			return nil
		},
	}}).Migrate()
	if err != nil {
		return fmt.Errorf("cannot prepare the tables of leases: %w", err)
	}
	return nil
}

// load reads everything back.
func load(db *gorm.DB) ([]lease.Record, []lease.Reservation, error) {
	var rows []leaseRow
	if err := db.Order("address").Find(&rows).Error; err != nil {
		return nil, nil, fmt.Errorf("cannot load the leases: %w", err)
	}
	var kept []reservationRow
	if err := db.Order("mac").Find(&kept).Error; err != nil {
		return nil, nil, fmt.Errorf("cannot load the reservations: %w", err)
	}
	records := make([]lease.Record, len(rows))
	for i, row := range rows {
		address, err := netip.ParseAddr(row.Address)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot load the leases: %w", err)
		}
		records[i] = lease.Record{Address: address, MAC: lease.MAC(row.MAC), Phase: lease.Phase(row.Phase),
			Started: timeOf(row.Started), Expires: timeOf(row.Expires), Quarantined: timeOf(row.Quarantined)}
	}
	reservations := make([]lease.Reservation, len(kept))
	for i, row := range kept {
		address, err := netip.ParseAddr(row.Address)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot load the reservations: %w", err)
		}
		reservations[i] = lease.Reservation{MAC: lease.MAC(row.MAC), Address: address}
	}
	return records, reservations, nil
}

// store writes records in group commits: whatever arrives while one transaction is on its way shares the next.
type store struct {
	db    *gorm.DB
	queue chan write
	ended chan struct{}
}

// write is one record on its way.
type write struct {
	row  leaseRow
	done pending
}

// pending yields the outcome of one write, once.
type pending chan error

// wait returns when the record is durable, or could not be written, or ctx ends; in the last case it may yet be written.
func (p pending) wait(ctx context.Context) error {
	select {
	case err := <-p:
		return err
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for the lease to be stored: %w", context.Cause(ctx))
	}
}

const (
	maxGroup = 512  // records in a transaction; times columns, well below SQLite's 32,766 variables
	maxQueue = 4096 // records waiting; more wait in put
)

func startStore(db *gorm.DB) *store {
	s := &store{
		// A group is one statement, which is a transaction by itself.
		db:    db.Session(&gorm.Session{NewDB: true, SkipDefaultTransaction: true}),
		queue: make(chan write, maxQueue), ended: make(chan struct{}),
	}
	go s.run()
	return s
}

// close writes what is queued and ends the writer. No put may follow.
func (s *store) close() {
	close(s.queue)
	<-s.ended
}

// put queues a record. Records are written in the order of the calls.
func (s *store) put(r lease.Record) pending {
	done := make(pending, 1)
	s.queue <- write{row: rowOf(r), done: done}
	return done
}

func (s *store) run() {
	defer close(s.ended)
	group := make([]write, 0, maxGroup)
	for first := range s.queue {
		group = s.gather(append(group[:0], first))
		err := s.commit(group)
		for _, w := range group {
			w.done <- err
		}
	}
}

// gather adds what is queued already, without waiting for more.
func (s *store) gather(group []write) []write {
	for len(group) < maxGroup {
		select {
		case w, ok := <-s.queue:
			if !ok {
				return group
			}
			group = append(group, w)
		default:
			return group
		}
	}
	return group
}

// commit writes a group in one transaction. Of several records of one address the last counts: PostgreSQL refuses to
// touch a row twice in one statement.
func (s *store) commit(group []write) error {
	index := make(map[string]int, len(group))
	rows := make([]leaseRow, 0, len(group))
	for _, w := range group {
		if i, ok := index[w.row.Address]; ok {
			rows[i] = w.row
			continue
		}
		index[w.row.Address] = len(rows)
		rows = append(rows, w.row)
	}
	err := s.db.Clauses(clause.OnConflict{
		Columns:   []clause.Column{{Name: "address"}},
		DoUpdates: clause.AssignmentColumns([]string{"mac", "phase", "started", "expires", "quarantined"}),
	}).Create(&rows).Error
	if err != nil {
		return fmt.Errorf("cannot store %d leases: %w", len(rows), err)
	}
	return nil
}

// reserve stores a reservation in place of an older one of the same machine.
func (s *store) reserve(ctx context.Context, r lease.Reservation) error {
	row := reservationRow{MAC: string(r.MAC), Address: r.Address.String()}
	err := s.db.WithContext(ctx).Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "mac"}}, DoUpdates: clause.AssignmentColumns([]string{"address"}),
	}).Create(&row).Error
	if errors.Is(err, gorm.ErrDuplicatedKey) {
		return fmt.Errorf("cannot reserve %v for %s: a stored reservation outside the present pool has it: %w", r.Address, r.MAC, err)
	} else if err != nil {
		return fmt.Errorf("cannot store the reservation of %v for %s: %w", r.Address, r.MAC, err)
	}
	return nil
}

// unreserve deletes a machine's reservation.
func (s *store) unreserve(ctx context.Context, mac lease.MAC) error {
	if err := s.db.WithContext(ctx).Delete(&reservationRow{MAC: string(mac)}).Error; err != nil {
		return fmt.Errorf("cannot delete the reservation of %s: %w", mac, err)
	}
	return nil
}
