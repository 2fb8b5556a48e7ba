// Package agents is the engine's end of the connections from nodes: it enrols machines, authenticates every message by
// the node's current key, hands requests to agents until their results are durable, and tells the engine what comes back.
//
// It keeps nothing on disk. What a restart loses the engine dispatches again, and agents answer from their spools.
package agents

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"joist/engine/agent/wire"
	"joist/pki/enrol"
)

// Site is what the gateway needs of the site: the facts of enrolment and what each machine shall become. Machine and
// Target are asked for every message and answer from memory.
type Site interface {
	// Boot gives the machine that a boot id was given to, and its voucher secret, nil for none. An unknown boot id has
	// no machine and is no error.
	Boot(ctx context.Context, id enrol.BootID) (machine string, secret []byte, err error)
	// Update decides about one machine: it calls decide with the machine's state, makes the events that it returns
	// durable in the journal, and returns the state after them. Updates of one machine come one after another.
	Update(ctx context.Context, machine string, decide func(enrol.Machine) []enrol.Event) (enrol.Machine, error)
	// Machine gives what is known of a machine's keys; the zero Machine if there is none of that name.
	Machine(ctx context.Context, name string) (enrol.Machine, error)
	// Facts keeps what a machine said about itself. Facts of a machine that is not trusted yet are claims.
	Facts(ctx context.Context, machine string, facts json.RawMessage) error
	// Target gives what a machine shall become.
	Target(ctx context.Context, machine string) (wire.Target, error)
}

// Certify asks for an agent's client certificate.
type Certify struct {
	Identity enrol.Identity // the certificate's only name
	CSR      []byte         // PKCS #10, DER, its signature checked; only its key counts
	Boot     enrol.BootID   // the boot it enrolled with; zero for a renewal
	Key      enrol.KeyID    // of the CSR's key
	Renew    bool           // a new certificate is wanted in any case
}

// Signer issues agents' certificates, valid 24 hours, the serial journalled before the certificate exists.
type Signer interface {
	// Sign returns a chain in PEM, leaf first. Unless Renew is set it returns the same chain for the same (Boot, Key) as
	// long as most of its life is left.
	Sign(ctx context.Context, c Certify) (chain string, err error)
}

// Engine hears what agents say. Its methods are called from many goroutines.
type Engine interface {
	// Result gets what became of a request. It returns nil once that is durable, and may get a result again: the agent
	// keeps it until it hears of the nil. An error that is ErrNotDispatched says that this node was never given this
	// request, one that is ErrEnded that nothing comes of it any more; any other means "not now", and the agent asks again.
	Result(ctx context.Context, node string, res wire.Result) error
	// Log gets lines of a running request.
	Log(node string, chunk wire.LogChunk)
	// Connected and Disconnected frame the time in which a node's agent can be reached; for one node they come one after
	// another, and none when the gateway itself stops. A second Connected without a Disconnected means that the agent
	// came back before its old connection was known to be lost. They must be quick: nothing is sent to the agent before
	// Connected returns.
	Connected(node string, hello wire.Hello)
	Disconnected(node string, hello wire.Hello)
	// Noticed gets what a person should know of.
	Noticed(n Notice)
}

// ErrNotDispatched is what Engine.Result returns for a result that the node owes nobody.
var ErrNotDispatched = errors.New("this request was not given to this node")

// ErrEnded is what Engine.Result returns for a result of a request that has ended: its result was taken before, or nobody waited for it
// any longer.
var ErrEnded = errors.New("this request has ended: its result was taken before, or it came too late")

// NoticeKind is what a Notice is about.
type NoticeKind string

// The kinds of notices.
const (
	NoticeLie     NoticeKind = "lie"     // a node sent a result that it was not asked for
	NoticeLate    NoticeKind = "late"    // a node sent a result again, or after its request had ended
	NoticeRefused NoticeKind = "refused" // a machine's enrolment was refused
	NoticeReport  NoticeKind = "report"  // an agent has a trouble of its own
)

// Notice is something that belongs to no request.
type Notice struct {
	Kind   NoticeKind
	Node   string // machine; empty if unknown
	Remote string // address it came from
	Text   string // one sentence
	At     time.Time
}

// Config is what a gateway needs. Zero fields mean the defaults named; the others are required.
type Config struct {
	Site   Site
	Signer Signer
	Engine Engine

	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error) // the listener's, its chain with the root at the end
	Clients     func() *x509.CertPool                                // the CA of agents' certificates, and no other
	Root        string                                               // PEM of the site's root, told to machines that enrol

	Log       *slog.Logger     // default: nowhere
	Now       func() time.Time // default time.Now
	KeepAlive time.Duration    // between signs of life to an agent; default 20 s
	ProbeWait time.Duration    // how long an agent may take to prove that it still answers; default 3 s
}

// Gateway serves agents. Make it with New.
type Gateway struct {
	cfg    Config
	tells  [64]sync.Mutex
	enrols chan struct{} // bounds enrolments looked at at once: each costs milliseconds of arithmetic

	streams sync.WaitGroup // handlers of open sessions

	mu       sync.Mutex
	closing  bool
	sessions map[string]*session          // by node
	orders   map[string]map[string]*order // by node and request id
	owners   map[string]string            // node by request id
	answered map[string]time.Time         // when a result was taken that may be on its way once more, by request id
	probes   map[string]chan struct{}     // waiting for an answer, by nonce
	wheel    [wheelSlots]map[*session]bool
	next     int
}

// New checks the configuration.
func New(cfg Config) (*Gateway, error) {
	if cfg.Site == nil || cfg.Signer == nil || cfg.Engine == nil || cfg.Certificate == nil || cfg.Clients == nil {
		return nil, errors.New("cannot make a gateway: site, signer, engine, certificate and clients are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = 20 * time.Second
	}
	if cfg.ProbeWait == 0 {
		cfg.ProbeWait = 3 * time.Second
	}
	g := &Gateway{
		cfg: cfg, enrols: make(chan struct{}, 4),
		sessions: map[string]*session{}, orders: map[string]map[string]*order{}, owners: map[string]string{}, answered: map[string]time.Time{}, probes: map[string]chan struct{}{},
	}
	for i := range g.wheel {
		g.wheel[i] = map[*session]bool{}
	}
	return g, nil
}

// Serve serves agents and enrolments on the listener until ctx ends, then closes every connection and returns nil once
// no stream is served any more. It is called once.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler: g.Handler(),
		TLSConfig: &tls.Config{
			MinVersion:             tls.VersionTLS13,
			NextProtos:             []string{"h2", "http/1.1"}, // agents speak the first, enrolments the second
			GetCertificate:         g.cfg.Certificate,
			ClientAuth:             tls.VerifyClientCertIfGiven,
			SessionTicketsDisabled: true, // every connection shows its certificate anew
			Time:                   g.cfg.Now,
		},
		ConnContext:       withConn,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: g.cfg.KeepAlive, PingTimeout: g.cfg.KeepAlive / 2, MaxReadFrameSize: 16 << 10},
		ErrorLog:          slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
	}
	base := server.TLSConfig
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone() // the CA of agents may be renewed while we serve
		c.ClientCAs, c.GetConfigForClient = g.cfg.Clients(), nil
		return c, nil
	}
	var owned sync.WaitGroup
	defer g.streams.Wait()
	defer owned.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	owned.Go(func() { g.turn(ctx) })
	owned.Go(func() {
		<-ctx.Done()
		g.closeAll(errors.New("the engine stops"))
		server.Close()
	})
	err := server.ServeTLS(ln, "", "")
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot serve agents: %w", err)
}

// Handler is what Serve serves. It needs TLS with the clients' certificates verified, and is exported for servers that
// share the port.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.PathEnrol, g.enrol)
	for path, h := range map[string]struct {
		limit int64
		serve func(http.ResponseWriter, *http.Request, peer, []byte) error
	}{
		wire.PathStream: {wire.MaxHello, g.stream},
		wire.PathResult: {wire.MaxMessage, g.result},
		wire.PathLog:    {wire.MaxChunk * 7, g.log}, // JSON may write a byte as six
		wire.PathFacts:  {wire.MaxFacts, g.facts},
		wire.PathAlive:  {1 << 10, g.alive},
		wire.PathRenew:  {16 << 10, g.renew},
		wire.PathReport: {wire.MaxError * 7, g.report},
	} {
		mux.HandleFunc("POST "+path, g.authenticated(h.limit, h.serve))
	}
	return mux
}
