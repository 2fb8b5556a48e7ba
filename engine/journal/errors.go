package journal

import (
	"fmt"
	"time"
)

// HeldError reports data or a journal that another live controller holds.
type HeldError struct {
	What   string    // what was asked for, such as "journal demo" or "/var/lib/joist"
	Holder string    // who holds it, such as "process 4711 (joist serve)"
	Since  time.Time // since when, UTC; zero if unknown
}

// Error says who holds what, since when, and what to do.
func (e *HeldError) Error() string {
	since := ""
	if !e.Since.IsZero() {
		since = " since " + e.Since.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("cannot use %s: %s holds it%s; stop that controller first, or use other data", e.What, e.Holder, since)
}

// FencedError reports a writer that another one has succeeded: it must stop.
type FencedError struct {
	Journal string
	Epoch   uint64 // the writer's own
	Newest  uint64 // the journal's; 0 if the journal was never acquired
}

// Error says that another controller has taken over.
func (e *FencedError) Error() string {
	return fmt.Sprintf("cannot write journal %s with epoch %d: its newest epoch is %d, so another controller has taken over", e.Journal, e.Epoch, e.Newest)
}

// ConflictError reports a writer that does not know the journal's last record.
type ConflictError struct {
	Journal string
	After   uint64 // the last sequence the writer knows
	Last    uint64 // the journal's last sequence
}

// Error names the sequence that was expected and the one that is.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("cannot append to journal %s after record %d: its last record is %d", e.Journal, e.After, e.Last)
}

// DamagedError reports stored data that is not what was written.
type DamagedError struct {
	What   string // such as "journal demo" or "the snapshot of journal demo"
	Seq    uint64 // the record or snapshot concerned, 0 if it has no sequence
	Reason string
}

// Error says what is damaged, where and how.
func (e *DamagedError) Error() string {
	at := ""
	if e.Seq != 0 {
		at = fmt.Sprintf(" at record %d", e.Seq)
	}
	return fmt.Sprintf("cannot use %s: it is damaged%s: %s", e.What, at, e.Reason)
}

// NotFoundError reports a blob that is not there.
type NotFoundError struct{ Digest string }

// Error names the digest.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("cannot find the value with digest %s", e.Digest)
}

// DiskFullError reports a write refused for lack of space. Nothing of it was kept.
type DiskFullError struct {
	Path string // the file or database
	Err  error  // what the store said
}

// Error says which file and what to do.
func (e *DiskFullError) Error() string {
	return fmt.Sprintf("cannot write %s: the disk is full; free space and start again", e.Path)
}

// Unwrap gives the store's own error.
func (e *DiskFullError) Unwrap() error { return e.Err }
