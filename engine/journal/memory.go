package journal

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Memory is a Store, Snapshots and Blobs in memory, for simulation and tests. It stands for the data itself, which
// survives the controllers that a test starts and ends one after the other: every Acquire succeeds and fences the writer
// before it. The zero value is ready for use.
type Memory struct {
	// Now gives the time a journal was created at. Nil: the zero time.
	Now func() time.Time

	// BeforeCommit is called with each batch that would be accepted, before anything of it is kept. Its error is
	// Append's, and the batch is not kept: a write that failed. Nil: never fails.
	BeforeCommit func(Batch) error

	// AfterCommit is called with each batch once it is kept. Its error is Append's, though the batch stays: a crash
	// after the write and before it was acknowledged. Nil: never fails.
	AfterCommit func(Batch) error

	mu       sync.Mutex
	journals map[string]*memoryJournal
	blobs    map[string][]byte
}

type memoryJournal struct {
	info     Info
	records  []Record
	snapshot Snapshot
	sum      uint32
}

// Acquire implements Store.
func (m *Memory) Acquire(_ context.Context, journal, holder string) (uint64, error) {
	if journal == "" {
		return 0, fmt.Errorf("cannot acquire a journal without a name")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.journals[journal]
	if j == nil {
		j = &memoryJournal{info: Info{Journal: journal}}
		if m.Now != nil {
			j.info.Created = m.Now().UTC()
		}
		if m.journals == nil {
			m.journals = map[string]*memoryJournal{}
		}
		m.journals[journal] = j
	}
	j.info.Epoch++
	j.info.Holder = holder
	return j.info.Epoch, nil
}

// Append implements Store. The hooks run under the store's lock and must not call it.
func (m *Memory) Append(ctx context.Context, batch Batch) error {
	if err := batch.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.journals[batch.Journal]
	if err := j.fence(batch.Journal, batch.Epoch); err != nil {
		return err
	}
	if j.info.Last != batch.After {
		return &ConflictError{Journal: batch.Journal, After: batch.After, Last: j.info.Last}
	}
	if m.BeforeCommit != nil {
		if err := m.BeforeCommit(batch); err != nil {
			return err
		}
	}
	for _, r := range batch.Records {
		r.Time, r.Data = time.Unix(0, r.Time.UnixNano()).UTC(), bytes.Clone(r.Data)
		j.records = append(j.records, r)
	}
	j.info.Last += uint64(len(batch.Records))
	if m.AfterCommit != nil {
		return m.AfterCommit(batch)
	}
	return nil
}

// fence refuses an epoch that is not the newest; j is nil for a journal that does not exist.
func (j *memoryJournal) fence(journal string, epoch uint64) error {
	var newest uint64
	if j != nil {
		newest = j.info.Epoch
	}
	if epoch != newest || newest == 0 {
		return &FencedError{Journal: journal, Epoch: epoch, Newest: newest}
	}
	return nil
}

// Read implements Store.
func (m *Memory) Read(ctx context.Context, journal string, after uint64, f func(Record) error) error {
	m.mu.Lock()
	var records []Record
	if j := m.journals[journal]; j != nil && after < j.info.Last {
		records = j.records[after:] // append never changes what is there
	}
	m.mu.Unlock()
	for _, r := range records {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// List implements Store.
func (m *Memory) List(context.Context) ([]Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Info, 0, len(m.journals))
	for _, j := range m.journals {
		list = append(list, j.info)
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Journal, b.Journal) })
	return list, nil
}

// Save implements Snapshots.
func (m *Memory) Save(_ context.Context, epoch uint64, s Snapshot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.journals[s.Journal]
	if err := j.fence(s.Journal, epoch); err != nil {
		return err
	}
	if err := s.Check(j.info.Last); err != nil {
		return err
	}
	if s.Seq < j.snapshot.Seq {
		return nil
	}
	s.Data = bytes.Clone(s.Data)
	j.snapshot, j.sum = s, s.Checksum()
	return nil
}

// Load implements Snapshots.
func (m *Memory) Load(_ context.Context, journal string) (Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.journals[journal]
	if j == nil || j.snapshot.Seq == 0 {
		return Snapshot{Journal: journal}, nil
	}
	s := j.snapshot
	s.Data = bytes.Clone(s.Data)
	if err := s.Verify(j.sum, j.info.Last); err != nil {
		return Snapshot{Journal: journal}, err
	}
	return s, nil
}

// Put implements Blobs.
func (m *Memory) Put(_ context.Context, data []byte) (string, error) {
	if len(data) > MaxBlob {
		return "", fmt.Errorf("cannot keep a value of %d bytes: the most is %d", len(data), MaxBlob)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blobs == nil {
		m.blobs = map[string][]byte{}
	}
	digest := Digest(data)
	m.blobs[digest] = bytes.Clone(data)
	return digest, nil
}

// Get implements Blobs.
func (m *Memory) Get(_ context.Context, digest string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blobs[digest]
	if !ok {
		return nil, &NotFoundError{Digest: digest}
	}
	return bytes.Clone(data), nil
}
