// Package fetch brings a file of known digest over HTTP: verified while it streams, resumed where it broke.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// File is a file by digest.
type File struct {
	What   string   // for people: "the node image"
	URLs   []string // where it can be had, in the order to be tried
	SHA256 string   // 64 hexadecimal digits
	Size   int64    // bytes
}

// Check refuses a file that could not be verified.
func (f File) Check() error {
	if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("the digest %q of %s is not a SHA-256", f.SHA256, f.What)
	}
	if len(f.URLs) == 0 {
		return fmt.Errorf("%s has no address", f.What)
	}
	if f.Size <= 0 {
		return fmt.Errorf("%s has a size of %d bytes", f.What, f.Size)
	}
	return nil
}

// Target is where a file is written: it can be emptied, and with Config's Resume read.
type Target interface {
	io.Reader
	io.Writer
	io.Seeker
	Truncate(size int64) error
}

// Config says how a file is fetched.
type Config struct {
	// Client speaks HTTP; it brings the trust in the engine's certificate. Required.
	Client *http.Client
	// Stall is how long a transfer may stand still; 30 s where zero.
	Stall time.Duration
	// Attempts is how often in a row an attempt may bring nothing new before Fetch gives up; 8 where zero.
	Attempts int
	// Trouble is told each attempt's error. May be nil.
	Trouble func(error)
	// Resume goes on after what target holds already, which is taken for the beginning of the file until its digest says
	// otherwise.
	Resume bool
	// MustBe ends Get when an address answers that it does not have the file: nothing is going to change that.
	MustBe bool
}

// errStall cancels a request that stands still.
var errStall = errors.New("stalled")

// errDigest is a transfer that was whole and is not the file.
var errDigest = errors.New("wrong digest")

// ErrAbsent is an address that does not have the file.
var ErrAbsent = errors.New("it is not there")

// ErrWrite is a target that cannot be written. Get does not try again.
var ErrWrite = errors.New("cannot write it")

// Get fetches a file into target and verifies it. A transfer that breaks or stalls is resumed where it stopped, from the
// next address; one with the wrong digest starts anew. Attempts are spaced by a back-off of 1 s doubling to 30 s, which
// new bytes reset. On success target holds exactly the file.
func Get(ctx context.Context, file File, target Target, cfg Config) error {
	if err := file.Check(); err != nil {
		return err
	}
	if cfg.Stall <= 0 {
		cfg.Stall = 30 * time.Second
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 8
	}
	t := &transfer{file: file, target: target, cfg: cfg}
	if err := t.begin(); err != nil {
		return fmt.Errorf("cannot fetch %s: %w", file.What, err)
	}
	idle := 0 // attempts in a row that brought nothing
	for n := 0; ; n++ {
		before := t.have
		err := t.attempt(ctx, file.URLs[n%len(file.URLs)])
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err = fmt.Errorf("cannot fetch %s: %w", file.What, err)
		if t.have > before && !errors.Is(err, errDigest) {
			idle = 0
		} else {
			idle++
		}
		if idle >= cfg.Attempts || errors.Is(err, ErrWrite) || cfg.MustBe && errors.Is(err, ErrAbsent) {
			return err
		}
		if cfg.Trouble != nil {
			cfg.Trouble(err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(30*time.Second, time.Second<<min(idle, 5))):
		}
	}
}

// transfer is the state across attempts: what lies in target, and its running hash.
type transfer struct {
	file   File
	target Target
	cfg    Config
	have   int64
	hash   hash.Hash
}

// begin starts with what target holds, if that is wanted, else with nothing.
func (t *transfer) begin() error {
	if !t.cfg.Resume {
		return t.restart()
	}
	t.hash = sha256.New()
	if _, err := t.target.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("%w: %w", ErrWrite, err)
	}
	have, err := io.Copy(t.hash, io.LimitReader(t.target, t.file.Size))
	if err != nil {
		return t.restart() // what cannot be read is fetched again
	}
	t.have = have
	if err := t.target.Truncate(have); err != nil {
		return fmt.Errorf("%w: %w", ErrWrite, err)
	}
	return nil
}

func (t *transfer) restart() error {
	t.have, t.hash = 0, sha256.New()
	if err := t.target.Truncate(0); err != nil {
		return fmt.Errorf("%w: %w", ErrWrite, err)
	}
	if _, err := t.target.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("%w: %w", ErrWrite, err)
	}
	return nil
}

// attempt makes one request for what is missing.
func (t *transfer) attempt(ctx context.Context, url string) error {
	if t.have == t.file.Size { // an earlier Get had it all
		return t.verify("what was fetched before")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(t.cfg.Stall, func() { cancel(errStall) })
	defer watch.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if t.have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.have))
	}
	answer, err := t.cfg.Client.Do(request)
	if err != nil {
		return t.broken(ctx, url, err)
	}
	defer answer.Body.Close()
	if err := t.accept(answer); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	buf := make([]byte, 256<<10)
	for t.have < t.file.Size {
		n, err := answer.Body.Read(buf[:min(int64(len(buf)), t.file.Size-t.have)])
		if n > 0 {
			watch.Reset(t.cfg.Stall)
			if _, err := t.target.Write(buf[:n]); err != nil {
				return fmt.Errorf("%w: %w", ErrWrite, err)
			}
			_, _ = t.hash.Write(buf[:n]) // a hash never fails
			t.have += int64(n)
		}
		if t.have == t.file.Size {
			break
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: the transfer ended at %d of %d bytes", url, t.have, t.file.Size)
		}
		if err != nil {
			return t.broken(ctx, url, err)
		}
	}
	return t.verify(url)
}

// broken says how far a transfer came, and why it ended.
func (t *transfer) broken(ctx context.Context, url string, err error) error {
	if errors.Is(context.Cause(ctx), errStall) {
		return fmt.Errorf("%s: the transfer stalled for %s at %d of %d bytes", url, t.cfg.Stall, t.have, t.file.Size)
	}
	return fmt.Errorf("%s: at %d of %d bytes: %w", url, t.have, t.file.Size, err)
}

// accept checks an answer's head, and starts over where the server does so.
func (t *transfer) accept(answer *http.Response) error {
	switch answer.StatusCode {
	case http.StatusOK:
		if answer.ContentLength >= 0 && answer.ContentLength != t.file.Size {
			return fmt.Errorf("it has %d bytes there, not %d", answer.ContentLength, t.file.Size)
		}
		if t.have > 0 { // a server that knows no ranges
			return t.restart()
		}
		return nil
	case http.StatusPartialContent:
		from, total, ok := parseContentRange(answer.Header.Get("Content-Range"))
		if !ok || from != t.have || (total >= 0 && total != t.file.Size) {
			return fmt.Errorf("asked for bytes from %d of %d, got %q", t.have, t.file.Size, answer.Header.Get("Content-Range"))
		}
		return nil
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%w: the server says %s", ErrAbsent, answer.Status)
	case http.StatusRequestedRangeNotSatisfiable:
		if err := t.restart(); err != nil {
			return err
		}
	}
	return fmt.Errorf("the server says %s", answer.Status)
}

// parseContentRange reads "bytes FROM-TO/TOTAL" (RFC 9110 § 14.4); total is -1 where it is "*".
func parseContentRange(s string) (from, total int64, ok bool) {
	s, found := strings.CutPrefix(s, "bytes ")
	span, size, slash := strings.Cut(s, "/")
	first, last, dash := strings.Cut(span, "-")
	if !found || !slash || !dash {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, 0, false
	}
	if to, err := strconv.ParseInt(last, 10, 64); err != nil || to < from {
		return 0, 0, false
	}
	if size == "*" {
		return from, -1, true
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return from, total, err == nil && total >= 0
}

func (t *transfer) verify(url string) error {
	got := hex.EncodeToString(t.hash.Sum(nil))
	if strings.EqualFold(got, t.file.SHA256) {
		return nil
	}
	if err := t.restart(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w: SHA-256 %s instead of %s", url, errDigest, got, t.file.SHA256)
}
