package boot

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"joist/services/boot/artifacts"
	"joist/services/boot/decide"
	"joist/services/boot/ipxe"
	"joist/services/boot/phase"
)

// ArtifactPath is the path of an artifact on the boot server.
func ArtifactPath(d artifacts.Digest) string { return "/artifact/" + string(d) }

// Handler returns the HTTP side: /artifact/{digest}, /boot/ipxe, and Config.Revoked's /crl. It answers plain HTTP/1.1 with explicit lengths and
// never redirects, for firmware follows no redirect; mux would redirect unclean paths by default.
func (s *Server) Handler() http.Handler {
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	r.HandleFunc("/artifact/{digest}", s.serveArtifact).Methods(http.MethodGet, http.MethodHead)
	r.HandleFunc("/boot/ipxe", s.serveScript).Methods(http.MethodGet)
	if s.cfg.Revoked != nil {
		r.Handle("/crl", s.cfg.Revoked)
		r.PathPrefix("/crl/").Handler(s.cfg.Revoked)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		p := &paced{ResponseWriter: w, control: http.NewResponseController(w)}
		p.extend(0)
		r.ServeHTTP(p, q)
	})
}

// serveArtifact sends a file by digest, whole or in ranges.
func (s *Server) serveArtifact(w http.ResponseWriter, r *http.Request) {
	d, err := artifacts.ParseDigest(mux.Vars(r)["digest"])
	if err != nil {
		plain(w, http.StatusNotFound, "no such artifact: "+err.Error())
		return
	}
	f, size, err := s.cfg.Artifacts.Open(d)
	if err != nil {
		plain(w, http.StatusNotFound, "no such artifact: "+string(d))
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", `"`+string(d)+`"`)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, f) // no modification time: the digest says it all

	p := w.(*paced) // Handler wraps every writer
	mac, ok := s.track.who(client(r))
	s.cfg.Log.Debug("artifact", "client", r.RemoteAddr, "mac", mac, "digest", d, "status", p.status, "bytes", p.sent, "of", size)
	if !ok {
		return
	}
	now := s.cfg.Now()
	s.track.count(mac, Traffic{Bytes: uint64(p.sent), Requests: 1}, now)
	s.mu.Lock()
	role, ours := s.roles[d]
	s.mu.Unlock()
	if ours && r.Method == http.MethodGet && p.reachedEnd(size) {
		s.track.reached(mac, phase.Mark{Phase: role, At: now})
	}
}

// serveScript sends a machine's own iPXE script. Whatever goes wrong on our side is told in a script too: an HTTP error
// would send the machine to its next boot device, or strand it in its firmware's menu.
func (s *Server) serveScript(w http.ResponseWriter, r *http.Request) {
	server := local(r)
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		plain(w, http.StatusBadRequest, err.Error())
		return
	}
	if q.mac == "" {
		script, err := ipxe.Introduce(s.base(server) + "/boot/ipxe")
		s.sendScript(w, script, err)
		return
	}
	now := s.cfg.Now()
	addr := client(r)
	record, known := s.cfg.Inventory.Machine(r.Context(), q.mac, q.uuid)
	record.Known = known
	ask := ipxe.Ask{Name: name(record, q.mac), Again: s.scriptURL(server, q.mac, q.uuid), Delay: 10 * time.Second}
	if !s.track.mayAsk(addr, now) {
		ask.Reason = "it asks for its script too often"
		script, err := ask.Script()
		s.sendScript(w, script, err)
		return
	}
	s.track.at(addr, q.mac, now)
	s.track.count(q.mac, Traffic{Scripts: 1}, now)
	a := decide.Decide(decide.Request{
		Stage: decide.StageScript, Machine: record.Machine, Firmware: decide.Firmware{MAC: q.mac, UUID: q.uuid, IPXE: true},
		Target: record.Target, Policy: s.cfg.Policy, Now: now,
	})
	s.cfg.Log.Info("boot script", "mac", q.mac, "uuid", q.uuid, "client", addr, "answer", a.Kind.String(), "reason", a.Reason)
	if a.Notice {
		s.track.notice(q.mac, a.Reason, now)
	}
	var script string
	switch a.Kind {
	case decide.Silence:
		script = ipxe.Leave(a.Reason)
	case decide.Disk:
		script = ipxe.Disk(name(record, q.mac))
	case decide.Scout:
		script, err = s.scout(r.Context(), scoutAsk{query: q, record: record, server: server, client: addr, now: now})
		if err == nil {
			break
		}
		s.cfg.Log.Error("cannot boot a machine", "mac", q.mac, "err", err)
		s.track.notice(q.mac, err.Error(), now)
		a.Reason = err.Error()
		fallthrough
	default:
		ask.Reason, ask.Delay = a.Reason, max(a.Delay, ask.Delay)
		if record.Name != "" {
			ask.Advice = "see: joist node show " + record.Name
		}
		script, err = ask.Script()
	}
	if a.Kind != decide.Scout || ask.Reason != "" {
		s.track.hold(q.mac, a.Reason, now)
	}
	s.sendScript(w, script, err)
}

type scoutAsk struct {
	query
	record         Record
	server, client netip.Addr
	now            time.Time
}

// scout renders the script that starts scout, once its boot id is durable.
func (s *Server) scout(ctx context.Context, a scoutAsk) (string, error) {
	set, err := s.cfg.Sets.BootSet(ctx, a.record)
	if err != nil {
		return "", fmt.Errorf("cannot choose a boot set: %w", err)
	}
	for _, d := range []artifacts.Digest{set.Kernel, set.Initrd} {
		f, _, err := s.cfg.Artifacts.Open(d)
		if err != nil {
			return "", fmt.Errorf("cannot use boot set %s: %w", set.Digest, err)
		}
		f.Close()
	}
	id, err := s.cfg.Issuer.Issue(ctx, BootRequest{
		MAC: a.mac, UUID: a.uuid, Node: a.record.Name, Addr: a.client, Set: set.Digest, At: a.now,
	})
	if err != nil {
		return "", fmt.Errorf("cannot issue a boot id: %w", err)
	}
	base := s.base(a.server)
	script, err := ipxe.Scout{
		Name: a.record.Name, MAC: a.mac,
		Kernel: base + ArtifactPath(set.Kernel), Initrd: base + ArtifactPath(set.Initrd),
		URLs: s.cfg.URLs, CA: s.cfg.CA, BootID: id, Time: a.now, Console: set.Console, Extra: set.Args,
	}.Script()
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	s.roles[set.Kernel], s.roles[set.Initrd] = phase.Kernel, phase.Initrd
	if set.Image != "" {
		s.roles[set.Image] = phase.Image
	}
	s.mu.Unlock()
	s.track.reached(a.mac, phase.Mark{Phase: phase.Script, At: a.now})
	return script, nil
}

func (s *Server) sendScript(w http.ResponseWriter, script string, err error) {
	if err != nil {
		s.cfg.Log.Error("cannot render a boot script", "err", err)
		plain(w, http.StatusInternalServerError, "cannot render the boot script; the engine's log says why")
		return
	}
	w.Header().Set("Cache-Control", "no-store") // the boot id in it is good for one machine and one boot
	plain(w, http.StatusOK, script)
}

// plain answers a text with its length.
func plain(w http.ResponseWriter, status int, text string) {
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the client is gone if this fails, and there is nobody to tell
}

// query says who asks for a script. An empty MAC means that the query names none.
type query struct {
	mac  decide.MAC
	uuid decide.UUID
}

// parseQuery reads mac=…&uuid=…. A query without mac is one by an iPXE that was not told to say who it is; a mac that is
// there but empty or broken is an error, or the two would chain in a circle.
func parseQuery(raw string) (query, error) {
	const longest = 512
	if len(raw) > longest {
		return query{}, fmt.Errorf("the query has %d bytes, more than %d", len(raw), longest)
	}
	v, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, fmt.Errorf("cannot read the query: %w", err)
	}
	if !v.Has("mac") {
		return query{}, nil
	}
	var q query
	if q.mac, err = decide.ParseMAC(v.Get("mac")); err != nil {
		return query{}, err
	}
	if q.uuid, err = decide.ParseUUID(v.Get("uuid")); err != nil {
		return query{}, err
	}
	return q, nil
}

func name(r Record, mac decide.MAC) string {
	if r.Name != "" {
		return r.Name
	}
	return string(mac)
}

// client returns the address a request came from.
func client(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http writes it; the zero address stands for a caller without one
	return a.Addr().Unmap()
}

// local returns our address as the client used it: the one address that it can certainly reach.
func local(r *http.Request) netip.Addr {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.IPv4Unspecified()
}

const (
	piece   = 1 << 20  // bytes that have one deadline
	minRate = 16 << 10 // bytes/s below which a client is cut off
	grace   = 20 * time.Second
)

// paced counts what is written and gives each piece a deadline. It keeps the path by which the kernel copies a file into
// a socket: the pieces it passes on are plain limited files.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	sent    int64
}

// extend gives n bytes the time they need at the lowest rate, and a little more.
func (p *paced) extend(n int64) {
	// A writer without deadlines is one of a test.
	_ = p.control.SetWriteDeadline(time.Now().Add(grace + time.Duration(n)*time.Second/minRate))
}

// Unwrap lets http.ResponseController reach the connection.
func (p *paced) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *paced) WriteHeader(status int) {
	p.status = status
	p.ResponseWriter.WriteHeader(status)
}

func (p *paced) Write(b []byte) (int, error) {
	p.extend(int64(len(b)))
	n, err := p.ResponseWriter.Write(b)
	p.sent += int64(n)
	return n, err
}

// ReadFrom is called by io.Copy, with an io.LimitedReader over the file.
func (p *paced) ReadFrom(src io.Reader) (total int64, err error) {
	inner, ok := p.ResponseWriter.(io.ReaderFrom)
	limited, isLimited := src.(*io.LimitedReader)
	if !ok || !isLimited {
		return io.Copy(struct{ io.Writer }{p}, src)
	}
	for limited.N > 0 {
		want := min(limited.N, piece)
		p.extend(want)
		n, err := inner.ReadFrom(&io.LimitedReader{R: limited.R, N: want})
		total += n
		p.sent += n
		limited.N -= n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// reachedEnd says whether the answer held the file's last byte and all of it went out.
func (p *paced) reachedEnd(size int64) bool {
	length, err := strconv.ParseInt(p.Header().Get("Content-Length"), 10, 64)
	if err != nil || p.sent != length {
		return false
	}
	switch p.status {
	case http.StatusOK:
		return true
	case http.StatusPartialContent:
		// "bytes 0-499/500" (RFC 9110 § 14.4); an answer of several ranges has no such header
		_, end, _ := strings.Cut(p.Header().Get("Content-Range"), "-")
		return end == fmt.Sprintf("%d/%d", size-1, size)
	default:
		return false
	}
}
