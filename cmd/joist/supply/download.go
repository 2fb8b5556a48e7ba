package supply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"
)

// silence is how long a server may send nothing before a download is given up: a slow one is waited for, a dead one is not.
const silence = time.Minute

var errSilence = errors.New("no byte for too long")

func silent(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errSilence) }

// watched is a body whose every read has its time. What is done with the bytes in between does not count.
type watched struct {
	r     io.Reader
	watch *time.Timer
}

// Read implements io.Reader.
func (w *watched) Read(b []byte) (int, error) {
	w.watch.Reset(silence)
	defer w.watch.Stop()
	return w.r.Read(b)
}

// download fetches what is wanted into a file, and wants it to be what its checksum says.
func (p *Program) download(ctx context.Context, w Wanted, path string) error {
	if !p.Quiet() {
		fmt.Fprintf(p.Err, "%s downloading %s\n", p.Now().Format("15:04:05"), w.URL)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	watch := time.AfterFunc(silence, func() { stop(errSilence) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL, nil)
	if err != nil {
		return fmt.Errorf("cannot download %s: %w", w.Name, err)
	}
	req.Header.Set("Accept-Encoding", "identity") // the checksum is of the file as it lies there
	resp, err := (&http.Client{Transport: p.Download}).Do(req)
	switch {
	case silent(ctx):
		return fmt.Errorf("cannot download %s: %s does not answer: no byte for %s; nothing was stored, run the command again, or bring the file and use joist mirror add", w.Name, w.URL, silence)
	case err != nil:
		return fmt.Errorf("cannot download %s: %w; where there is no network, bring the file and use joist mirror add", w.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot download %s: %s says %s; correct the url in %s, or bring the file and use joist mirror add", w.Name, w.URL, resp.Status, w.By)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot download %s: %w", w.Name, err)
	}
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, hash), &watched{resp.Body, watch})
	err = errors.Join(err, f.Close())
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		return fmt.Errorf("cannot download %s: %w; free space there, or name another folder with TMPDIR", w.Name, err)
	case err != nil && silent(ctx):
		return fmt.Errorf("cannot download %s: %s stalled after %d bytes: no further one for %s; nothing was stored, run the command again", w.Name, w.URL, size, silence)
	case err != nil:
		return fmt.Errorf("cannot download %s: %s broke off after %d bytes: %w; nothing was stored, run the command again", w.Name, w.URL, size, err)
	}
	if got := "sha256-" + hex.EncodeToString(hash.Sum(nil)); got != w.Digest {
		return fmt.Errorf("cannot download %s: %s gives %s (%d bytes), and %s wants %s; nothing was stored. Where the file there is another one now, bring the right one and use joist mirror add",
			w.Name, w.URL, got, size, w.By, w.Digest)
	}
	return nil
}
