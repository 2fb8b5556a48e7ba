package tcp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"joist/services/balance"
)

const link = "https://etcd.demo.lab:2379"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newBalancer(t *testing.T) *Balancer {
	t.Helper()
	b, err := New(Config{
		Interval: 10 * time.Millisecond, Timeout: long, Linger: time.Second, Log: slog.New(slog.DiscardHandler),
	})
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
	return b
}

// server is a backend: it says its name, then echoes until the client ends its half.
type server struct {
	name     string
	addr     netip.AddrPort
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func startServer(t *testing.T, name string, at netip.AddrPort) *server {
	t.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{name: name, addr: l.Addr().(*net.TCPAddr).AddrPort(), listener: l}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.wg.Go(func() {
				defer c.Close()
				if _, err := io.WriteString(c, name+"\n"); err == nil {
					_, _ = io.Copy(c, c)
				}
			})
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// freePort finds a port on the address that nothing listens on.
func freePort(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func set(t *testing.T, b *Balancer, listen netip.AddrPort, servers ...*server) {
	t.Helper()
	f := balance.Front{URL: link, Cluster: "demo", Listen: listen}
	for _, s := range servers {
		f.Backends = append(f.Backends, s.addr)
	}
	if err := b.Set(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		if err := b.Healthy(t.Context(), link, s.addr); err != nil {
			t.Fatal(err)
		}
	}
}

func dial(t *testing.T, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// who reads the name that the backend says first.
func who(t *testing.T, c net.Conn) string {
	t.Helper()
	name := make([]byte, 2)
	if _, err := io.ReadFull(c, name); err != nil {
		t.Fatal(err)
	}
	return string(name[:1])
}

func TestSpreadsAndCopies(t *testing.T) {
	b := newBalancer(t)
	a, z := startServer(t, "a", anyPort), startServer(t, "z", anyPort)
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen, a, z)
	count := map[string]int{}
	var open []*net.TCPConn
	for range 20 {
		c := dial(t, listen)
		count[who(t, c)]++
		open = append(open, c)
	}
	if count["a"] != 10 || count["z"] != 10 {
		t.Errorf("20 connections were spread %v", count)
	}
	sent := make([]byte, 4<<20)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 1)
	go func() {
		_, err := open[0].Write(sent)
		errs <- errors.Join(err, open[0].CloseWrite()) // and still the rest comes back
	}()
	got, err := io.ReadAll(open[0])
	if err = errors.Join(err, <-errs); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d octets came back: %v", len(got), len(sent), err)
	}
	st := b.Status()
	if len(st) != 1 || st[0].URL != link || len(st[0].Backends) != 2 || !st[0].Backends[0].Healthy || st[0].Backends[0].Total != 10 {
		t.Errorf("status %+v", st)
	}
}

// refused tries a connection and says whether it was reset at once.
func refused(t *testing.T, listen netip.AddrPort) bool {
	t.Helper()
	c, err := net.DialTimeout("tcp", listen.String(), 5*time.Second)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	return errors.Is(err, syscall.ECONNRESET)
}

func TestRefusesWithoutBackend(t *testing.T) {
	b := newBalancer(t)
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen)
	if !refused(t, listen) {
		t.Error("a front without backends does not refuse")
	}
	dead := freePort(t, "127.0.0.1")
	if err := b.Set(t.Context(), balance.Front{URL: link, Listen: listen, Backends: []netip.AddrPort{dead}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Healthy(ctx, link, dead); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a dead backend: %v", err)
	}
	if !refused(t, listen) {
		t.Error("a front with a dead backend does not refuse")
	}
	if st := b.Status()[0]; st.Refused != 2 || st.Backends[0].Healthy || st.Backends[0].Total != 0 || st.Backends[0].Error == "" {
		t.Errorf("status %+v", st)
	}
	if err := b.Healthy(t.Context(), link, freePort(t, "127.0.0.1")); err == nil || !strings.Contains(err.Error(), "no backend") {
		t.Errorf("an unknown backend: %v", err)
	}
}

func TestBackendDiesAndReturns(t *testing.T) {
	b := newBalancer(t)
	a, z := startServer(t, "a", anyPort), startServer(t, "z", anyPort)
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen, a, z)
	idle := map[string]*net.TCPConn{}
	for range 2 {
		c := dial(t, listen)
		idle[who(t, c)] = c
	}
	a.stop()
	if _, err := idle["a"].Read(make([]byte, 1)); err == nil {
		t.Error("the dead backend's connection lives")
	}
	for range 6 { // also before its health check has failed
		if got := who(t, dial(t, listen)); got != "z" {
			t.Errorf("a connection went to %s", got)
		}
	}
	if err := b.await(t.Context(), link, a.addr, false); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(idle["z"], "ping"); err != nil {
		t.Error(err)
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(idle["z"], answer); err != nil || string(answer) != "ping" {
		t.Errorf("the living backend's connection answers %q, %v", answer, err)
	}
	startServer(t, "a", a.addr)
	if err := b.Healthy(t.Context(), link, a.addr); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 20 {
		seen[who(t, dial(t, listen))] = true
	}
	if !seen["a"] {
		t.Error("the returned backend gets no connection")
	}
}

func TestSilentBackendLosesItsConnections(t *testing.T) {
	b := newBalancer(t)
	a := startServer(t, "a", anyPort)
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen, a)
	c := dial(t, listen)
	who(t, c)
	_ = a.listener.Close() // no longer accepts; the connection that it has stays open
	if err := b.await(t.Context(), link, a.addr, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection to a failed backend: %v, want a reset", err)
	}
}

func TestChangesInMidLife(t *testing.T) {
	b := newBalancer(t)
	a, z := startServer(t, "a", anyPort), startServer(t, "z", anyPort)
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen, a)
	c := dial(t, listen)
	who(t, c)
	set(t, b, listen, z) // a is taken away: its connection goes on, new ones go to z
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Error(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the connection to a removed backend ended: %v", err)
	}
	if got := who(t, dial(t, listen)); got != "z" {
		t.Errorf("a connection went to %s", got)
	}
	moved := freePort(t, "127.0.0.3")
	set(t, b, moved, z)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived its front's address")
	}
	if !refused(t, listen) {
		t.Error("the old address still listens")
	}
	if err := b.Drop(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	if !refused(t, moved) || len(b.Status()) != 0 {
		t.Error("a dropped front is still there")
	}
	if err := b.Drop(t.Context(), link); err != nil {
		t.Errorf("dropping again: %v", err)
	}
}

func TestHalfClosedConnectionsEnd(t *testing.T) {
	b := newBalancer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(silent)
				return
			}
			silent <- c // says nothing, and never closes
		}
	}()
	defer func() {
		_ = l.Close()
		for c := range silent {
			_ = c.Close()
		}
	}()
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen, &server{addr: l.Addr().(*net.TCPAddr).AddrPort()})
	c := dial(t, listen)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a half-closed connection goes on for ever: %v", err)
	}
}

func TestCloseWaits(t *testing.T) {
	b := newBalancer(t)
	a := startServer(t, "a", anyPort)
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen, a)
	c := dial(t, listen)
	who(t, c)
	closed := make(chan error, 1)
	go func() { closed <- b.Close(context.Background()) }()
	for !refused(t, listen) { // from now on nothing new
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Error(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the open connection was cut: %v", err)
	}
	select {
	case <-closed:
		t.Error("closed under an open connection")
	default:
	}
	_ = c.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := b.Set(t.Context(), balance.Front{URL: link, Listen: listen}); err == nil {
		t.Error("a closed balancer was set")
	}
}

func TestSetSaysWhatIsWrong(t *testing.T) {
	b := newBalancer(t)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for at, want := range map[string]string{l.Addr().String(): "address already in use", "192.0.2.1:2379": "ip route add local 192.0.2.1"} {
		if err := b.Set(t.Context(), balance.Front{URL: link, Listen: netip.MustParseAddrPort(at)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("listening on %s: %v", at, err)
		}
	}
}

func TestMany(t *testing.T) {
	b := newBalancer(t)
	a, z := startServer(t, "a", anyPort), startServer(t, "z", anyPort)
	listen := freePort(t, "127.0.0.2")
	set(t, b, listen, a, z)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				c, err := net.Dial("tcp", listen.String())
				if err != nil {
					t.Error(err)
					return
				}
				_, werr := io.WriteString(c, "hello")
				cerr := c.(*net.TCPConn).CloseWrite()
				got, rerr := io.ReadAll(c)
				if err := errors.Join(werr, cerr, rerr, c.Close()); err != nil || !strings.HasSuffix(string(got), "\nhello") {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}
