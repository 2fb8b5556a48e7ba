package agent

import (
	"sync"

	"joist/engine/agent/wire"
)

// maxLogs is how much log waits for a lost engine, in bytes, over all requests.
const maxLogs = 256 << 10

// logBuffer holds what steps wrote until it is sent. When it is full the oldest is dropped: the end of a log tells more,
// and a result has its last lines in any case.
type logBuffer struct {
	mu      sync.Mutex
	chunks  []wire.LogChunk
	size    int
	seq     map[string]int   // next number by request
	dropped map[string]int64 // bytes by request, not told yet
	reports []string
}

func newLogBuffer() *logBuffer {
	return &logBuffer{seq: map[string]int{}, dropped: map[string]int64{}}
}

// add appends whole lines of a request's output.
func (b *logBuffer) add(id, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size += len(text)
	if n := len(b.chunks); n > 0 && b.chunks[n-1].ID == id && len(b.chunks[n-1].Text)+len(text) <= wire.MaxChunk {
		b.chunks[n-1].Text += text
	} else {
		b.chunks = append(b.chunks, wire.LogChunk{ID: id, Text: text})
	}
	for b.size > maxLogs && len(b.chunks) > 1 {
		old := b.chunks[0]
		b.chunks = b.chunks[1:]
		b.size -= len(old.Text)
		b.dropped[old.ID] += int64(len(old.Text))
	}
}

// next takes the oldest chunk.
func (b *logBuffer) next() (wire.LogChunk, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.chunks) == 0 {
		b.chunks = nil
		return wire.LogChunk{}, false
	}
	c := b.chunks[0]
	b.chunks = b.chunks[1:]
	b.size -= len(c.Text)
	c.Seq, c.Dropped = b.seq[c.ID], b.dropped[c.ID]
	b.seq[c.ID]++
	delete(b.dropped, c.ID)
	return c, true
}

// forget drops what is kept about a request whose result was delivered.
func (b *logBuffer) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.seq, id)
	delete(b.dropped, id)
}

// report keeps the newest few reports until they are sent.
func (b *logBuffer) report(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, text)
	b.reports = b.reports[max(0, len(b.reports)-8):]
}

func (b *logBuffer) takeReports() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.reports
	b.reports = nil
	return out
}
