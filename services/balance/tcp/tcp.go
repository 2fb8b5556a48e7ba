// Package tcp is the engine's own balancer: it passes TCP connections on to whichever healthy backend has the fewest.
// A backend is healthy while it accepts connections and, where the front says what to ask for that, while it says that it
// is ready. Whatever else it says over connections is its own affair.
package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"joist/services/balance"
)

// Config is how a Balancer works. Zero fields have the defaults that stand beside them; Log is required.
type Config struct {
	Interval time.Duration // between two checks of a backend; 1 s
	Timeout  time.Duration // of a check, and of the connection to a backend; 1 s
	Patience time.Duration // with the answer of a backend that is asked whether it is ready; 5 s
	Rise     int           // checks in a row that make a failed backend healthy; 2
	Fall     int           // failures in a row that make a healthy one failed; 3
	Linger   time.Duration // how long a connection lives on after one side has ended its half; 10 min
	Most     int           // connections per front at a time; 10,000
	Log      *slog.Logger
}

// Balancer is a balance.Driver. It is safe for concurrent use.
type Balancer struct {
	cfg Config

	mu     sync.Mutex // guards all that follows, and everything in fronts
	fronts map[string]*front
	closed bool
	wg     sync.WaitGroup // one for each goroutine; nothing is added once closed
}

// New checks the configuration.
func New(cfg Config) (*Balancer, error) {
	if cfg.Log == nil {
		return nil, errors.New("internal error: the balancer needs a log")
	}
	for _, d := range []struct {
		value *time.Duration
		zero  time.Duration
	}{{&cfg.Interval, time.Second}, {&cfg.Timeout, time.Second}, {&cfg.Patience, 5 * time.Second}, {&cfg.Linger, 10 * time.Minute}} {
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	for _, n := range []struct {
		value *int
		zero  int
	}{{&cfg.Rise, 2}, {&cfg.Fall, 3}, {&cfg.Most, 10000}} {
		if *n.value == 0 {
			*n.value = n.zero
		}
	}
	if min(cfg.Interval, cfg.Timeout, cfg.Patience, cfg.Linger) < 0 || min(cfg.Rise, cfg.Fall, cfg.Most) < 0 {
		return nil, errors.New("cannot balance with negative times or numbers")
	}
	return &Balancer{cfg: cfg, fronts: map[string]*front{}}, nil
}

// front is a listener with its backends. The Balancer's mu guards it.
type front struct {
	url      string
	listen   netip.AddrPort
	ready    string // what backends are asked for; empty: nothing
	listener *net.TCPListener
	backends []*backend
	conns    map[*conn]struct{}
	refused  uint64
	turn     int // breaks ties between equally loaded backends
	ended    bool
	changed  chan struct{} // closed and replaced when a backend's health, or their list, changes
}

// Set implements balance.Driver.
func (b *Balancer) Set(ctx context.Context, want balance.Front) error {
	b.mu.Lock()
	f := b.fronts[want.URL]
	if f != nil && (f.listen != want.Listen || f.ready != want.Ready) {
		b.end(f, 0)
		f = nil
	}
	closed := b.closed
	b.mu.Unlock()
	var listener net.Listener
	if f == nil && !closed {
		var lc net.ListenConfig
		var err error
		if listener, err = lc.Listen(ctx, "tcp", want.Listen.String()); err != nil {
			if errors.Is(err, syscall.EADDRNOTAVAIL) {
				return fmt.Errorf("cannot listen on %s: the address is not this machine's; route it here first (ip route add local %s dev lo)", want.Listen, want.Listen.Addr())
			}
			return fmt.Errorf("cannot listen on %s: %w", want.Listen, err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f = b.fronts[want.URL]; b.closed || listener == nil && f == nil || listener != nil && f != nil {
		if listener != nil {
			_ = listener.Close()
		}
		return fmt.Errorf("cannot set the front %s: the balancer is closed, or the front was changed at the same time", want.URL)
	}
	if f == nil {
		f = &front{
			url: want.URL, listen: want.Listen, ready: want.Ready, listener: listener.(*net.TCPListener), conns: map[*conn]struct{}{}, changed: make(chan struct{}),
		}
		b.fronts[want.URL] = f
		b.wg.Go(func() { b.accept(f) })
	}
	b.setBackends(f, want.Backends)
	return nil
}

// setBackends starts checking new backends and stops checking those that went. Connections to the latter go on.
func (b *Balancer) setBackends(f *front, want []netip.AddrPort) {
	f.backends = slices.DeleteFunc(f.backends, func(have *backend) bool {
		gone := !slices.Contains(want, have.addr)
		if gone {
			have.stop()
		}
		return gone
	})
	for _, addr := range want {
		if !slices.ContainsFunc(f.backends, func(have *backend) bool { return have.addr == addr }) {
			ctx, stop := context.WithCancel(context.Background())
			added := &backend{addr: addr, stop: stop, alive: judged{reason: "not checked yet"}}
			f.backends = append(f.backends, added)
			b.wg.Go(func() { b.watch(ctx, f, added) })
			if f.ready == "" {
				added.ready = judged{ok: true, checked: true}
			} else {
				added.ready.reason = "not asked yet whether it is ready"
				b.wg.Go(func() { b.inquire(ctx, f, added) })
			}
		}
	}
	f.notify()
}

func (f *front) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Drop implements balance.Driver.
func (b *Balancer) Drop(_ context.Context, url string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.fronts[url]; f != nil {
		b.end(f, 0)
	}
	return nil
}

// end stops a front from taking connections and, unless they are to be kept for a while, ends those that it has.
func (b *Balancer) end(f *front, keep time.Duration) {
	delete(b.fronts, f.url)
	f.ended = true
	_ = f.listener.Close()
	for _, back := range f.backends {
		back.stop()
	}
	if keep == 0 {
		for c := range f.conns {
			c.abort()
		}
	}
	f.notify()
}

// Healthy implements balance.Driver.
func (b *Balancer) Healthy(ctx context.Context, url string, addr netip.AddrPort) error {
	return b.await(ctx, url, addr, true)
}

// await returns when a backend's health is what is wanted.
func (b *Balancer) await(ctx context.Context, url string, addr netip.AddrPort, healthy bool) error {
	for {
		b.mu.Lock()
		f := b.fronts[url]
		var back *backend
		if f != nil {
			if i := slices.IndexFunc(f.backends, func(h *backend) bool { return h.addr == addr }); i >= 0 {
				back = f.backends[i]
			}
		}
		if back == nil {
			b.mu.Unlock()
			return fmt.Errorf("front %s has no backend %s", url, addr)
		}
		ok, reason, changed := back.healthy() == healthy, back.reason(), f.changed
		b.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("backend %s of %s takes no connections, or is not ready: %s", addr, url, reason)
		}
	}
}

// Status implements balance.Driver.
func (b *Balancer) Status() []balance.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]balance.Status, 0, len(b.fronts))
	for _, f := range b.fronts {
		st := balance.Status{URL: f.url, Listen: f.listen, Open: len(f.conns), Refused: f.refused, Backends: []balance.Health{}}
		for _, back := range f.backends {
			st.Backends = append(st.Backends, balance.Health{
				Backend: back.addr, Healthy: back.healthy(), Error: back.reason(), Open: back.open, Total: back.total,
			})
		}
		slices.SortFunc(st.Backends, func(a, b balance.Health) int { return a.Backend.Compare(b.Backend) })
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b balance.Status) int { return strings.Compare(a.URL, b.URL) })
	return out
}

// Close stops taking connections, waits until those that exist have ended or the context has, ends the rest, and returns
// when every goroutine has.
func (b *Balancer) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	ended := make([]*front, 0, len(b.fronts))
	for _, f := range b.fronts {
		ended = append(ended, f)
		b.end(f, time.Hour)
	}
	b.mu.Unlock()
	done := make(chan struct{})
	go func() { b.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	for _, f := range ended {
		for c := range f.conns {
			c.abort()
		}
	}
	b.mu.Unlock()
	<-done
	return nil
}
