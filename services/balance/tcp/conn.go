package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

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
				b.noteAlive(f, back, err)
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

// choose gives the connection to the healthy backend with the fewest; between equals they take turns. Where none is
// healthy, it gives it to one that was, and lives: what is asked of it may well be answered before it is itself again.
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
		switch {
		case tried[back] || !back.alive.ok || !back.ready.ok && !back.proud:
		case best == nil, back.ready.ok && !best.ready.ok, back.ready.ok == best.ready.ok && back.open < best.open:
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
