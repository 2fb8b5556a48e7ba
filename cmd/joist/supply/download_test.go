package supply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "joist/services/api/v1"
)

// pipes is a network in memory: time goes on in it as the test's clock does.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialled:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { close(p.closed); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p.dialled <- there
	return here, nil
}

// A server that says nothing for a minute is given up, however far it came; one that is slow is not.
func TestDownloadStalls(t *testing.T) {
	data := bytes.Repeat([]byte("a tool "), 10)
	digest := sha256.Sum256(data)
	some := func(w http.ResponseWriter, b []byte) {
		_, _ = w.Write(b) // a client may go away
		_ = http.NewResponseController(w).Flush()
	}
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		after time.Duration // how long it takes
		says  string        // the error; empty for none
	}{
		"no answer": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, silence,
			"cannot download tool: http://origin/tool does not answer: no byte for 1m0s; nothing was stored, run the command again"},
		"no more": {func(w http.ResponseWriter, r *http.Request) {
			some(w, data[:7])
			time.Sleep(30 * time.Second)
			some(w, data[7:9])
			<-r.Context().Done()
		}, 30*time.Second + silence, "cannot download tool: http://origin/tool stalled after 9 bytes: no further one for 1m0s; nothing was stored, run the command again"},
		"slow": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range data {
				time.Sleep(silence - time.Second)
				some(w, data[i:i+1])
			}
		}, time.Duration(len(data)) * (silence - time.Second), ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			synctest.Test(t, func(t *testing.T) {
				net := &pipes{make(chan net.Conn), make(chan struct{})}
				server := &http.Server{Handler: c.serve}
				ended := make(chan error, 1)
				go func() { ended <- server.Serve(net) }()
				through := &http.Transport{DialContext: net.dial}
				p := &Program{Err: io.Discard, Now: time.Now, Quiet: func() bool { return true }, Download: through}
				began := time.Now()
				err := p.download(t.Context(), Wanted{MirrorEntry: v1.MirrorEntry{Name: "tool", URL: "http://origin/tool", Digest: "sha256-" + hex.EncodeToString(digest[:])}}, path)
				took := time.Since(began)
				through.CloseIdleConnections()
				if closed := errors.Join(server.Close(), <-ended); !errors.Is(closed, http.ErrServerClosed) {
					t.Error(closed)
				}
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.HasPrefix(err.Error(), c.says)) {
					t.Errorf("error %v, want %q", err, c.says)
				}
				if took != c.after {
					t.Errorf("it took %s, want %s", took, c.after)
				}
			})
			if got, err := os.ReadFile(path); c.says == "" && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
