package agents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"joist/pki/enrol"
)

// conn is what the gateway knows of one TLS connection: until when the certificate that was last issued over it lasts,
// which may be longer than the one it was opened with.
type conn struct{ until atomic.Int64 } // Unix nanoseconds

type connKey struct{}

func withConn(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, &conn{})
}

// peer is who sent a message.
type peer struct {
	enrol.Identity
	key     enrol.KeyID
	machine enrol.Machine
	conn    *conn
	expires time.Time // of the certificate, as renewed
}

// statusError is an answer to an agent.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// authenticated admits messages of nodes whose key is the current one, and no others. A replaced row in the site's
// journal ends a key at once, whatever its certificate says.
func (g *Gateway) authenticated(limit int64, serve func(http.ResponseWriter, *http.Request, peer, []byte) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := g.peer(r)
		if err == nil {
			var body []byte
			if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit)); err != nil {
				err = &statusError{http.StatusBadRequest, "cannot read the message: " + err.Error()}
			} else {
				err = serve(w, r, p, body)
			}
		}
		g.answer(w, r, err)
	}
}

// answer writes an error, if there is one.
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil {
		return
	}
	status := &statusError{http.StatusServiceUnavailable, err.Error()}
	if !errors.As(err, &status) {
		g.cfg.Log.Error("cannot serve an agent", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
	}
	http.Error(w, status.text, status.code)
}

func (g *Gateway) peer(r *http.Request) (peer, error) {
	c, _ := r.Context().Value(connKey{}).(*conn)
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || c == nil {
		return peer{}, &statusError{http.StatusUnauthorized, "this needs the certificate of an enrolled machine"}
	}
	leaf := r.TLS.PeerCertificates[0]
	id, err := enrol.IdentityOf(leaf)
	if err != nil {
		return peer{}, &statusError{http.StatusUnauthorized, err.Error()}
	}
	p := peer{Identity: id, key: enrol.IDOf(leaf.RawSubjectPublicKeyInfo), conn: c, expires: leaf.NotAfter}
	if until := time.Unix(0, c.until.Load()); until.After(p.expires) {
		p.expires = until
	}
	if !g.cfg.Now().Before(p.expires) {
		return peer{}, &statusError{http.StatusUnauthorized, "the certificate of this connection has expired"}
	}
	if p.machine, err = g.cfg.Site.Machine(r.Context(), id.Node); err != nil {
		return peer{}, fmt.Errorf("cannot look up %s: %w", id.Node, err)
	}
	if err := current(p.machine, id, p.key); err != nil {
		return peer{}, &statusError{http.StatusForbidden, err.Error()}
	}
	return p, nil
}

// current says why a key is not the one by which its node is served now.
func current(m enrol.Machine, id enrol.Identity, key enrol.KeyID) error {
	switch {
	case m.Quarantine != "":
		return fmt.Errorf("%s is in quarantine (%s) until a person has looked", id.Node, m.Quarantine)
	case m.Current == "" || m.Current != key:
		return fmt.Errorf("this is not the current key of %s", id.Node)
	case m.Keys[key].Incarnation != id.Incarnation:
		return fmt.Errorf("%s is no longer the incarnation %s", id.Node, id.Incarnation)
	}
	return nil
}
