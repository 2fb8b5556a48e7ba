package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"joist/services/boot/artifacts"
	"joist/services/boot/decide"
	"joist/services/boot/phase"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mac1 = decide.MAC("52:54:00:00:00:01")
	mac2 = decide.MAC("52:54:00:00:00:02")
)

// world is the rest of the engine: an inventory, an issuer, boot sets, and an observer that writes down what it hears.
type world struct {
	mu       sync.Mutex
	records  map[decide.MAC]Record
	set      Set
	setErr   error
	issueErr error
	issued   []BootRequest
	heard    []string
	now      time.Time
}

func (w *world) Machine(_ context.Context, mac decide.MAC, _ decide.UUID) (Record, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.records[mac]
	return r, ok
}

func (w *world) Issue(_ context.Context, r BootRequest) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.issueErr != nil {
		return "", w.issueErr
	}
	w.issued = append(w.issued, r)
	return fmt.Sprintf("%032x", len(w.issued)), nil
}

func (w *world) BootSet(context.Context, Record) (Set, error) { return w.set, w.setErr }

func (w *world) Reached(mac decide.MAC, m phase.Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = append(w.heard, fmt.Sprintf("%s phase %d", mac, m.Phase))
}

func (w *world) Notice(mac decide.MAC, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = append(w.heard, fmt.Sprintf("%s notice %s", mac, text))
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// config returns a working configuration over a new world with one boot set and one known machine, n1.
func config(t *testing.T) (*world, Config) {
	t.Helper()
	store, err := artifacts.Open(filepath.Join(t.TempDir(), "artifacts"))
	if err != nil {
		t.Fatal(err)
	}
	add := func(content string) artifacts.Digest {
		a, err := store.Write(t.Context(), strings.NewReader(content), "")
		if err != nil {
			t.Fatal(err)
		}
		return a.Digest
	}
	w := &world{
		records: map[decide.MAC]Record{mac1: {Machine: decide.Machine{Name: "n1"}}},
		set:     Set{Digest: "set-1", Kernel: add(strings.Repeat("kernel", 500_000)), Initrd: add("scout"), Image: add("image"), Args: []string{"quiet"}},
		now:     time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC),
	}
	loader := filepath.Join(t.TempDir(), "loader")
	if err := os.WriteFile(loader, bytes.Repeat([]byte("loader"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	return w, Config{
		Inventory: w, Issuer: w, Sets: w, Observer: w, Artifacts: store, Now: w.clock,
		URLs: []string{"https://10.0.0.1:8443"}, CA: strings.Repeat("ab", 32),
		HTTP: netip.MustParseAddrPort("127.0.0.1:0"), TFTP: netip.MustParseAddrPort("127.0.0.1:0"),
		Loaders: map[string]string{decide.LoaderBIOS: loader, decide.LoaderUEFI: loader},
	}
}

func serve(t *testing.T, cfg Config) (*Server, *httptest.Server) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	s.port = netip.MustParseAddrPort(web.Listener.Addr().String()).Port()
	return s, web
}

func do(t *testing.T, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(r) // follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestScripts(t *testing.T) {
	w, cfg := config(t)
	w.records[mac2] = Record{Machine: decide.Machine{Name: "n2", Quarantined: "two keys"}}
	w.records["52:54:00:00:00:03"] = Record{Machine: decide.Machine{Name: "n3"}, Target: decide.TargetDisk}
	w.records["52:54:00:00:00:04"] = Record{Machine: decide.Machine{Name: "n4"}, Target: decide.TargetInstall}
	_, web := serve(t, cfg)
	for _, tc := range []struct {
		query string
		code  int
		want  []string
	}{
		{"?mac=52-54-00-00-00-01&uuid=", 200, []string{"starting scout on n1", "joist.boot=" + fmt.Sprintf("%032x", 1), "joist.time=1795201200", " quiet ",
			"kernel --name vmlinuz " + web.URL + ArtifactPath(w.set.Kernel), "initrd --name scout.cpio " + web.URL + ArtifactPath(w.set.Initrd)}},
		{"?mac=52:54:00:00:00:01", 200, []string{"joist.boot=" + fmt.Sprintf("%032x", 2)}},
		{"?mac=525400000099", 200, []string{"a machine without a name (52:54:00:00:00:99)"}},
		{"?mac=52-54-00-00-00-02", 200, []string{"n2 waits: this machine is quarantined: two keys", "joist node show n2", "chain --replace --autofree " + web.URL + "/boot/ipxe?mac=52-54-00-00-00-02&uuid="}},
		{"?mac=52-54-00-00-00-03", 200, []string{"n3 boots from its disk", "exit 1"}},
		{"?mac=52-54-00-00-00-04", 200, []string{"target install is not served yet"}},
		{"", 200, []string{"chain --replace --autofree " + web.URL + "/boot/ipxe?mac=${mac:hexhyp}&uuid=${uuid}"}},
		{"?mac=", 400, []string{"cannot read MAC address"}},
		{"?mac=x", 400, []string{"cannot read MAC address"}},
		{"?mac=52-54-00-00-00-01&uuid=nonsense", 400, []string{"cannot read UUID"}},
		{"?mac=%zz", 400, []string{"cannot read the query"}},
		{"?mac=" + strings.Repeat("0", 600), 400, []string{"more than 512"}},
	} {
		res, body := do(t, "GET", web.URL+"/boot/ipxe"+tc.query)
		if res.StatusCode != tc.code || res.ContentLength != int64(len(body)) {
			t.Errorf("%s: %s, length %d of %d", tc.query, res.Status, res.ContentLength, len(body))
		}
		if strings.HasPrefix(body, "#!ipxe") != (tc.code == 200) {
			t.Errorf("%s: got %s", tc.query, body)
		}
		for _, want := range tc.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in\n%s", tc.query, want, body)
			}
		}
	}
	if len(w.issued) != 3 || w.issued[0] != (BootRequest{MAC: mac1, Node: "n1", Addr: netip.MustParseAddr("127.0.0.1"), Set: "set-1", At: w.now}) {
		t.Errorf("issued %+v", w.issued)
	}
}

// TestScriptTellsFailure: whatever fails on our side reaches the machine's console as a script that asks again.
func TestScriptTellsFailure(t *testing.T) {
	for want, spoil := range map[string]func(*world){
		"cannot choose a boot set: none is in force": func(w *world) { w.setErr = errors.New("none is in force") },
		"cannot use boot set set-1":                  func(w *world) { w.set.Initrd = artifacts.Digest("sha256-" + strings.Repeat("0", 64)) },
		"cannot issue a boot id: disk full":          func(w *world) { w.issueErr = errors.New("disk full") },
		"which iPXE or the kernel would misread":     func(w *world) { w.set.Args = []string{"a b"} },
	} {
		w, cfg := config(t)
		spoil(w)
		s, web := serve(t, cfg)
		res, body := do(t, "GET", web.URL+"/boot/ipxe?mac=52-54-00-00-00-01")
		if res.StatusCode != 200 || !strings.Contains(body, want) || !strings.Contains(body, "chain --replace") || strings.Contains(body, "kernel --name") {
			t.Errorf("%s: %s\n%s", want, res.Status, body)
		}
		if got := s.Status(mac1).Sentence; !strings.Contains(got, want) || !strings.HasSuffix(got, ", told just now") {
			t.Errorf("%s: status %s", want, got)
		}
		if got := strings.Join(w.heard, "\n"); !strings.Contains(got, "notice") {
			t.Errorf("%s: nobody was told: %s", want, got)
		}
	}
}

func TestIgnoredMachineLeaves(t *testing.T) {
	w, cfg := config(t)
	cfg.Policy.IgnoreUnknown = true
	_, web := serve(t, cfg)
	_, body := do(t, "GET", web.URL+"/boot/ipxe?mac=52-54-00-00-00-99")
	if !strings.Contains(body, "exit 1") || len(w.issued) != 0 {
		t.Errorf("issued %v, sent\n%s", w.issued, body)
	}
}

// TestScriptAllowance: each script may cost a journal entry, so one address cannot ask for as many as it likes.
func TestScriptAllowance(t *testing.T) {
	w, cfg := config(t)
	_, web := serve(t, cfg)
	for i := range 15 {
		if res, _ := do(t, "GET", web.URL+fmt.Sprintf("/boot/ipxe?mac=52-54-00-00-01-%02x", i)); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
	}
	if len(w.issued) != scriptBurst {
		t.Fatalf("%d boot ids for 15 requests", len(w.issued))
	}
	_, body := do(t, "GET", web.URL+"/boot/ipxe?mac=52-54-00-00-00-01")
	if !strings.Contains(body, "too often") {
		t.Fatalf("got %s", body)
	}
	w.pass(scriptEvery)
	if _, body := do(t, "GET", web.URL+"/boot/ipxe?mac=52-54-00-00-00-01"); !strings.Contains(body, "starting scout") {
		t.Fatalf("got %s", body)
	}
}

func TestArtifacts(t *testing.T) {
	w, cfg := config(t)
	_, web := serve(t, cfg)
	kernel := web.URL + ArtifactPath(w.set.Kernel)
	size := len("kernel") * 500_000
	etag := `"` + string(w.set.Kernel) + `"`
	for _, tc := range []struct {
		name, method string
		header       []string
		code, length int
	}{
		{"whole", "GET", nil, 200, size},
		{"head", "HEAD", nil, 200, 0},
		{"range", "GET", []string{"Range", "bytes=6-11"}, 206, 6},
		{"tail", "GET", []string{"Range", "bytes=-6"}, 206, 6},
		{"beyond", "GET", []string{"Range", "bytes=9999999-"}, 416, -1},
		{"cached", "GET", []string{"If-None-Match", etag}, 304, 0},
		{"resume", "GET", []string{"Range", "bytes=6-", "If-Range", etag}, 206, size - 6},
		{"resume of another file", "GET", []string{"Range", "bytes=6-", "If-Range", `"x"`}, 200, size},
	} {
		res, body := do(t, tc.method, kernel, tc.header...)
		if res.StatusCode != tc.code || (tc.length >= 0 && len(body) != tc.length) {
			t.Errorf("%s: %s, %d bytes", tc.name, res.Status, len(body))
		}
		if tc.code < 300 && (res.Header.Get("ETag") != etag || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") || res.Header.Get("Accept-Ranges") != "bytes" ||
			(tc.method == "HEAD" && res.ContentLength != int64(size)) || (tc.method == "GET" && res.ContentLength != int64(len(body)))) {
			t.Errorf("%s: %v, length %d", tc.name, res.Header, res.ContentLength)
		}
		if tc.code == 206 && !strings.HasPrefix(body, "kernel") {
			t.Errorf("%s: wrong bytes", tc.name)
		}
	}
	for path, code := range map[string]int{
		"/artifact/sha256-" + strings.Repeat("0", 64): 404, "/artifact/x": 404, "/artifact/..%2f..%2fetc%2fpasswd": 404, "/artifact/../../etc/passwd": 404,
		"/artifact//": 404, "//artifact/" + string(w.set.Kernel): 404, "/": 404, "/artifact/": 404,
	} {
		if res, _ := do(t, "GET", web.URL+path); res.StatusCode != code {
			t.Errorf("%s: %s, location %q", path, res.Status, res.Header.Get("Location"))
		}
	}
	if res, _ := do(t, "PUT", kernel); res.StatusCode != 405 {
		t.Errorf("PUT: %s", res.Status)
	}
}

func TestPhasesAndTraffic(t *testing.T) {
	w, cfg := config(t)
	s, web := serve(t, cfg)
	o := s.DHCP(t.Context(), Ask{Firmware: decide.Firmware{MAC: mac1, VendorClass: "PXEClient", Archs: []uint16{7}}, Server: netip.MustParseAddr("127.0.0.1")})
	if o.Kind != decide.Loader || o.BootFile != decide.LoaderUEFI || o.NextServer != netip.MustParseAddr("127.0.0.1") || o.Lease != decide.LeaseFirmware {
		t.Fatalf("got %+v", o)
	}
	s.Leased(mac1, netip.MustParseAddr("127.0.0.1"))
	o = s.DHCP(t.Context(), Ask{Firmware: decide.Firmware{MAC: mac1, UUID: "4c4c4544-0042-3510-8054-b4c04f4a3132", IPXE: true}, Server: netip.MustParseAddr("127.0.0.1")})
	if want := web.URL + "/boot/ipxe?mac=52-54-00-00-00-01&uuid=4c4c4544-0042-3510-8054-b4c04f4a3132"; o.BootFile != want || o.NextServer.IsValid() {
		t.Fatalf("got %+v, want %s", o, want)
	}
	do(t, "GET", o.BootFile)
	kernel := web.URL + ArtifactPath(w.set.Kernel)
	do(t, "HEAD", kernel)
	do(t, "GET", kernel, "Range", "bytes=0-5")
	if got := s.Status(mac1).Sentence; got != "script sent just now" {
		t.Fatalf("the head and the beginning count as the kernel: %s", got)
	}
	do(t, "GET", kernel, "Range", "bytes=6-")
	w.pass(3 * time.Minute)
	if got := s.Status(mac1); got.Sentence != "kernel fetched 3 min ago, scout silent" || !got.Stuck {
		t.Fatalf("got %+v", got)
	}
	do(t, "GET", web.URL+ArtifactPath(w.set.Initrd))
	do(t, "GET", web.URL+ArtifactPath(w.set.Image))
	s.Reached(mac1, phase.Agent)
	if got, want := s.Traffic(mac1), (Traffic{Bytes: uint64(6*500_000 + 5 + 5), Requests: 5, Scripts: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want := "phase 1,phase 3,phase 4,phase 5,phase 8,phase 9" // the second offer is no news
	if got := strings.ReplaceAll(strings.Join(w.heard, ","), string(mac1)+" ", ""); got != want {
		t.Errorf("heard %s", got)
	}
	if got := s.Status(mac2); got.Sentence != "nothing seen yet" || s.Traffic(mac2) != (Traffic{}) {
		t.Errorf("the other machine: %+v", got)
	}
	w.heard = nil
	for range 3 {
		s.DHCP(t.Context(), Ask{Firmware: decide.Firmware{MAC: mac2, VendorClass: "PXEClient", Archs: []uint16{11}}})
	}
	if len(w.heard) != 1 || !strings.Contains(w.heard[0], "64-bit ARM UEFI (architecture 11)") {
		t.Errorf("heard %v", w.heard)
	}
}

func TestTrackerIsBounded(t *testing.T) {
	tr := newTracker(nil)
	at := time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)
	for i := range maxTracked + 10 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		mac := decide.MAC(fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16&255, i>>8&255, i&255))
		tr.at(addr, mac, at.Add(time.Duration(i)*time.Second))
		tr.reached(mac, phase.Mark{Phase: phase.Power, At: at.Add(time.Duration(i) * time.Second)})
	}
	if len(tr.machines) != maxTracked || len(tr.peers) != maxTracked {
		t.Errorf("%d machines, %d addresses", len(tr.machines), len(tr.peers))
	}
	if _, ok := tr.who(netip.MustParseAddr("10.0.0.0")); ok {
		t.Error("the oldest is still there")
	}
	for i := range 1000 {
		tr.reached(mac1, phase.Mark{Phase: phase.Power, At: at.Add(time.Duration(i) * time.Second)})
	}
	if n := len(tr.marks(mac1)); n != maxMarks {
		t.Errorf("%d marks", n)
	}
}

func TestLifecycle(t *testing.T) {
	w, cfg := config(t)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	web, tftp := s.Addrs()
	if _, body := do(t, "GET", "http://"+web.String()+ArtifactPath(w.set.Initrd)); body != "scout" {
		t.Errorf("got %q", body)
	}
	second := cfg
	second.HTTP, second.TFTP = web, netip.MustParseAddrPort("127.0.0.1:0")
	other, err := New(second)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("TCP port %d is in use: it is held by boot.test (pid %d)", web.Port(), os.Getpid())) {
		t.Errorf("HTTP port in use: %v", err)
	}
	second.HTTP, second.TFTP = netip.MustParseAddrPort("127.0.0.1:0"), tftp
	if other, err = New(second); err != nil {
		t.Fatal(err)
	}
	if err := other.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("UDP port %d is in use: it is held by", tftp.Port())) {
		t.Errorf("TFTP port in use: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", web.String()); err == nil {
		c.Close()
		t.Error("the HTTP port is still open")
	}
}

func TestConfigRefused(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"an inventory":                func(c *Config) { c.Inventory = nil },
		"an artifact store":           func(c *Config) { c.Artifacts = nil },
		"no address of the engine":    func(c *Config) { c.URLs = nil },
		"is no https address":         func(c *Config) { c.URLs = []string{"http://10.0.0.1"} },
		"must name an IP address":     func(c *Config) { c.URLs = []string{"https://engine.lab:8443"} },
		"is not 64 hexadecimal":       func(c *Config) { c.CA = "ab" },
		"no address to listen on":     func(c *Config) { c.HTTP = netip.AddrPort{} },
		"is negative":                 func(c *Config) { c.MaxConnections = -1 },
		"is the package ipxe install": func(c *Config) { c.Loaders = map[string]string{"a": "/nowhere"} },
	} {
		_, cfg := config(t)
		spoil(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"", "mac=52-54-00-00-00-01&uuid=", "mac=&uuid=", "mac=${mac}", "mac=525400000001&uuid=4c4c4544-0042-3510-8054-b4c04f4a3132", "%", "mac=a;b", "mac=1&mac=2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil || q.mac == "" {
			return
		}
		// What was accepted is canonical, so it can stand in an address and on a command line as it is.
		if m, err := decide.ParseMAC(string(q.mac)); err != nil || m != q.mac {
			t.Fatalf("%q: MAC %q", raw, q.mac)
		}
		if u, err := decide.ParseUUID(string(q.uuid)); err != nil || u != q.uuid {
			t.Fatalf("%q: UUID %q", raw, q.uuid)
		}
	})
}

// TestRevoked: the handler of revocation lists has its paths whole, and no other; without one there is nothing.
func TestRevoked(t *testing.T) {
	_, cfg := config(t)
	paths := []string{"/crl", "/crl/demo", "/crl/demo/etcd", "/crl/a%2fb"}
	_, web := serve(t, cfg)
	for _, p := range paths {
		if res, _ := do(t, "GET", web.URL+p); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s without a handler: %s", p, res.Status)
		}
	}
	cfg.Revoked = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("at "+r.URL.EscapedPath()))
	})
	_, web = serve(t, cfg)
	for _, p := range paths {
		if res, body := do(t, "GET", web.URL+p); res.StatusCode != http.StatusOK || body != "at "+p {
			t.Errorf("%s: %s %q", p, res.Status, body)
		}
	}
	if res, body := do(t, "HEAD", web.URL+"/crl/demo"); res.StatusCode != http.StatusOK || res.ContentLength != 12 || body != "" {
		t.Errorf("HEAD: %s, length %d, %q", res.Status, res.ContentLength, body)
	}
	if res, _ := do(t, "GET", web.URL+"/crls"); res.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %s", res.Status)
	}
}
