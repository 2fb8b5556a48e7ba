package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"joist/engine/agent/wire"
)

// session is one connection to the engine. Everything goes over it: when it is lost the session ends, and no call
// opens a second one behind its back.
type session struct {
	agent  *Agent
	base   string
	client *http.Client
}

// session serves one connection until it ends; opened says whether the engine took it.
func (a *Agent) session(ctx context.Context, base string) (opened bool, err error) {
	transport, err := a.transport(base)
	if err != nil {
		return false, err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{agent: a, base: base, client: &http.Client{Transport: transport}}

	silence := time.AfterFunc(answerTimeout, func() { cancel(errors.New("the engine does not answer")) })
	defer silence.Stop()
	stream, facts, err := s.open(ctx)
	if err != nil {
		return false, firstCause(ctx, err)
	}
	defer stream.Close()
	silence.Reset(a.cfg.Silence)
	a.cfg.Log.Info("connected to the engine", "url", base)

	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel(nil)
	for _, help := range []func(context.Context) error{s.send, s.renew, func(ctx context.Context) error { return s.facts(ctx, facts) }} {
		helpers.Go(func() {
			if err := help(ctx); err != nil {
				cancel(err)
			}
		})
	}
	in := wire.NewReader(stream)
	for {
		down, err := in.Next()
		if err != nil {
			return true, firstCause(ctx, fmt.Errorf("the engine's stream ended: %w", err))
		}
		silence.Reset(a.cfg.Silence)
		if err := s.handle(ctx, down); err != nil {
			return true, err
		}
	}
}

// firstCause prefers why a context was cancelled to the error that this led to.
func firstCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (s *session) handle(ctx context.Context, down wire.Down) error {
	switch {
	case down.Request != nil:
		s.agent.accept(ctx, *down.Request)
	case down.Cancel != nil:
		s.agent.cancel(*down.Cancel)
	case down.Target != nil:
		s.agent.become.want(*down.Target)
	}
	if down.Probe != "" {
		return s.post(ctx, wire.PathAlive, wire.Alive{Probe: down.Probe}, nil)
	}
	return nil
}

// transport makes HTTP/2 over exactly one connection.
func (a *Agent) transport(base string) (*http.Transport, error) {
	address, err := hostPort(base)
	if err != nil {
		return nil, err
	}
	cfg, err := a.pin.tlsConfig(address, a.cfg.Now)
	if err != nil {
		return nil, err
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return a.cfg.Identity.cert.Load(), nil
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	var dialled atomic.Bool
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: dialTimeout,
		Protocols:           &protocols,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: a.cfg.Silence / 4, PingTimeout: a.cfg.Silence / 4},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dialled.Swap(true) {
				return nil, errors.New("the connection is lost")
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}, nil
}

// open says hello and returns the engine's stream, and the facts that were sent.
func (s *session) open(ctx context.Context) (io.ReadCloser, json.RawMessage, error) {
	a := s.agent
	facts, err := a.cfg.Facts(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot gather facts: %w", err)
	}
	if len(facts) > wire.MaxFacts { // better a node without facts than none
		a.logs.report(fmt.Sprintf("the facts have %d bytes, more than %d, and are left out", len(facts), wire.MaxFacts))
		facts = nil
	}
	id := a.cfg.Identity
	resp, err := s.request(ctx, wire.PathStream, wire.Hello{
		Version: wire.Version, Node: id.Node, Incarnation: id.Incarnation, Boot: id.Boot, Kernel: kernelBoot(),
		Agent: a.cfg.Version, Stage: a.cfg.Stage, Facts: facts,
	})
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, nil, statusError(resp)
	}
	return resp.Body, facts, nil
}

func (s *session) request(ctx context.Context, path string, body any) (*http.Response, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a message: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("cannot make a request: %w", err)
	}
	req.GetBody = nil // no silent second attempt
	req.Header.Set("Content-Type", "application/json")
	return s.client.Do(req)
}

// StatusError is an answer of the engine other than the one hoped for.
type StatusError struct {
	Code int
	Text string
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the engine answered %d: %s", e.Code, e.Text)
}

func statusError(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	return &StatusError{resp.StatusCode, string(bytes.TrimSpace(text))}
}

// post sends one message and reads the answer, if one is wanted.
func (s *session) post(ctx context.Context, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	resp, err := s.request(ctx, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return statusError(resp)
	}
	if answer == nil {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxMessage))
	if err == nil {
		err = json.Unmarshal(raw, answer)
	}
	if err != nil {
		return fmt.Errorf("cannot read the engine's answer: %w", err)
	}
	return nil
}

// tryLater says whether an error means that the engine cannot take a message now, though the connection stands.
func tryLater(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (status.Code >= 500 || status.Code == http.StatusTooManyRequests)
}

// send delivers logs and results as they come: a request's log before its result.
func (s *session) send(ctx context.Context) error {
	a := s.agent
	back := backoff{first: a.cfg.Retry, limit: a.cfg.RetryLimit}
	for {
		err := s.flush(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case tryLater(err):
			a.cfg.Log.Warn("the engine did not take a message", "error", err)
			if sleep(ctx, back.next()) != nil {
				return nil
			}
			continue
		case err != nil:
			return err
		}
		back.reset()
		select {
		case <-a.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *session) flush(ctx context.Context) error {
	a := s.agent
	for _, text := range a.logs.takeReports() {
		if err := s.post(ctx, wire.PathReport, wire.Report{Text: text}, nil); err != nil {
			return err
		}
	}
	for {
		chunk, ok := a.logs.next()
		if !ok {
			break
		}
		if err := s.post(ctx, wire.PathLog, chunk, nil); err != nil {
			return err
		}
	}
	for _, id := range a.spool.waiting() {
		res, asked, err := a.spool.result(id)
		if err != nil { // the others must not wait for a damaged file
			a.cfg.Log.Error("a result cannot be sent", "id", id, "error", err)
			continue
		}
		if err := s.deliver(ctx, res); err != nil {
			return err
		}
		if err := a.spool.ack(id, asked); err != nil {
			a.cfg.Log.Warn("cannot note that a result was delivered", "error", err)
		}
	}
	a.mu.Lock()
	unsaved := slices.Collect(maps.Values(a.unsaved))
	a.mu.Unlock()
	for _, res := range unsaved {
		if err := s.deliver(ctx, res); err != nil {
			return err
		}
		a.mu.Lock()
		delete(a.unsaved, res.ID)
		a.mu.Unlock()
	}
	return nil
}

// deliver sends a result until the engine has it or will never take it.
func (s *session) deliver(ctx context.Context, res wire.Result) error {
	err := s.post(ctx, wire.PathResult, res, nil)
	var status *StatusError
	if errors.As(err, &status) && (status.Code == http.StatusConflict || status.Code == http.StatusBadRequest) {
		s.agent.cfg.Log.Error("the engine refused a result for good", "id", res.ID, "error", err)
		err = nil
	}
	if err == nil {
		s.agent.logs.forget(res.ID)
	}
	return err
}

// renew replaces the certificate when two thirds of its life are over. The connection stays as it is: the engine notes
// the new certificate for it, and the next handshake shows it.
func (s *session) renew(ctx context.Context) error {
	a := s.agent
	back := backoff{first: 20 * a.cfg.Retry, limit: 20 * a.cfg.RetryLimit}
	for {
		if err := sleep(ctx, a.cfg.Identity.renewAt().Sub(a.cfg.Now())); err != nil {
			return nil
		}
		err := s.renewOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			back.reset()
			continue
		}
		a.cfg.Log.Warn("cannot renew the certificate", "error", err, "expires", a.cfg.Identity.cert.Load().Leaf.NotAfter)
		if sleep(ctx, back.next()) != nil {
			return nil
		}
	}
}

func (s *session) renewOnce(ctx context.Context) error {
	id := s.agent.cfg.Identity
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, id.key)
	if err != nil {
		return fmt.Errorf("cannot make a certificate request: %w", err)
	}
	var renewed wire.Renewed
	if err := s.post(ctx, wire.PathRenew, wire.Renewal{CSR: csr}, &renewed); err != nil {
		return err
	}
	return id.install([]byte(renewed.Chain))
}

// facts sends the facts again when they have changed.
func (s *session) facts(ctx context.Context, sent json.RawMessage) error {
	a := s.agent
	for {
		if sleep(ctx, a.cfg.FactsEvery) != nil {
			return nil
		}
		facts, err := a.cfg.Facts(ctx)
		if err == nil && !bytes.Equal(facts, sent) {
			if err = s.post(ctx, wire.PathFacts, facts, nil); err == nil {
				sent = facts
			}
		}
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("cannot send the facts", "error", err)
		}
	}
}

// report tells the engine of a trouble, now or when it can be reached.
func (a *Agent) report(text string) {
	a.logs.report(wire.Clip(text, wire.MaxError))
	a.notify()
}
