package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Config says which journal a Writer opens and what becomes of the records that are there.
type Config struct {
	Store     Store
	Snapshots Snapshots // nil: the journal is folded from its beginning and Snapshot is an error
	Journal   string
	Holder    string // who writes, for people

	// Restore takes the state from a snapshot before any record is folded. Its error means that this program cannot use
	// the snapshot: it must leave the state as it was, and the journal is folded from its beginning. Nil: no snapshot is
	// used.
	Restore func(Snapshot) error

	// Fold takes one record that is in the journal, in order. Nil: records are only counted.
	Fold func(Record) error

	Log *slog.Logger // told why a snapshot was not used. Nil: nobody is
}

// Writer appends to one journal, which it has acquired. Records of one Append are one group commit: the caller's loop
// gathers what happened since its last Append, and the store commits appends of different journals together.
type Writer struct {
	cfg   Config
	epoch uint64

	mu      sync.Mutex // held while an append is under way
	stopped error      // the store's error after which nothing more is written

	seen sync.Mutex // guards what follows; never held while the store works
	last uint64
	news chan struct{} // closed when last grows
}

// Open acquires a journal, so that every earlier writer is fenced, and replays it: the newest snapshot that is whole,
// then each record after it.
func Open(ctx context.Context, cfg Config) (*Writer, error) {
	if cfg.Store == nil || cfg.Journal == "" {
		return nil, fmt.Errorf("internal error: a journal writer needs a store and a name")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	epoch, err := cfg.Store.Acquire(ctx, cfg.Journal, cfg.Holder)
	if err != nil {
		return nil, fmt.Errorf("cannot open journal %s: %w", cfg.Journal, err)
	}
	w := &Writer{cfg: cfg, epoch: epoch, news: make(chan struct{})}
	if w.last, err = restore(ctx, cfg); err != nil {
		return nil, fmt.Errorf("cannot open journal %s: %w", cfg.Journal, err)
	}
	err = cfg.Store.Read(ctx, cfg.Journal, w.last, func(r Record) error {
		if cfg.Fold != nil {
			if err := cfg.Fold(r); err != nil {
				return fmt.Errorf("cannot replay record %d (%s, version %d): %w", r.Seq, r.Kind, r.Version, err)
			}
		}
		w.last = r.Seq
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open journal %s: %w", cfg.Journal, err)
	}
	return w, nil
}

// restore gives the snapshot to its reader and returns the sequence it covers, 0 if none is used.
func restore(ctx context.Context, cfg Config) (uint64, error) {
	if cfg.Snapshots == nil || cfg.Restore == nil {
		return 0, nil
	}
	snapshot, err := cfg.Snapshots.Load(ctx, cfg.Journal)
	var damaged *DamagedError
	switch {
	case errors.As(err, &damaged):
		cfg.Log.Warn("snapshot ignored, folding the whole journal", "journal", cfg.Journal, "reason", err)
		return 0, nil
	case err != nil:
		return 0, err
	case snapshot.Seq == 0:
		return 0, nil
	}
	if err := cfg.Restore(snapshot); err != nil {
		cfg.Log.Warn("snapshot ignored, folding the whole journal", "journal", cfg.Journal, "reason", err)
		return 0, nil
	}
	return snapshot.Seq, nil
}

// Append numbers the records (it sets their Seq) and returns once all of them are durable. An error of Batch.Check and
// the end of ctx before the write began leave the writer usable. After any other error it writes nothing more and
// returns that error for ever: what the journal holds is then known only by opening it again. A write that has begun is
// not given up when ctx ends.
func (w *Writer) Append(ctx context.Context, records []Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped != nil {
		return w.stopped
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("cannot append to journal %s: %w", w.cfg.Journal, err)
	}
	batch := Batch{Journal: w.cfg.Journal, Epoch: w.epoch, After: w.Last(), Records: records}
	for i := range records {
		records[i].Seq = batch.After + 1 + uint64(i)
	}
	if err := batch.Check(); err != nil {
		return err
	}
	if err := w.cfg.Store.Append(context.WithoutCancel(ctx), batch); err != nil {
		w.stopped = err
		return err
	}
	w.seen.Lock()
	defer w.seen.Unlock()
	w.last += uint64(len(records))
	close(w.news)
	w.news = make(chan struct{})
	return nil
}

// Snapshot keeps a state that covers the records up to seq, in a format version of the caller's.
func (w *Writer) Snapshot(ctx context.Context, seq uint64, version int, data []byte) error {
	if w.cfg.Snapshots == nil {
		return fmt.Errorf("internal error: journal %s was opened without snapshots", w.cfg.Journal)
	}
	return w.cfg.Snapshots.Save(ctx, w.epoch, Snapshot{Journal: w.cfg.Journal, Seq: seq, Version: version, Data: data})
}

// Epoch is what agents and services compare: they refuse requests of an older one.
func (w *Writer) Epoch() uint64 { return w.epoch }

// Last is the sequence of the last durable record, 0 for none.
func (w *Writer) Last() uint64 {
	w.seen.Lock()
	defer w.seen.Unlock()
	return w.last
}

// Follow calls f for each record after a sequence, then for each further one as soon as it is durable, until f fails or
// ctx ends, and returns that error.
func (w *Writer) Follow(ctx context.Context, after uint64, f func(Record) error) error {
	for {
		w.seen.Lock()
		last, news := w.last, w.news
		w.seen.Unlock()
		if last <= after {
			select {
			case <-news:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := w.cfg.Store.Read(ctx, w.cfg.Journal, after, func(r Record) error {
			after = r.Seq
			return f(r)
		})
		if err != nil {
			return err
		}
	}
}
