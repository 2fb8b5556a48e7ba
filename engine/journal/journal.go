// Package journal is the append-only log of facts from which all state is derived, one for each cluster and one for the
// site, and the contract of the stores that keep it. Each journal has one writer at a time, fenced by an epoch: what is
// appended is durable before Append returns, and an append by a writer that has been succeeded changes nothing.
//
// The package holds the contracts (Store, Snapshots, Blobs), the Writer that a drive loop appends through, the encoding
// of records into chunks that stores keep as one row each, and Memory, a store for simulation. The stores on SQL are in
// journal/sqlstore; journal/journaltest is the suite that every store passes.
package journal

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"
)

// Limits of one record. Larger values belong into Blobs, and the record names their digest.
const (
	MaxKind = 255      // bytes in a record's kind
	MaxData = 16 << 20 // bytes in a record's data
	MaxBlob = 64 << 20 // bytes in a blob
)

// Record is one fact.
type Record struct {
	Seq     uint64    // 1 for a journal's first record, then without gaps
	Time    time.Time // when it happened, by the clock of who says so; kept in UTC to the nanosecond
	Kind    string    // what happened, such as "step.done"; 1 to MaxKind bytes
	Version int       // version of the kind's shape, from 0, so that newer code can read what older code wrote
	Data    []byte    // one JSON value, at most MaxData bytes. Of a record that was read it may be kept but not changed
}

// Batch is what one Append makes durable: all of it or nothing.
type Batch struct {
	Journal string
	Epoch   uint64   // as Acquire returned it
	After   uint64   // the last sequence the writer knows, 0 for none
	Records []Record // with Seq After+1, After+2, …
}

// Check says what is wrong with a batch, before any of it is written. Every Store refuses a batch that fails it.
func (b Batch) Check() error {
	if b.Journal == "" {
		return fmt.Errorf("cannot append to a journal without a name")
	}
	if len(b.Records) == 0 {
		return fmt.Errorf("cannot append to journal %s: no records", b.Journal)
	}
	for i, r := range b.Records {
		if want := b.After + 1 + uint64(i); r.Seq != want {
			return fmt.Errorf("cannot append to journal %s: record %d of the batch has sequence %d instead of %d", b.Journal, i, r.Seq, want)
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("cannot append record %d to journal %s: %w", r.Seq, b.Journal, err)
		}
	}
	return nil
}

func (r Record) check() error {
	switch {
	case len(r.Kind) == 0 || len(r.Kind) > MaxKind:
		return fmt.Errorf("its kind has %d bytes, not 1 to %d", len(r.Kind), MaxKind)
	case r.Version < 0 || r.Version > 1<<30:
		return fmt.Errorf("version %d of %s is not between 0 and 2^30", r.Version, r.Kind)
	case len(r.Data) > MaxData:
		return fmt.Errorf("the data of %s has %d bytes, more than %d", r.Kind, len(r.Data), MaxData)
	case !json.Valid(r.Data):
		return fmt.Errorf("the data of %s is not one JSON value", r.Kind)
	case !r.Time.Equal(time.Unix(0, r.Time.UnixNano())):
		return fmt.Errorf("the time of %s, %s, is not between the years 1678 and 2262", r.Kind, r.Time)
	}
	return nil
}

// Info describes one journal.
type Info struct {
	Journal string
	Last    uint64    // sequence of the last record, 0 for none
	Epoch   uint64    // the newest epoch
	Holder  string    // who acquired that epoch
	Created time.Time // when the journal was first acquired, UTC
}

// Store keeps journals durably. Its methods may be called at the same time from several goroutines.
type Store interface {
	// Acquire takes the journal for one writer and returns its epoch, greater than every earlier one, from which moment
	// every writer with an earlier epoch is fenced. A journal that does not exist is created. While another live
	// controller holds the journal it is refused with *HeldError; a controller that is gone holds nothing, and the
	// controller that holds the journal may acquire it again. The holder is a name for people.
	Acquire(ctx context.Context, journal, holder string) (epoch uint64, err error)

	// Append makes the batch durable, then returns. After *FencedError (the epoch is not the newest), *ConflictError
	// (After is not the last sequence), *DiskFullError and an error of Batch.Check nothing of the batch was written, nor
	// will be. After any other error it is uncertain: the writer must acquire the journal again and read what is there.
	Append(ctx context.Context, batch Batch) error

	// Read calls f for each record after a sequence, in order, up to the last one that was durable when it began. An
	// error of f ends it and is returned as it is. A record that is missing or damaged is a *DamagedError. No lock is
	// held while f runs. A journal that does not exist has no records.
	Read(ctx context.Context, journal string, after uint64, f func(Record) error) error

	// List describes every journal, by name.
	List(ctx context.Context) ([]Info, error)
}

// Snapshot is a state as one opaque value, so that a start need not fold a whole journal.
type Snapshot struct {
	Journal string
	Seq     uint64 // of the last record it covers, 0 where there is no snapshot
	Version int    // of the format, from 0; its reader refuses those it does not know
	Data    []byte
}

// Checksum is what a store keeps beside a snapshot: the CRC-32C of all its fields.
func (s Snapshot) Checksum() uint32 {
	head := binary.AppendUvarint(nil, uint64(len(s.Journal)))
	head = append(head, s.Journal...)
	head = binary.AppendUvarint(head, s.Seq)
	head = binary.AppendUvarint(head, uint64(s.Version))
	return crc32.Update(crc32.Checksum(head, castagnoli()), castagnoli(), s.Data)
}

// Check refuses a snapshot that cannot be one of a journal whose last record is last.
func (s Snapshot) Check(last uint64) error {
	if s.Seq == 0 || s.Seq > last || s.Version < 0 {
		return fmt.Errorf("cannot keep a snapshot of journal %s, version %d, up to record %d: its last record is %d", s.Journal, s.Version, s.Seq, last)
	}
	return nil
}

// Verify checks a snapshot that a store has read against the checksum kept beside it and the journal's last sequence.
// What is wrong is a *DamagedError.
func (s Snapshot) Verify(checksum uint32, last uint64) error {
	reason := ""
	if got := s.Checksum(); got != checksum {
		reason = fmt.Sprintf("checksum %08x instead of %08x", got, checksum)
	} else if s.Seq > last {
		reason = fmt.Sprintf("the journal ends at record %d", last)
	}
	if reason == "" {
		return nil
	}
	return &DamagedError{What: "the snapshot of journal " + s.Journal, Seq: s.Seq, Reason: reason}
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // built once by hash/crc32

// Snapshots keeps one snapshot for each journal. A snapshot is an aid: losing it costs time at the next start, no fact.
type Snapshots interface {
	// Save keeps a snapshot in place of the journal's earlier one, durably. One that covers less than the one kept is
	// dropped without error. An epoch that is not the newest is a *FencedError; a snapshot that covers records the
	// journal does not have is an error.
	Save(ctx context.Context, epoch uint64, snapshot Snapshot) error

	// Load returns the journal's snapshot, or one with Seq 0 if it has none. If the one it has is damaged, Load returns
	// none and a *DamagedError that says why: the caller reports it and folds the journal from its beginning.
	Load(ctx context.Context, journal string) (Snapshot, error)
}

// Blobs keeps large values by their digest: goals, outputs, pack archives. It does not encrypt: a secret is sealed
// before it is put.
type Blobs interface {
	// Put keeps data durably and returns its digest, as Digest has it. Putting the same data again changes nothing.
	Put(ctx context.Context, data []byte) (digest string, err error)

	// Get returns the data with a digest. *NotFoundError if there is none, *DamagedError if it is not what was put.
	Get(ctx context.Context, digest string) ([]byte, error)
}

// Digest is the name of a blob: its SHA-256 in lower-case hexadecimal.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
