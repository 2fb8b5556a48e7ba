package agents

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"joist/engine/agent/wire"
	"joist/pki/enrol"
)

// result takes a result and answers once it is durable.
func (g *Gateway) result(w http.ResponseWriter, r *http.Request, p peer, body []byte) error {
	res, err := wire.DecodeResult(body)
	if err != nil {
		return &statusError{http.StatusBadRequest, err.Error()}
	}
	o, err := g.owed(p, res)
	if err == nil {
		err = g.cfg.Engine.Result(r.Context(), p.Node, res)
	}
	switch {
	case errors.Is(err, ErrNotDispatched):
		text := fmt.Sprintf("%s sent a result of %.200q, which it was not asked for; it was refused", p.Node, res.Instance)
		g.notice(r, NoticeLie, p.Node, text)
		return &statusError{http.StatusConflict, err.Error()}
	case errors.Is(err, ErrEnded) && o == nil && !g.echo(res.ID): // what this process asked for is answered once, however late
		text := fmt.Sprintf("%s sent a result of %.200q whose attempt had ended; it was refused, and nothing came of it. Its acknowledgement may have been lost, or somebody replays it", p.Node, res.Instance)
		g.notice(r, NoticeLate, p.Node, text)
		return &statusError{http.StatusConflict, err.Error()}
	case err != nil && !errors.Is(err, ErrEnded):
		return fmt.Errorf("cannot keep the result of %.200s: %w", res.ID, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil || o != nil { // an echo makes no further echoes
		g.take(res.ID)
	}
	if o != nil && g.orders[p.Node][res.ID] == o { // else it was dispatched anew meanwhile, and is answered anew
		g.drop(p.Node, res.ID)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// echoes is how long a result may come once more after it was taken: a request is sent again after a lost connection, and answered again,
// while its answer is on its way.
const echoes = time.Minute

// take notes that a result was taken. The caller holds the lock.
func (g *Gateway) take(id string) {
	now := g.cfg.Now()
	if len(g.answered) >= 1024 {
		maps.DeleteFunc(g.answered, func(_ string, at time.Time) bool { return now.Sub(at) > echoes })
	}
	g.answered[id] = now
}

// echo reports whether a result was taken a moment ago.
func (g *Gateway) echo(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.answered[id]
	return ok && g.cfg.Now().Sub(at) <= echoes
}

// owed gives the order that a result answers, and says whether the node may answer it. A request that nobody was given since this process started may have
// been given by an earlier one: that the engine knows.
func (g *Gateway) owed(p peer, res wire.Result) (*order, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	owner, known := g.owners[res.ID]
	if !known {
		return nil, nil
	}
	o := g.orders[owner][res.ID]
	if owner != p.Node || o.instance != res.Instance || o.attempt != res.Attempt || o.incarnation != "" && o.incarnation != p.Incarnation {
		return nil, ErrNotDispatched
	}
	return o, nil
}

func (g *Gateway) notice(r *http.Request, kind NoticeKind, node, text string) {
	g.cfg.Engine.Noticed(Notice{Kind: kind, Node: node, Remote: r.RemoteAddr, Text: text, At: g.cfg.Now()})
}

// log passes lines on if the node was given the request that they belong to.
func (g *Gateway) log(w http.ResponseWriter, _ *http.Request, p peer, body []byte) error {
	var chunk wire.LogChunk
	if err := json.Unmarshal(body, &chunk); err != nil || len(chunk.Text) > wire.MaxChunk {
		return &statusError{http.StatusBadRequest, "cannot read the log"}
	}
	g.mu.Lock()
	owner := g.owners[chunk.ID]
	g.mu.Unlock()
	if owner == p.Node {
		g.cfg.Engine.Log(p.Node, chunk)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (g *Gateway) facts(w http.ResponseWriter, r *http.Request, p peer, body []byte) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil || object == nil {
		return &statusError{http.StatusBadRequest, "the facts are not a JSON object"}
	}
	if err := g.cfg.Site.Facts(r.Context(), p.Node, body); err != nil {
		return fmt.Errorf("cannot keep the facts of %s: %w", p.Node, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (g *Gateway) report(w http.ResponseWriter, r *http.Request, p peer, body []byte) error {
	var report wire.Report
	if err := json.Unmarshal(body, &report); err != nil || len(report.Text) > wire.MaxError {
		return &statusError{http.StatusBadRequest, "cannot read the report"}
	}
	g.notice(r, NoticeReport, p.Node, report.Text)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// renew issues a new certificate for the same key, over the connection that the key has authenticated.
func (g *Gateway) renew(w http.ResponseWriter, r *http.Request, p peer, body []byte) error {
	var renewal wire.Renewal
	if err := json.Unmarshal(body, &renewal); err != nil {
		return &statusError{http.StatusBadRequest, "cannot read the renewal: " + err.Error()}
	}
	csr, err := x509.ParseCertificateRequest(renewal.CSR)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return &statusError{http.StatusBadRequest, "cannot accept the certificate request: " + err.Error()}
	}
	if _, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || enrol.IDOf(csr.RawSubjectPublicKeyInfo) != p.key {
		return &statusError{http.StatusForbidden, "a renewal is for the key of its connection"}
	}
	chain, err := g.cfg.Signer.Sign(r.Context(), Certify{Identity: p.Identity, CSR: renewal.CSR, Key: p.key, Renew: true})
	if err != nil {
		return fmt.Errorf("cannot renew the certificate of %s: %w", p.Node, err)
	}
	until, err := expiry(chain)
	if err != nil {
		return err
	}
	p.conn.until.Store(until.UnixNano())
	return writeJSON(w, wire.Renewed{Chain: chain})
}

func expiry(chain string) (time.Time, error) {
	block, _ := pem.Decode([]byte(chain))
	if block == nil {
		return time.Time{}, errors.New("internal error: the signer gave no PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, fmt.Errorf("internal error: the signer's certificate cannot be read: %w", err)
	}
	return leaf.NotAfter, nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw) // a peer that has gone will ask again
	return nil
}

// alive takes the answer to a probe.
func (g *Gateway) alive(w http.ResponseWriter, _ *http.Request, p peer, body []byte) error {
	var alive wire.Alive
	if err := json.Unmarshal(body, &alive); err != nil {
		return &statusError{http.StatusBadRequest, "cannot read the answer"}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	nonce := probeKey(p.Node, p.key, alive.Probe)
	if answered := g.probes[nonce]; answered != nil {
		close(answered)
		delete(g.probes, nonce)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func probeKey(node string, key enrol.KeyID, nonce string) string {
	return node + " " + string(key) + " " + nonce
}

// probe asks the connected agent of a machine, if there is one, whether it is there, and returns its key if it answers.
// That its connection is open says nothing: a machine that lost power leaves one behind.
func (g *Gateway) probe(ctx context.Context, node string, but enrol.KeyID) enrol.KeyID {
	g.mu.Lock()
	s := g.sessions[node]
	if s == nil || s.key == but {
		g.mu.Unlock()
		return ""
	}
	nonce := rand.Text()
	name := probeKey(node, s.key, nonce)
	answered := make(chan struct{})
	g.probes[name] = answered
	s.probes = append(s.probes, nonce)
	s.poke()
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.probes, name)
	}()
	timer := time.NewTimer(g.cfg.ProbeWait)
	defer timer.Stop()
	select {
	case <-answered:
		return s.key
	case <-timer.C:
	case <-ctx.Done():
	}
	return ""
}
