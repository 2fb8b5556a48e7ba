package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"time"

	"joist/engine/agent/wire"
	"joist/pki/enrol"
)

// EnrolConfig is what a machine that has just booted knows.
type EnrolConfig struct {
	Dir         string       // identity directory; an existing key in it is used again
	URLs        []string     // joist.url: of the engine, tried in turn
	Pin         Pin          // joist.ca
	Boot        enrol.BootID // joist.boot
	Incarnation string
	MAC, UUID   string // of the boot interface and of SMBIOS
	Secret      []byte // voucher secret; nil for none
	Facts       func(ctx context.Context) (json.RawMessage, error)
	Agent       string // version, for people
	Console     func(line string)

	Heard    func()                                           // called when the engine has answered, whatever it said; default: nothing
	GiveUp   time.Duration                                    // how long the engine may be out of reach before Enrol returns; 0 for ever
	Now      func() time.Time                                 // the machine's clock; default time.Now
	Time     time.Time                                        // joist.time; zero for none
	SetClock func(now time.Time) error                        // sets the machine's clock; nil if it must not be set
	Wait     func(ctx context.Context, d time.Duration) error // default: a timer; tests shorten it
}

// maxClockError is how far the machine's clock may be from joist.time before it is set.
const maxClockError = time.Minute

// RefusedError reports that the engine will not enrol this boot, whatever it does: the machine has to boot again.
type RefusedError struct {
	Reason  enrol.Reason
	Message string
}

// Error implements error.
func (e *RefusedError) Error() string { return "the engine refused the enrolment: " + e.Message }

// Enrol shows the engine the machine's key until it is accepted, and keeps what it is given in the identity directory.
// It returns with an identity, a *RefusedError, when ctx ends, or when the engine was out of reach for long (GiveUp). To
// wait for a person's approval is not to be out of reach.
func Enrol(ctx context.Context, cfg EnrolConfig) (*Identity, error) {
	e, err := newEnroller(cfg)
	if err != nil {
		return nil, err
	}
	back := backoff{first: 500 * time.Millisecond, limit: 10 * time.Second}
	for i := 0; ; i = (i + 1) % len(e.cfg.URLs) {
		reply, err := e.attempt(ctx, e.cfg.URLs[i])
		if err == nil {
			return e.keep(reply)
		}
		var refused *RefusedError
		if errors.As(err, &refused) || ctx.Err() != nil {
			return nil, err
		}
		e.say("cannot enrol with " + e.cfg.URLs[i] + ": " + err.Error())
		if e.cfg.GiveUp > 0 && time.Since(e.heard) > e.cfg.GiveUp {
			return nil, fmt.Errorf("cannot enrol with %s: %w", e.cfg.URLs[i], err)
		}
		if err := e.cfg.Wait(ctx, back.next()); err != nil {
			return nil, err
		}
	}
}

type enroller struct {
	cfg   EnrolConfig
	id    *Identity
	said  string
	heard time.Time // when the engine last answered
}

func newEnroller(cfg EnrolConfig) (*enroller, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("cannot enrol: no URL of the engine is known (joist.url)")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wait == nil {
		cfg.Wait = sleep
	}
	if cfg.Console == nil {
		cfg.Console = func(string) {}
	}
	if cfg.Heard == nil {
		cfg.Heard = func() {}
	}
	if cfg.Facts == nil {
		cfg.Facts = func(context.Context) (json.RawMessage, error) { return nil, nil }
	}
	if off := cfg.Now().Sub(cfg.Time).Abs(); !cfg.Time.IsZero() && off > maxClockError && cfg.SetClock != nil {
		cfg.Console(fmt.Sprintf("the clock is off by %s; setting it to %s", off.Round(time.Second), cfg.Time.UTC().Format(time.RFC3339)))
		if err := cfg.SetClock(cfg.Time); err != nil {
			return nil, fmt.Errorf("cannot set the clock: %w", err)
		}
	}
	key, err := machineKey(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &enroller{cfg: cfg, id: &Identity{dir: cfg.Dir, key: key}, heard: time.Now()}, nil
}

// say shows a line unless it is the one shown last.
func (e *enroller) say(line string) {
	if line != e.said {
		e.said = line
		e.cfg.Console(line)
	}
}

// attempt enrols over one connection: it asks, and asks again while the answer is to wait.
func (e *enroller) attempt(ctx context.Context, base string) (enrol.Reply, error) {
	conn, err := e.dial(ctx, base)
	if err != nil {
		return enrol.Reply{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	binding, err := enrol.BindingOf(conn.ConnectionState())
	if err != nil {
		return enrol.Reply{}, err
	}
	in := bufio.NewReader(conn)
	clockSet := false
	for {
		reply, err := e.ask(ctx, binding, conn, in)
		if err != nil {
			return enrol.Reply{}, err
		}
		e.heard = time.Now()
		e.cfg.Heard()
		switch {
		case reply.Outcome == enrol.Accept || reply.Outcome == enrol.Same:
			return reply, nil
		case reply.Reason == enrol.BadClock && e.cfg.SetClock != nil && !clockSet:
			clockSet = true
			e.say("the clock is wrong; setting it to the engine's")
			if err := e.cfg.SetClock(reply.Now); err != nil {
				return enrol.Reply{}, fmt.Errorf("cannot set the clock: %w", err)
			}
			continue
		case reply.Outcome == enrol.Refuse || reply.RetryAfter <= 0:
			return enrol.Reply{}, &RefusedError{reply.Reason, reply.Message}
		}
		e.say(e.announce(reply))
		if err := e.cfg.Wait(ctx, time.Duration(reply.RetryAfter)*time.Second); err != nil {
			return enrol.Reply{}, err
		}
	}
}

// announce is what a person at the console compares with what the engine shows.
func (e *enroller) announce(reply enrol.Reply) string {
	spki, err := x509.MarshalPKIXPublicKey(e.id.key.Public())
	if err != nil {
		return reply.Message
	}
	return fmt.Sprintf("key %s: %s", enrol.Fingerprint(spki), reply.Message)
}

func (e *enroller) dial(ctx context.Context, base string) (*tls.Conn, error) {
	address, err := hostPort(base)
	if err != nil {
		return nil, err
	}
	cfg, err := e.cfg.Pin.tlsConfig(address, e.cfg.Now)
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = []string{"http/1.1"}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// ask posts one request over the connection that it is bound to.
func (e *enroller) ask(ctx context.Context, binding enrol.Binding, conn net.Conn, in *bufio.Reader) (enrol.Reply, error) {
	facts, err := e.cfg.Facts(ctx)
	if err != nil {
		return enrol.Reply{}, fmt.Errorf("cannot gather facts: %w", err)
	}
	body, err := enrol.NewRequest(e.id.key, binding, enrol.Draft{
		Boot: e.cfg.Boot, Incarnation: e.cfg.Incarnation, MAC: e.cfg.MAC, UUID: e.cfg.UUID,
		Facts: facts, Secret: e.cfg.Secret, Agent: e.cfg.Agent, Now: e.cfg.Now(),
	})
	if err != nil {
		return enrol.Reply{}, err
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return enrol.Reply{}, fmt.Errorf("cannot encode the enrolment: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+conn.RemoteAddr().String()+wire.PathEnrol, bytes.NewReader(raw))
	if err != nil {
		return enrol.Reply{}, fmt.Errorf("cannot make the enrolment request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return enrol.Reply{}, err
	}
	if err := req.Write(conn); err != nil {
		return enrol.Reply{}, fmt.Errorf("cannot send the enrolment: %w", err)
	}
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return enrol.Reply{}, fmt.Errorf("cannot read the answer to the enrolment: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, enrol.MaxReply+1))
	if err != nil {
		return enrol.Reply{}, fmt.Errorf("cannot read the answer to the enrolment: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return enrol.Reply{}, fmt.Errorf("the engine answered %s: %.200s", resp.Status, bytes.TrimSpace(answer))
	}
	return enrol.ParseReply(answer)
}

// keep makes an identity of what an accepting answer brings.
func (e *enroller) keep(reply enrol.Reply) (*Identity, error) {
	e.id.Profile = Profile{
		Node: reply.Node, Incarnation: e.cfg.Incarnation, Boot: e.cfg.Boot.String(),
		URLs: e.cfg.URLs, Pin: fmt.Sprintf("%x", e.cfg.Pin[:]),
	}
	if err := e.id.install([]byte(reply.Certificate)); err != nil {
		return nil, err
	}
	if err := e.id.save(); err != nil {
		return nil, err
	}
	e.say(fmt.Sprintf("%s is %s", reply.Node, reply.Message))
	return e.id, nil
}

const (
	dialTimeout   = 10 * time.Second
	answerTimeout = 30 * time.Second
)

// hostPort reads an engine's URL.
func hostPort(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("cannot use %q as the engine's URL: want https://HOST:PORT", base)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443"), nil
	}
	return u.Host, nil
}

// backoff yields waits with full jitter: a random time between zero and a bound that doubles up to a limit, so that
// agents that lost their engine together do not come back together.
type backoff struct {
	first, limit time.Duration
	bound        time.Duration
}

func (b *backoff) next() time.Duration {
	b.bound = min(max(2*b.bound, b.first), b.limit)
	n, err := rand.Int(rand.Reader, big.NewInt(int64(b.bound)))
	if err != nil {
		return b.bound
	}
	return time.Duration(n.Int64())
}

func (b *backoff) reset() { b.bound = 0 }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
