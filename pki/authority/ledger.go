package authority

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// FileLedger is a Ledger in one append-only file of JSON lines, each durable before the call that wrote it returns.
// One process writes it at a time. It is safe for concurrent use.
type FileLedger struct {
	mu      sync.Mutex
	file    *os.File
	size    int64 // of the lines that are durable
	broken  error // set when the file could not be brought back to size
	issued  map[ownerOf][]Issued
	serials map[serialOf]bool // issued
	revoked map[string][]Revoked
	gone    map[serialOf]bool // revoked
	numbers map[string]int64
}

type (
	ownerOf  struct{ issuer, owner string }
	serialOf struct{ issuer, serial string }
)

// line is one line of the file; one of its fields is set.
type line struct {
	Issued  *Issued    `json:"issued,omitempty"`
	Revoked []Revoked  `json:"revoked,omitempty"`
	CRL     *crlNumber `json:"crl,omitempty"`
}

type crlNumber struct {
	Issuer string `json:"issuer"`
	Number int64  `json:"number"`
}

// OpenLedger opens or makes the ledger file. A last line that was cut off by a crash was never acknowledged, and is
// removed; any other damage is an error.
func OpenLedger(path string) (*FileLedger, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the ledger of certificates: %w", err)
	}
	l := &FileLedger{
		file: file, issued: map[ownerOf][]Issued{}, serials: map[serialOf]bool{},
		revoked: map[string][]Revoked{}, gone: map[serialOf]bool{}, numbers: map[string]int64{},
	}
	if err := errors.Join(l.load(), syncDir(filepath.Dir(path))); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read the ledger of certificates %s: %w", path, err), file.Close())
	}
	return l, nil
}

// Close closes the file.
func (l *FileLedger) Close() error { return l.file.Close() }

func (l *FileLedger) load() error {
	r := bufio.NewReader(l.file)
	for n := 1; ; n++ {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(text) > 0 {
				return l.file.Truncate(l.size)
			}
			return nil
		}
		if err != nil {
			return err
		}
		var entry line
		if err := json.Unmarshal(text, &entry); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		l.fold(entry)
		l.size += int64(len(text))
	}
}

func (l *FileLedger) fold(entry line) {
	if i := entry.Issued; i != nil {
		owner := ownerOf{i.Issuer, i.Owner}
		l.issued[owner] = append(l.issued[owner], *i)
		l.serials[serialOf{i.Issuer, i.Serial}] = true
	}
	for _, r := range entry.Revoked {
		if id := (serialOf{r.Issuer, r.Serial}); !l.gone[id] {
			l.gone[id] = true
			l.revoked[r.Issuer] = append(l.revoked[r.Issuer], r)
		}
	}
	if c := entry.CRL; c != nil {
		l.numbers[c.Issuer] = max(l.numbers[c.Issuer], c.Number)
	}
}

// append writes one line and makes it durable. A line that could not be written whole is taken back.
func (l *FileLedger) append(entry line) error {
	if l.broken != nil {
		return l.broken
	}
	text, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("cannot encode a line of the ledger: %w", err)
	}
	text = append(bytes.TrimSpace(text), '\n')
	_, err = l.file.WriteAt(text, l.size)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		if cut := l.file.Truncate(l.size); cut != nil {
			l.broken = fmt.Errorf("cannot write the ledger of certificates since %w", errors.Join(err, cut))
		}
		return fmt.Errorf("cannot write the ledger of certificates: %w", err)
	}
	l.size += int64(len(text))
	l.fold(entry)
	return nil
}

// Record implements Ledger. A serial that its issuer used before is refused.
func (l *FileLedger) Record(_ context.Context, i Issued) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serials[serialOf{i.Issuer, i.Serial}] {
		return fmt.Errorf("serial %s of %s is taken", i.Serial, i.Issuer)
	}
	return l.append(line{Issued: &i})
}

// Issued implements Ledger.
func (l *FileLedger) Issued(_ context.Context, issuer, owner string, at time.Time) ([]Issued, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var live []Issued
	for _, i := range l.issued[ownerOf{issuer, owner}] {
		if at.Before(i.NotAfter) && !l.gone[serialOf{issuer, i.Serial}] {
			live = append(live, i)
		}
	}
	return live, nil
}

// Revoke implements Ledger.
func (l *FileLedger) Revoke(_ context.Context, revoked []Revoked) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := slices.DeleteFunc(slices.Clone(revoked), func(r Revoked) bool { return l.gone[serialOf{r.Issuer, r.Serial}] })
	if len(fresh) == 0 {
		return nil
	}
	return l.append(line{Revoked: fresh})
}

// Revoked implements Ledger.
func (l *FileLedger) Revoked(_ context.Context, issuer string) ([]Revoked, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.revoked[issuer]), nil // what is in it already stays as it is
}

// NextCRL implements Ledger.
func (l *FileLedger) NextCRL(_ context.Context, issuer string) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.numbers[issuer] + 1
	return next, l.append(line{CRL: &crlNumber{Issuer: issuer, Number: next}})
}
