package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var content = bytes.Repeat([]byte("joist node image "), 40_000) // 680 kB: several reads

func testFile(urls ...string) File {
	sum := sha256.Sum256(content)
	return File{What: "the node image", URLs: urls, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content))}
}

// pipeNet is a network of in-memory connections, so that time is the test's.
type pipeNet struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipeNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipeNet) Close() error   { close(p.done); return nil }
func (p *pipeNet) Addr() net.Addr { return &net.TCPAddr{} }

// serve runs an in-memory web server and returns a client of it.
func serve(t *testing.T, handler http.HandlerFunc) *http.Client {
	p := &pipeNet{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(p) }() // ends with ErrServerClosed
	transport := &http.Transport{DialContext: p.dial}
	t.Cleanup(func() { transport.CloseIdleConnections(); _ = server.Close() })
	return &http.Client{Transport: transport}
}

// target makes a file and a check of what it holds.
func target(t *testing.T) (*os.File, func()) {
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, func() {
		t.Helper()
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("target holds %d bytes (%v), not the image", len(got), err)
		}
	}
}

type requests struct {
	mu     sync.Mutex
	ranges []string
}

func (r *requests) add(h *http.Request) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ranges = append(r.ranges, h.Header.Get("Range"))
	return len(r.ranges)
}

func full(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "image", time.Time{}, bytes.NewReader(content))
}

// broken sends the head and part of the body, and then whatever end says.
func broken(w http.ResponseWriter, n int, end func()) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	_, _ = w.Write(content[:n])
	w.(http.Flusher).Flush()
	end()
	panic(http.ErrAbortHandler)
}

func TestGet(t *testing.T) {
	tests := []struct {
		name    string
		handler func(seen *requests) http.HandlerFunc
		ranges  []string // of the requests made
		trouble string   // part of what was reported
		err     string
		took    time.Duration // of the fake clock
	}{
		{"whole", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { seen.add(r); full(w, r) }
		}, []string{""}, "", "", 0},
		{"resumed where it broke", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if seen.add(r) == 1 {
					broken(w, 300_000, func() {})
				}
				full(w, r)
			}
		}, []string{"", "bytes=300000-"}, "at 300000 of 680000 bytes", "", time.Second},
		{"resumed after a stall", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if seen.add(r) == 1 {
					broken(w, 300_000, func() { <-r.Context().Done() })
				}
				full(w, r)
			}
		}, []string{"", "bytes=300000-"}, "stalled for 30s at 300000 of 680000 bytes", "", 31 * time.Second},
		{"a server without ranges starts over", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if seen.add(r) == 1 {
					broken(w, 300_000, func() {})
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(content)))
				_, _ = w.Write(content)
			}
		}, []string{"", "bytes=300000-"}, "at 300000", "", time.Second},
		{"a wrong range is not taken", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				switch seen.add(r) {
				case 1:
					broken(w, 300_000, func() {})
				case 2:
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 200000-%d/%d", len(content)-1, len(content)))
					w.WriteHeader(http.StatusPartialContent)
					_, _ = w.Write(content[200_000:])
				default:
					full(w, r)
				}
			}
		}, []string{"", "bytes=300000-", "bytes=300000-"}, `asked for bytes from 300000 of 680000, got "bytes 200000-`, "", 3 * time.Second},
		{"a wrong digest starts over", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if seen.add(r) == 1 {
					bad := bytes.Clone(content)
					bad[400_000] ^= 1
					http.ServeContent(w, r, "image", time.Time{}, bytes.NewReader(bad))
					return
				}
				full(w, r)
			}
		}, []string{"", ""}, "wrong digest: SHA-256 ", "", 2 * time.Second},
		{"always the wrong digest", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				seen.add(r)
				http.ServeContent(w, r, "image", time.Time{}, bytes.NewReader(make([]byte, len(content))))
			}
		}, []string{"", "", ""}, "wrong digest", "wrong digest", 6 * time.Second},
		{"another size", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				seen.add(r)
				http.ServeContent(w, r, "image", time.Time{}, bytes.NewReader(content[1:]))
			}
		}, []string{"", "", ""}, "", "it has 679999 bytes there, not 680000", 6 * time.Second},
		{"not there", func(seen *requests) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { seen.add(r); http.NotFound(w, r) }
		}, []string{"", "", ""}, "", "the server says 404 Not Found", 6 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := &requests{}
				client := serve(t, tt.handler(seen))
				f, holdsImage := target(t)
				start := time.Now()
				var troubles []string
				err := Get(t.Context(), testFile("http://one/image", "http://two/image"), f, Config{Client: client, Attempts: 3, Trouble: func(err error) { troubles = append(troubles, err.Error()) }})
				if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				if err == nil {
					holdsImage()
				}
				if got := fmt.Sprint(seen.ranges); got != fmt.Sprint(tt.ranges) {
					t.Errorf("asked for %s, want %s", got, tt.ranges)
				}
				if !strings.Contains(strings.Join(troubles, "\n"), tt.trouble) {
					t.Errorf("troubles %q, want %q", troubles, tt.trouble)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
			})
		})
	}
}

func TestGetStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		f, _ := target(t)
		if err := Get(ctx, testFile("http://one/image"), f, Config{Client: client}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
	})
}

func TestFileCheck(t *testing.T) {
	good := testFile("http://a")
	for want, change := range map[string]func(*File){
		"not a SHA-256": func(i *File) { i.SHA256 = "sha256:" + i.SHA256 }, "no address": func(i *File) { i.URLs = nil }, "size of 0": func(i *File) { i.Size = 0 },
	} {
		i := good
		change(&i)
		if err := Get(t.Context(), i, nil, Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-1/2")
	f.Add("bytes 5-9/*")
	f.Add("bytes -/")
	f.Fuzz(func(t *testing.T, s string) {
		from, total, ok := parseContentRange(s)
		if ok && (from < 0 || total < -1) {
			t.Fatalf("%q: %d of %d", s, from, total)
		}
	})
}

var _ io.Writer = Target(nil)
