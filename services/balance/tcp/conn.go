package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// backend is one target of a front. The Balancer's mu guards it.
type backend struct {
	addr    netip.AddrPort
	stop    context.CancelFunc // of its watch
	checked bool
	healthy bool
	row     int    // checks in a row that contradict healthy
	reason  string // of the last failure; empty after a success
	open    int
	total   uint64
}

// watch checks a backend until its context ends.
func (b *Balancer) watch(ctx context.Context, f *front, back *backend) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		c, err := b.dial(ctx, back.addr)
		if c != nil {
			_ = c.SetLinger(0) // a check leaves no connection in TIME_WAIT behind
			_ = c.Close()
		}
		if ctx.Err() != nil {
			return
		}
		b.note(f, back, err)
		timer.Reset(b.cfg.Interval)
	}
}

func (b *Balancer) dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: b.cfg.Timeout}
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// note counts a check, or a connection that was not accepted. The very first decides at once. A backend that turns
// out to have failed loses its connections, so that their clients come back and reach another one.
func (b *Balancer) note(f *front, back *backend, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := back.reason
	back.reason = ""
	if err != nil {
		back.reason = err.Error()
	}
	needed := b.cfg.Fall
	if !back.healthy {
		needed = b.cfg.Rise
	}
	if !back.checked {
		needed = 1
	}
	back.checked = true
	if back.healthy == (err == nil) {
		back.row = 0
	} else {
		back.row++
	}
	turned := back.row >= needed
	if turned {
		back.healthy, back.row = !back.healthy, 0
		b.cfg.Log.Info("backend changed", "front", f.url, "backend", back.addr.String(), "healthy", back.healthy, "error", back.reason)
		if !back.healthy {
			for c := range f.conns {
				if c.back == back && c.server != nil { // one that is still being connected tries the next backend
					c.abort()
				}
			}
		}
	}
	if turned || before != back.reason {
		f.notify()
	}
}

// conn is a client's connection and the one to the backend.
type conn struct {
	client *net.TCPConn
	cancel context.CancelFunc // of the dialling
	back   *backend           // guarded by the Balancer's mu, as is server
	server *net.TCPConn
}

// abort ends both connections at once, with a reset. The Balancer's mu is held.
func (c *conn) abort() {
	c.cancel()
	reset(c.client)
	if c.server != nil {
		reset(c.server)
	}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// accept takes connections until the listener closes.
func (b *Balancer) accept(f *front) {
	for {
		client, err := f.listener.AcceptTCP()
		if err != nil {
			b.mu.Lock()
			ended := f.ended
			b.mu.Unlock()
			if ended || errors.Is(err, net.ErrClosed) {
				return
			}
			b.cfg.Log.Warn("cannot accept a connection", "front", f.url, "error", err)
			time.Sleep(50 * time.Millisecond) // out of file descriptors: it passes when connections end
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		c := &conn{client: client, cancel: cancel}
		b.mu.Lock()
		if f.ended || len(f.conns) >= b.cfg.Most {
			f.refused++
			b.mu.Unlock()
			cancel()
			reset(client)
			continue
		}
		f.conns[c] = struct{}{}
		b.wg.Go(func() { b.serve(ctx, f, c) })
		b.mu.Unlock()
	}
}

// serve passes one connection on.
func (b *Balancer) serve(ctx context.Context, f *front, c *conn) {
	defer c.cancel()
	server := b.connect(ctx, f, c)
	if server == nil {
		reset(c.client)
	} else {
		b.pass(c.client, server)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.back != nil {
		c.back.open--
	}
	if server == nil && !f.ended {
		f.refused++
	}
	delete(f.conns, c)
}

// connect reaches a backend: the best, and if it does not answer the next best, each once.
func (b *Balancer) connect(ctx context.Context, f *front, c *conn) *net.TCPConn {
	tried := map[*backend]bool{}
	for ctx.Err() == nil {
		back := b.choose(f, c, tried)
		if back == nil {
			return nil
		}
		tried[back] = true
		server, err := b.dial(ctx, back.addr)
		if err != nil {
			if ctx.Err() == nil {
				b.note(f, back, err)
			}
			continue
		}
		b.mu.Lock()
		c.server = server
		aborted := ctx.Err() != nil // then nobody has closed what was not there yet
		b.mu.Unlock()
		if aborted {
			reset(server)
			return nil
		}
		return server
	}
	return nil
}

// choose gives the connection to the healthy backend with the fewest; between equals they take turns.
func (b *Balancer) choose(f *front, c *conn, tried map[*backend]bool) *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.back != nil {
		c.back.open--
		c.back = nil
	}
	var best *backend
	for i := range f.backends {
		back := f.backends[(f.turn+i)%len(f.backends)]
		if back.healthy && !tried[back] && (best == nil || back.open < best.open) {
			best = back
		}
	}
	f.turn++
	if best != nil {
		best.open++
		best.total++
		c.back = best
	}
	return best
}

// pass copies both ways until both have ended. When one side ends its half, the other side learns of it and may go on
// for a while; when one breaks, so does the other.
func (b *Balancer) pass(client, server *net.TCPConn) {
	var wg sync.WaitGroup
	half := func(to, from *net.TCPConn) {
		_, err := io.Copy(to, from) // from socket to socket, within the kernel (splice)
		if err == nil {
			err = to.CloseWrite()
		}
		if err != nil {
			reset(to)
			reset(from)
			return
		}
		_ = to.SetReadDeadline(time.Now().Add(b.cfg.Linger))
	}
	wg.Go(func() { half(server, client) })
	half(client, server)
	wg.Wait()
	_ = client.Close()
	_ = server.Close()
}
