package tcp

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// backend is one target of a front. The Balancer's mu guards it.
type backend struct {
	addr  netip.AddrPort
	stop  context.CancelFunc // of its watches
	alive judged             // whether it takes connections
	ready judged             // whether it says that it is ready; always so where nobody asks
	proud bool               // it was ready since it lives: it gets what no other backend can take
	open  int
	total uint64
}

// healthy backends are the ones that connections go to, as long as there is one.
func (k *backend) healthy() bool { return k.alive.ok && k.ready.ok }

// reason is why it is not healthy, or what may become one.
func (k *backend) reason() string {
	if k.alive.reason != "" {
		return k.alive.reason
	}
	return k.ready.reason
}

// judged is an opinion that changes only when several checks in a row contradict it. The very first decides at once.
type judged struct {
	ok, checked bool
	row         int    // checks in a row that contradict ok
	reason      string // of the last failure; empty after a success
}

// note takes in a check, and says whether the opinion changed.
func (j *judged) note(err error, rise, fall int) bool {
	j.reason = ""
	if err != nil {
		j.reason = err.Error()
	}
	needed := fall
	if !j.ok {
		needed = rise
	}
	if !j.checked {
		needed = 1
	}
	j.checked = true
	if j.ok == (err == nil) {
		j.row = 0
	} else {
		j.row++
	}
	if j.row < needed {
		return false
	}
	j.ok, j.row = !j.ok, 0
	return true
}

// watch checks whether a backend takes connections, until its context ends.
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
		b.noteAlive(f, back, err)
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

// inquire asks a backend whether it is ready, until its context ends. It keeps its connection from one question to the
// next: a handshake each time would cost a small machine more than the answer. The backend's certificate is not verified: what it
// answers decides where connections go, and whoever makes one verifies for itself whom it reached.
func (b *Balancer) inquire(ctx context.Context, f *front, back *backend) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: b.cfg.Timeout}
			return d.DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
		DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		Timeout:       b.cfg.Patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := ask(ctx, client, "https://"+back.addr.String()+f.ready)
		if ctx.Err() != nil {
			return
		}
		b.noteReady(f, back, err)
		timer.Reset(2 * b.cfg.Interval) // it is work for the backend
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("internal error: the question %s: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil { // all of it, to keep the connection
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it is not ready: %s answers %s", url, resp.Status)
	}
	return nil
}

// noteAlive counts a check, or a connection that was not accepted. A backend that turns out to have failed loses its
// connections, so that their clients come back and reach another one.
func (b *Balancer) noteAlive(f *front, back *backend, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, was := back.reason(), back.healthy()
	turned := back.alive.note(err, b.cfg.Rise, b.cfg.Fall)
	if turned && !back.alive.ok {
		back.proud = false
		if f.ready != "" {
			back.ready.ok, back.ready.row = false, 0 // what comes back says so itself
		}
	}
	b.settle(f, back, turned || was != back.healthy())
	if before != back.reason() {
		f.notify()
	}
}

// noteReady counts an answer to the question whether a backend is ready. One that does not live is not believed.
func (b *Balancer) noteReady(f *front, back *backend, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, was := back.reason(), back.healthy()
	if err == nil && !back.alive.ok {
		return
	}
	back.ready.note(err, b.cfg.Rise, b.cfg.Fall)
	b.settle(f, back, was != back.healthy())
	if before != back.reason() {
		f.notify()
	}
}

// settle does what follows if what is known of a backend turned. The Balancer's mu is held.
func (b *Balancer) settle(f *front, back *backend, turned bool) {
	if !turned {
		return
	}
	back.proud = back.proud || back.healthy()
	b.cfg.Log.Info("backend changed", "front", f.url, "backend", back.addr.String(), "healthy", back.healthy(), "alive", back.alive.ok, "error", back.reason())
	// Connections leave what is dead, and what is not ready once there is something better. One that is still being made
	// tries the next backend by itself.
	better := slices.ContainsFunc(f.backends, (*backend).healthy)
	for c := range f.conns {
		if c.server != nil && c.back != nil && (!c.back.alive.ok || better && !c.back.ready.ok) {
			c.abort()
		}
	}
	f.notify()
}
