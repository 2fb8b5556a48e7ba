package tcp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"joist/services/balance"
)

const api = "https://api.demo.lab:6443"

const (
	short = 500 * time.Millisecond
	long  = 20 * time.Second
)

// member is a backend that says over HTTPS whether it is ready, and what it is called.
type member struct {
	name     string
	addr     netip.AddrPort
	listener *net.TCPListener
	server   *httptest.Server
	status   atomic.Int64 // of the answer to /readyz; 0 is none
}

// startMember starts one that listens with a backlog of one connection, so that it can be made to accept nothing.
func startMember(t *testing.T, name string, at netip.AddrPort, status int) *member {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
			syscall.Bind(fd, &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}), syscall.Listen(fd, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), name)
	l, err := net.FileListener(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	m := &member{name: name, listener: l.(*net.TCPListener), addr: l.Addr().(*net.TCPAddr).AddrPort()}
	m.status.Store(int64(status))
	m.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			_, _ = io.WriteString(w, name)
			return
		}
		if m.status.Load() == 0 {
			<-r.Context().Done() // until the one who asks gives up
			return
		}
		w.WriteHeader(int(m.status.Load()))
	}))
	_ = m.server.Listener.Close()
	m.server.Listener = l
	m.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	m.server.StartTLS()
	t.Cleanup(m.server.Close)
	return m
}

func (m *member) stop() {
	m.server.CloseClientConnections()
	m.server.Close()
}

// hole makes the member's address one that nothing comes back from: it accepts no more, and what waits to be accepted fills
// the queue, so that the kernel answers nobody else. Connections that it has stay.
func (m *member) hole(t *testing.T) {
	t.Helper()
	if err := m.listener.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := net.DialTimeout("tcp", m.addr.String(), 300*time.Millisecond)
		if err != nil {
			var late net.Error
			if !errors.As(err, &late) || !late.Timeout() {
				t.Fatal(err)
			}
			return
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// newAsking makes a balancer with a front whose backends say whether they are ready, and waits for those that are. Its limit
// is how long it waits for backends: short where a test waits for that, and else longer than a busy computer takes.
func newAsking(t *testing.T, limit time.Duration, members ...*member) (*Balancer, netip.AddrPort) {
	t.Helper()
	b, err := New(Config{Interval: 5 * time.Millisecond, Timeout: limit, Patience: limit, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	f := balance.Front{URL: api, Cluster: "demo", Listen: freePort(t, "127.0.0.2"), Ready: "/readyz"}
	for _, m := range members {
		f.Backends = append(f.Backends, m.addr)
	}
	if err := b.Set(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.status.Load() == http.StatusOK {
			turns(t, b, m, true)
		} else {
			known(t, b, m)
		}
	}
	return b, f.Listen
}

// turns waits until a member is healthy, or is not.
func turns(t *testing.T, b *Balancer, m *member, healthy bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.await(ctx, api, m.addr, healthy); err != nil {
		t.Fatal(err)
	}
}

// known waits until it is known why a member is not ready.
func known(t *testing.T, b *Balancer, m *member) string {
	t.Helper()
	for {
		b.mu.Lock()
		changed, why := b.fronts[api].changed, ""
		for _, back := range b.fronts[api].backends {
			if back.addr == m.addr && back.alive.ok {
				if back.ready.checked {
					why = back.ready.reason
				}
			}
		}
		b.mu.Unlock()
		if why != "" {
			return why
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("%s does not say that it is not ready", m.name)
		}
	}
}

// visit asks through the front for a member's name, and keeps the connection.
func visit(t *testing.T, listen netip.AddrPort) (string, *tls.Conn) {
	t.Helper()
	c := tls.Client(dial(t, listen), &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(c, "GET /name HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	name, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(name), c
}

// only wants that all new connections reach one member.
func only(t *testing.T, listen netip.AddrPort, want string) {
	t.Helper()
	for range 6 {
		if got, _ := visit(t, listen); got != want {
			t.Errorf("a connection went to %s, want %s", got, want)
		}
	}
}

// both gives a connection to each of two members.
func both(t *testing.T, listen netip.AddrPort) map[string]*tls.Conn {
	t.Helper()
	conns := map[string]*tls.Conn{}
	for range 2 {
		name, c := visit(t, listen)
		conns[name] = c
	}
	if len(conns) != 2 {
		t.Fatalf("two connections went to %d members", len(conns))
	}
	return conns
}

// cut wants that a connection is reset, not left to wait.
func cut(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: %v, want a reset", what, err)
	}
}

// lives wants that a connection still is one.
func lives(t *testing.T, what string, c *tls.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "GET /name HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	_ = resp.Body.Close()
}

func TestConnectionsGoToWhoIsReady(t *testing.T) {
	for name, status := range map[string]int{"error": 500, "forbidden": 403, "redirect": 302} {
		t.Run(name, func(t *testing.T) {
			a, z := startMember(t, "a", anyPort, 200), startMember(t, "z", anyPort, status)
			b, listen := newAsking(t, long, a, z)
			only(t, listen, "a")
			if why := known(t, b, z); !strings.Contains(why, http.StatusText(status)) {
				t.Errorf("z is not ready because %s", why)
			}
			z.status.Store(200)
			turns(t, b, z, true)
			only(t, listen, "z") // it has the fewest
		})
	}
}

func TestNotReadyLosesItsConnections(t *testing.T) {
	a, z := startMember(t, "a", anyPort, 200), startMember(t, "z", anyPort, 200)
	b, listen := newAsking(t, long, a, z)
	conns := both(t, listen)
	z.status.Store(500)
	turns(t, b, z, false)
	cut(t, "the connection to a member that is not ready", conns["z"])
	lives(t, "the connection to the ready member", conns["a"])
	only(t, listen, "a")
}

// A member that was ready, and still answers, is better than none: all may say so for a while, as when etcd elects a leader.
func TestNobodyReady(t *testing.T) {
	a, z := startMember(t, "a", anyPort, 200), startMember(t, "z", anyPort, 403)
	b, listen := newAsking(t, long, a, z)
	_, c := visit(t, listen)
	a.status.Store(500)
	turns(t, b, a, false)
	lives(t, "the connection to a member that was ready", c)
	only(t, listen, "a") // and not z, which never was
	z.status.Store(200)
	turns(t, b, z, true)
	cut(t, "the connection to a member that is not ready, with one that is", c)
	only(t, listen, "z")
}

func TestSilentIsNotReady(t *testing.T) {
	a, z := startMember(t, "a", anyPort, 200), startMember(t, "z", anyPort, 0)
	_, listen := newAsking(t, short, a, z)
	only(t, listen, "a")
}

func TestStartingIsNotReady(t *testing.T) {
	z := startMember(t, "z", anyPort, 403)
	b, listen := newAsking(t, long, z)
	if !refused(t, listen) {
		t.Error("a member that never was ready gets connections")
	}
	z.status.Store(200)
	turns(t, b, z, true)
	only(t, listen, "z")
}

func TestDeadMemberReturns(t *testing.T) {
	a, z := startMember(t, "a", anyPort, 200), startMember(t, "z", anyPort, 200)
	b, listen := newAsking(t, long, a, z)
	z.stop()
	only(t, listen, "a") // also before a check failed
	turns(t, b, z, false)
	z = startMember(t, "z", z.addr, 403) // it accepts connections before it knows who may do what
	for known(t, b, z); !strings.Contains(known(t, b, z), "403"); {
	}
	only(t, listen, "a")
	a.stop()
	turns(t, b, a, false)
	if !refused(t, listen) {
		t.Error("a member that is not ready yet gets connections because it was before it died")
	}
	z.status.Store(200)
	turns(t, b, z, true)
	only(t, listen, "z")
}

// A machine without power answers nothing: connections to it are not refused, and those that it had just end.
func TestBlackHole(t *testing.T) {
	a, z := startMember(t, "a", anyPort, 200), startMember(t, "z", anyPort, 200)
	b, listen := newAsking(t, short, a, z)
	conns := both(t, listen)
	z.hole(t)
	for range 3 { // each within the time of one attempt at z
		if got, _ := visit(t, listen); got != "a" {
			t.Errorf("a connection went to %s", got)
		}
	}
	turns(t, b, z, false)
	cut(t, "the connection to a black hole", conns["z"])
	lives(t, "the connection to the other member", conns["a"])
	if st := b.Status()[0]; !strings.Contains(st.Backends[0].Error+st.Backends[1].Error, "timeout") {
		t.Errorf("status %+v", st)
	}
}
