package scout

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

// Image is a node image by digest.
type Image struct {
	URLs   []string `json:"urls"`   // where it can be had, in the order to be tried
	SHA256 string   `json:"sha256"` // 64 hexadecimal digits
	Size   int64    `json:"size"`   // bytes
}

// check refuses an image that could not be verified.
func (i Image) check() error {
	if b, err := hex.DecodeString(i.SHA256); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("the node image's digest %q is not a SHA-256", i.SHA256)
	}
	if len(i.URLs) == 0 {
		return errors.New("the node image has no address")
	}
	if i.Size <= 0 {
		return fmt.Errorf("the node image has a size of %d bytes", i.Size)
	}
	return nil
}

// memoryReserve is what a machine needs beside its image to reach the point where its cluster's steps decide, in bytes.
const memoryReserve = 256 << 20

// CheckMemory refuses an image that does not fit a machine with the given memory, both in bytes.
func CheckMemory(image, available int64) error {
	if image+memoryReserve <= available {
		return nil
	}
	return fmt.Errorf("the node image is larger than this machine's memory allows: image %d MiB and %d MiB to start with, available %d MiB",
		image>>20, int64(memoryReserve)>>20, available>>20)
}

// Target is where an image is written: a file that can be emptied.
type Target interface {
	io.Writer
	io.Seeker
	Truncate(size int64) error
}

// Fetch says how an image is fetched.
type Fetch struct {
	// Client speaks HTTP; it brings the trust in the engine's certificate. Required.
	Client *http.Client
	// Stall is how long a transfer may stand still; 30 s where zero.
	Stall time.Duration
	// Attempts is how often in a row an attempt may bring nothing new before Fetch gives up; 8 where zero.
	Attempts int
	// Trouble is told each attempt's error. May be nil.
	Trouble func(error)
}

// errStall cancels a request that stands still.
var errStall = errors.New("stalled")

// errDigest is a transfer that was whole and is not the image.
var errDigest = errors.New("wrong digest")

// FetchImage fetches an image into target and verifies it. A transfer that breaks or stalls is resumed where it
// stopped, from the next address; one with the wrong digest starts anew. Attempts are spaced by a back-off of 1 s
// doubling to 30 s, which new bytes reset. On success target holds exactly the image.
func FetchImage(ctx context.Context, image Image, target Target, f Fetch) error {
	if err := image.check(); err != nil {
		return err
	}
	if f.Stall <= 0 {
		f.Stall = 30 * time.Second
	}
	if f.Attempts <= 0 {
		f.Attempts = 8
	}
	t := &transfer{image: image, target: target, fetch: f}
	if err := t.restart(); err != nil {
		return err
	}
	idle := 0 // attempts in a row that brought nothing
	for n := 0; ; n++ {
		before := t.have
		err := t.attempt(ctx, image.URLs[n%len(image.URLs)])
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err = fmt.Errorf("cannot fetch the node image: %w", err)
		if t.have > before && !errors.Is(err, errDigest) {
			idle = 0
		} else {
			idle++
		}
		if idle >= f.Attempts {
			return err
		}
		if f.Trouble != nil {
			f.Trouble(err)
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
	image  Image
	target Target
	fetch  Fetch
	have   int64
	hash   hash.Hash
}

func (t *transfer) restart() error {
	t.have, t.hash = 0, sha256.New()
	if err := t.target.Truncate(0); err != nil {
		return fmt.Errorf("cannot write the node image: %w", err)
	}
	if _, err := t.target.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot write the node image: %w", err)
	}
	return nil
}

// attempt makes one request for what is missing.
func (t *transfer) attempt(ctx context.Context, url string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(t.fetch.Stall, func() { cancel(errStall) })
	defer watch.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if t.have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.have))
	}
	answer, err := t.fetch.Client.Do(request)
	if err != nil {
		return t.broken(ctx, url, err)
	}
	defer answer.Body.Close()
	if err := t.accept(answer); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	buf := make([]byte, 256<<10)
	for t.have < t.image.Size {
		n, err := answer.Body.Read(buf[:min(int64(len(buf)), t.image.Size-t.have)])
		if n > 0 {
			watch.Reset(t.fetch.Stall)
			if _, err := t.target.Write(buf[:n]); err != nil {
				return fmt.Errorf("cannot write the node image: %w", err)
			}
			_, _ = t.hash.Write(buf[:n]) // a hash never fails
			t.have += int64(n)
		}
		if t.have == t.image.Size {
			break
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: the transfer ended at %d of %d bytes", url, t.have, t.image.Size)
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
		return fmt.Errorf("%s: the transfer stalled for %s at %d of %d bytes", url, t.fetch.Stall, t.have, t.image.Size)
	}
	return fmt.Errorf("%s: at %d of %d bytes: %w", url, t.have, t.image.Size, err)
}

// accept checks an answer's head, and starts over where the server does so.
func (t *transfer) accept(answer *http.Response) error {
	switch answer.StatusCode {
	case http.StatusOK:
		if answer.ContentLength >= 0 && answer.ContentLength != t.image.Size {
			return fmt.Errorf("it has %d bytes there, not %d", answer.ContentLength, t.image.Size)
		}
		if t.have > 0 { // a server that knows no ranges
			return t.restart()
		}
		return nil
	case http.StatusPartialContent:
		from, total, ok := parseContentRange(answer.Header.Get("Content-Range"))
		if !ok || from != t.have || (total >= 0 && total != t.image.Size) {
			return fmt.Errorf("asked for bytes from %d of %d, got %q", t.have, t.image.Size, answer.Header.Get("Content-Range"))
		}
		return nil
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
	if strings.EqualFold(got, t.image.SHA256) {
		return nil
	}
	if err := t.restart(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w: SHA-256 %s instead of %s", url, errDigest, got, t.image.SHA256)
}
