package boot

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener that hands out one side of in-memory connections.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, errors.New("closed")
	}
	return c, nil
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestPace: a client that stands still is cut off, one that is merely slow gets everything.
func TestPace(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pause  time.Duration // after each 64 KiB
		served bool
	}{{"slow", time.Second, true}, {"stalled", 5 * time.Minute, false}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, cfg := config(t)
				s, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				l := &pipes{conns: make(chan net.Conn, 1)}
				web := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Minute}
				done := make(chan struct{})
				go func() { defer close(done); _ = web.Serve(l) }() // ends with an error by Close
				near, far := net.Pipe()
				l.conns <- far
				if _, err := io.WriteString(near, "GET "+ArtifactPath(w.set.Kernel)+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(bufio.NewReaderSize(near, 4096), nil)
				if err != nil {
					t.Fatal(err)
				}
				var got strings.Builder
				for {
					_, err = io.CopyN(&got, res.Body, 64<<10)
					if err != nil {
						break
					}
					time.Sleep(tc.pause)
				}
				if served := got.Len() == 6*500_000; served != tc.served || served != errors.Is(err, io.EOF) {
					t.Errorf("%d bytes, %v", got.Len(), err)
				}
				near.Close()
				web.Close()
				<-done
			})
		})
	}
}
