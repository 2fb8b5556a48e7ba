package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "joist/services/api/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errNoCluster = Fail(v1.NotFound, errors.New("there is no such cluster"), "look at the list")

// fake stands for everything behind the API. It knows cluster demo and machine n1.
type fake struct {
	mu       sync.Mutex
	journals map[string][]v1.Event
	news     chan struct{}
	applied  v1.Apply
	acted    v1.Action
	power    string
	put      string
}

func newFake() *fake {
	f := &fake{journals: map[string][]v1.Event{}, news: make(chan struct{})}
	f.happen("cluster/demo", "site")
	return f
}

// happen appends an event to each journal named.
func (f *fake) happen(journals ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, j := range journals {
		seq := uint64(len(f.journals[j]) + 1)
		f.journals[j] = append(f.journals[j], v1.Event{Journal: j, Seq: seq, Kind: "x", Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, seq))})
	}
	close(f.news)
	f.news = make(chan struct{})
}

func (f *fake) only(name string) error {
	switch name {
	case "demo", "n1":
		return nil
	case "broken":
		return errors.New("the disk is on fire")
	case "panic":
		panic("test")
	}
	return errNoCluster
}

type fakeClusters struct{ *fake }

func (f fakeClusters) List(context.Context) ([]v1.Cluster, error) {
	return []v1.Cluster{{Name: "demo"}}, nil
}
func (f fakeClusters) Get(_ context.Context, name string) (*v1.ClusterDetail, error) {
	return &v1.ClusterDetail{Cluster: v1.Cluster{Name: name}}, f.only(name)
}
func (f fakeClusters) Plan(_ context.Context, name string, _ bool, _ []v1.Override) (*v1.Plan, error) {
	return &v1.Plan{Cluster: name}, f.only(name)
}
func (f fakeClusters) Preview(context.Context, v1.Apply) (*v1.Plan, error) { return &v1.Plan{}, nil }
func (f fakeClusters) Outputs(_ context.Context, name string) (*v1.Outputs, error) {
	return &v1.Outputs{Cluster: name}, f.only(name)
}
func (f fakeClusters) Replay(_ context.Context, name string, q v1.ReplayQuery) (*v1.Replay, error) {
	return &v1.Replay{Cluster: name, Last: q.At, Events: q.Run}, f.only(name)
}

func (f fakeClusters) Why(_ context.Context, name, instance string) (*v1.Why, error) {
	return &v1.Why{Instance: instance}, f.only(name)
}
func (f fakeClusters) Instance(_ context.Context, name, instance string) (*v1.Instance, error) {
	return &v1.Instance{Item: v1.Item{Instance: instance}}, f.only(name)
}
func (f fakeClusters) Verify(_ context.Context, name string, v v1.Verify) (*v1.Verification, error) {
	return &v1.Verification{ID: 7, Cluster: name, By: v.By, Asked: len(v.Instances)}, f.only(name)
}
func (f fakeClusters) Verified(_ context.Context, name string, id uint64, skip int) (*v1.Verification, error) {
	return &v1.Verification{ID: id, Cluster: name, Asked: skip}, f.only(name)
}
func (f fakeClusters) Apply(_ context.Context, a v1.Apply) (*v1.Accepted, error) {
	f.applied = a
	return &v1.Accepted{Cluster: "demo"}, nil
}
func (f fakeClusters) Destroy(_ context.Context, name string, _ v1.Destroy) (*v1.Accepted, error) {
	return &v1.Accepted{Cluster: name}, f.only(name)
}
func (f fakeClusters) Act(_ context.Context, name string, a v1.Action) (*v1.Accepted, error) {
	f.acted = a
	return &v1.Accepted{Cluster: name}, f.only(name)
}
func (f fakeClusters) Wipe(_ context.Context, machine, _ string) (*v1.Wiped, error) {
	return &v1.Wiped{Machine: machine, Proof: "read back"}, nil
}

func (f fakeClusters) Certify(_ context.Context, name string, _ v1.CertificateRequest, _ time.Duration) (*v1.Certificate, error) {
	return &v1.Certificate{Leaf: "leaf"}, f.only(name)
}

type fakeMachines struct{ *fake }

func (f fakeMachines) List(context.Context) ([]v1.Machine, error) {
	return []v1.Machine{{Name: "n1"}}, nil
}
func (f fakeMachines) Get(_ context.Context, name string) (*v1.Machine, error) {
	return &v1.Machine{Name: name}, f.only(name)
}
func (f fakeMachines) Approve(_ context.Context, name string, _ v1.Approve) error {
	return f.only(name)
}
func (f fakeMachines) Power(_ context.Context, name, action string) error {
	f.power = action
	return f.only(name)
}
func (f fakeMachines) Console(_ context.Context, name string, w io.Writer, view ConsoleView) error {
	_, err := fmt.Fprintf(w, "console of %s tail %d follow %v", name, view.Tail, view.Follow)
	return err
}

func (f fakeMachines) Define(_ context.Context, spec v1.MachineSpec) (*v1.Machine, error) {
	return &v1.Machine{Name: spec.Name}, nil
}
func (f fakeMachines) Undefine(_ context.Context, name string) error { return f.only(name) }

func (f *fake) Names(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.journals {
		names = append(names, name)
	}
	return names, nil
}

func (f *fake) Last(_ context.Context, journal string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.journals[journal])), nil
}

func (f *fake) Read(_ context.Context, journal string, after uint64, do func(v1.Event) error) error {
	f.mu.Lock()
	all := f.journals[journal]
	f.mu.Unlock()
	for _, e := range all[min(after, uint64(len(all))):] {
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Follow(ctx context.Context, journal string, after uint64, do func(v1.Event) error) error {
	for {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		err := f.Read(ctx, journal, after, func(e v1.Event) error {
			after = e.Seq
			return do(e)
		})
		if err != nil {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type fakeArtifacts struct{ *fake }

func (f fakeArtifacts) Put(_ context.Context, digest string, r io.Reader) (*v1.Artifact, error) {
	data, err := io.ReadAll(r)
	f.put = string(data)
	return &v1.Artifact{Digest: digest, Size: int64(len(data))}, err
}

// closing is a file in memory.
type closing struct{ *strings.Reader }

func (closing) Close() error { return nil }

func (f fakeArtifacts) Whole(context.Context, string) (int64, error) { return int64(len(f.put)), nil }
func (f fakeArtifacts) Open(context.Context, string) (io.ReadSeekCloser, int64, error) {
	return closing{strings.NewReader(string(f.put))}, int64(len(f.put)), nil
}
func (f fakeArtifacts) Register(context.Context, json.RawMessage) (*v1.BootSet, error) {
	return &v1.BootSet{Digest: "d"}, nil
}
func (f fakeArtifacts) BootSets(context.Context) ([]v1.BootSet, error) { return []v1.BootSet{}, nil }

type fakeMirror struct{}

func (fakeMirror) List(context.Context) ([]v1.MirrorEntry, error) {
	return []v1.MirrorEntry{{Name: "etcd"}, {Name: "kubelet"}}, nil
}
func (fakeMirror) Add(_ context.Context, a v1.MirrorAdd) error {
	if !a.Replace {
		return Fail(v1.Conflict, errors.New("it is there"), "")
	}
	return nil
}
func (fakeMirror) Verify(context.Context) ([]v1.MirrorFinding, error) {
	return []v1.MirrorFinding{{What: []string{"etcd"}}}, nil
}
func (fakeMirror) Collect(_ context.Context, c v1.MirrorCollect) (*v1.MirrorCollected, error) {
	if !c.Unused {
		return nil, errors.New("the request was not passed on")
	}
	return &v1.MirrorCollected{Bytes: 7}, nil
}

type fakeFrozen struct{}

func (fakeFrozen) List(context.Context) ([]v1.FrozenSet, error) {
	return []v1.FrozenSet{{Name: "winter"}}, nil
}
func (fakeFrozen) Get(_ context.Context, name string) (*v1.FrozenSet, error) {
	return &v1.FrozenSet{Name: name}, nil
}
func (fakeFrozen) Freeze(_ context.Context, f v1.Freeze) (*v1.FrozenSet, error) {
	return &v1.FrozenSet{Name: f.Name, Cluster: f.Cluster}, nil
}
func (fakeFrozen) Thaw(context.Context, string) error { return nil }

func newServer(t testing.TB, f *fake) *Server {
	t.Helper()
	s, err := New(Config{
		Info: Info{Version: "test"}, Clusters: fakeClusters{f}, Instances: fakeClusters{f}, Changes: fakeClusters{f}, Machines: fakeMachines{f},
		Journals: f, Artifacts: fakeArtifacts{f}, Mirror: fakeMirror{}, Frozen: fakeFrozen{}, Lab: fakeMachines{f}, MaxBody: 1 << 20, MaxArtifact: 1 << 20, Heartbeat: 20 * time.Millisecond, Rescan: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(s *Server, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

var digest = "sha256-" + strings.Repeat("0", 64)

func TestRoutes(t *testing.T) {
	s := newServer(t, newFake())
	tested := map[string]bool{}
	for _, c := range []struct {
		route, target, body string
		status              int
		says                string
	}{
		{"GET /v1", "/v1", "", 200, "/v1/events"},
		{"GET /v1/status", "/v1/status", "", 200, `"version":"test"`},
		{"POST /v1/plan", "/v1/plan", `{"file_name":"a","file":"YQ=="}`, 200, `"counts"`},
		{"GET /v1/clusters", "/v1/clusters", "", 200, `"demo"`},
		{"POST /v1/clusters", "/v1/clusters", `{"file_name":"a","file":"YQ==","packs":{"p":"YQ=="},"by":"me"}`, 202, `"demo"`},
		{"GET /v1/clusters/{cluster}", "/v1/clusters/demo", "", 200, `"demo"`},
		{"DELETE /v1/clusters/{cluster}", "/v1/clusters/demo", "", 202, `"demo"`},
		{"GET /v1/clusters/{cluster}/plan", "/v1/clusters/demo/plan", "", 200, `"items"`},
		{"GET /v1/clusters/{cluster}/outputs", "/v1/clusters/demo/outputs", "", 200, `"values"`},
		{"GET /v1/clusters/{cluster}/why", "/v1/clusters/demo/why?instance=demo/etcd.member%5Bn1%5D", "", 200, `"etcd.member[n1]"`},
		{"GET /v1/clusters/{cluster}/replay", "/v1/clusters/demo/replay?run=3&at=7", "", 200, `"last":7,"runs":null,"events":3`},
		{"GET /v1/clusters/{cluster}/instances/{instance}", "/v1/clusters/demo/instances/member%5Bn1%5D", "", 200, `"member[n1]"`},
		{"POST /v1/clusters/{cluster}/actions", "/v1/clusters/demo/actions", `{"action":"force","instance":"a[n1]"}`, 202, `"demo"`},
		{"POST /v1/clusters/{cluster}/verify", "/v1/clusters/demo/verify", `{"instances":["member[n1]","demo/front"]}`, 202, `"asked":2`},
		{"GET /v1/clusters/{cluster}/verify", "/v1/clusters/demo/verify?id=9&skip=3", ``, 200, `"asked":3`},
		{"POST /v1/clusters/{cluster}/certificate", "/v1/clusters/demo/certificate", `{"csr":"x","ttl":"1h"}`, 201, `"leaf"`},
		{"GET /v1/events", "/v1/events?journal=site", "", 200, `"next":"site:1"`},
		{"GET /v1/machines", "/v1/machines", "", 200, `"n1"`},
		{"POST /v1/machines", "/v1/machines", `{"name":"n4","firmware":"uefi"}`, 201, `"n4"`},
		{"DELETE /v1/machines/{machine}", "/v1/machines/n1", "", 204, ""},
		{"GET /v1/machines/{machine}", "/v1/machines/n1", "", 200, `"n1"`},
		{"POST /v1/machines/{machine}/approve", "/v1/machines/n1/approve", `{"fingerprint":"ABCD"}`, 200, `"n1"`},
		{"POST /v1/machines/{machine}/power", "/v1/machines/n1/power", `{"action":"cycle"}`, 200, `"n1"`},
		{"POST /v1/machines/{machine}/wipe", "/v1/machines/n1/wipe", `{"by":"me"}`, 200, `"read back"`},
		{"GET /v1/machines/{machine}/console", "/v1/machines/n1/console?tail=5", "", 200, "console of n1 tail 5 follow false"},
		{"PUT /v1/artifacts/{digest}", "/v1/artifacts/" + digest, "content", 201, `"size":7`},
		{"HEAD /v1/artifacts/{digest}", "/v1/artifacts/" + digest, "", 200, ""},
		{"GET /v1/artifacts/{digest}", "/v1/artifacts/" + digest, "", 200, "content"},
		{"GET /v1/mirror", "/v1/mirror", "", 200, `"etcd"`},
		{"POST /v1/mirror", "/v1/mirror", `{"entries":[{"name":"kubelet"}],"replace":true}`, 200, `"kubelet"`},
		{"POST /v1/mirror/verify", "/v1/mirror/verify", "", 200, `"what":["etcd"]`},
		{"POST /v1/mirror/gc", "/v1/mirror/gc", `{"unused":true}`, 200, `"bytes":7`},
		{"GET /v1/mirror/sets", "/v1/mirror/sets", "", 200, `"winter"`},
		{"POST /v1/mirror/sets", "/v1/mirror/sets", `{"name":"winter","cluster":"demo"}`, 201, `"winter"`},
		{"GET /v1/mirror/sets/{set}", "/v1/mirror/sets/winter", "", 200, `"winter"`},
		{"DELETE /v1/mirror/sets/{set}", "/v1/mirror/sets/winter", "", 204, ""},
		{"GET /v1/bootsets", "/v1/bootsets", "", 200, "[]"},
		{"POST /v1/bootsets", "/v1/bootsets", `{"format":1}`, 201, `"d"`},
	} {
		method, _, _ := strings.Cut(c.route, " ")
		w := ask(s, method, c.target, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s, want %d with %s", c.route, w.Code, w.Body, c.status, c.says)
		}
		tested[c.route] = true
	}
	for _, r := range s.Routes() {
		if !tested[r.Method+" "+r.Path] {
			t.Errorf("%s %s is not tested", r.Method, r.Path)
		}
	}
}

func TestBadInput(t *testing.T) {
	f := newFake()
	s := newServer(t, f)
	for _, c := range []struct {
		method, target, body string
		status               int
		kind                 string
	}{
		{"POST", "/v1/clusters", ``, 400, v1.Malformed},
		{"POST", "/v1/clusters", `{`, 400, v1.Malformed},
		{"POST", "/v1/clusters", `null`, 400, v1.Malformed},
		{"POST", "/v1/clusters", `[]`, 400, v1.Malformed},
		{"POST", "/v1/clusters", `{"file":"YQ=="} {}`, 400, v1.Malformed},
		{"POST", "/v1/clusters", `{"file":"YQ==","colour":"red"}`, 400, v1.Malformed},
		{"POST", "/v1/clusters", `{"file":"not base64"}`, 400, v1.Malformed},
		{"POST", "/v1/clusters", `{"file_name":"a"}`, 400, v1.Malformed},
		{"POST", "/v1/clusters", `{"file":"` + strings.Repeat("YWFh", 1<<19) + `"}`, 413, v1.TooLarge},
		{"POST", "/v1/plan", strings.Repeat(`{"packs":`, 20000), 400, v1.Malformed},
		{"POST", "/v1/machines/n1/power", `{"action":"` + strings.Repeat("x", maxSmall) + `"}`, 413, v1.TooLarge},
		{"POST", "/v1/machines/n1/power", `{"action":"explode"}`, 400, v1.Malformed},
		{"POST", "/v1/machines/n1/approve", `{}`, 400, v1.Malformed},
		{"POST", "/v1/clusters/demo/actions", `{"action":"dance"}`, 400, v1.Malformed},
		{"POST", "/v1/clusters/demo/actions", `{"action":"close-breaker"}`, 400, v1.Malformed},
		{"POST", "/v1/clusters/demo/actions", `{"action":"force","instance":"../../x"}`, 400, v1.Malformed},
		{"POST", "/v1/clusters/demo/verify", `{"instances":["no such[form"]}`, 400, v1.Malformed},
		{"GET", "/v1/clusters/demo/verify?id=x", ``, 400, v1.Malformed},
		{"GET", "/v1/clusters/demo/verify?id=1&skip=-1", ``, 400, v1.Malformed},
		{"POST", "/v1/clusters/demo/certificate", `{"csr":"x","ttl":"-1h"}`, 400, v1.Malformed},
		{"PUT", "/v1/clusters", `{}`, 405, v1.Method},
		{"PATCH", "/v1/clusters/demo", `{}`, 405, v1.Method},
		{"POST", "/v1/status", `{}`, 405, v1.Method},
		{"POST", "/v1/artifacts/" + digest, "", 405, v1.Method},
		{"GET", "/v1/artifacts/sha256-00", "", 400, v1.Malformed},
		{"POST", "/v1/mirror", `{"entries":[]}`, 400, v1.Malformed},
		{"POST", "/v1/mirror", `{"entries":[{"name":"a"}]}`, 409, v1.Conflict},
		{"POST", "/v1/mirror/gc", ``, 400, v1.Malformed},
		{"DELETE", "/v1/mirror/sets/UPPER", "", 400, v1.Malformed},
		{"GET", "/", "", 404, v1.NotFound},
		{"GET", "/v2/status", "", 404, v1.NotFound},
		{"GET", "/v1/clusters/other", "", 404, v1.NotFound},
		{"GET", "/v1/clusters/UPPER", "", 400, v1.Malformed},
		{"GET", "/v1/clusters/" + strings.Repeat("a", 64), "", 400, v1.Malformed},
		{"GET", "/v1/clusters/demo/replay?at=-1", "", 400, v1.Malformed},
		{"GET", "/v1/clusters/demo/replay?run=0", "", 400, v1.Malformed},
		{"GET", "/v1/machines/n1/console?tail=x", "", 400, v1.Malformed},
		{"GET", "/v1/machines/n2/console", "", 404, v1.NotFound},
		{"GET", "/v1/events?journal=nonsense", "", 400, v1.Malformed},
		{"GET", "/v1/events?after=site", "", 400, v1.Malformed},
		{"GET", "/v1/events?after=site:-1", "", 400, v1.Malformed},
		{"GET", "/v1/events?limit=0", "", 400, v1.Malformed},
		{"GET", "/v1/events?limit=1000000", "", 400, v1.Malformed},
		{"PUT", "/v1/artifacts/sha256-00", "x", 400, v1.Malformed},
		{"PUT", "/v1/artifacts/" + digest, strings.Repeat("x", 1<<20+1), 413, v1.TooLarge},
		{"POST", "/v1/bootsets", `[1]`, 400, v1.Malformed},
		{"GET", "/v1/clusters/broken", "", 500, v1.Internal},
		{"GET", "/v1/clusters/panic", "", 500, v1.Internal},
	} {
		w := ask(s, c.method, c.target, c.body)
		name := fmt.Sprintf("%s %.60s %.40s", c.method, c.target, c.body)
		var p v1.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s: the answer is no problem: %v %s", name, err, w.Body)
			continue
		}
		if w.Code != c.status || p.Status != c.status || !p.Of(c.kind) || p.Title == "" || p.Detail == "" || w.Header().Get("Content-Type") != v1.ProblemMedia {
			t.Errorf("%s: %d %+v, want %d %s", name, w.Code, p, c.status, c.kind)
		}
		if len(p.Detail) > 500 {
			t.Errorf("%s: the detail repeats the request: %d bytes", name, len(p.Detail))
		}
		if c.status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s: no Allow", name)
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/v1/clusters", strings.NewReader(`{"file":"YQ=="}`))
	r.Header.Set("Content-Type", "text/xml")
	s.ServeHTTP(w, r)
	if w.Code != 400 {
		t.Errorf("XML is answered with %d", w.Code)
	}
	if f.applied.File != nil {
		t.Error("a bad request was applied")
	}
}

// TestEventsPageOfLargeEvents has a page end before it is larger than an engine should answer with.
func TestEventsPageOfLargeEvents(t *testing.T) {
	f := newFake()
	for range 3 {
		f.happen("site")
	}
	for i := range f.journals["site"] {
		f.journals["site"][i].Data = json.RawMessage(`"` + strings.Repeat("x", pageBytes) + `"`)
	}
	s := newServer(t, f)
	after := ""
	for want := uint64(1); want <= 4; want++ {
		var page v1.Events
		if err := json.Unmarshal(ask(s, "GET", "/v1/events?journal=site&after="+after, "").Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Events) != 1 || page.Events[0].Seq != want || page.More != (want < 4) {
			t.Fatalf("%d events, more %v, instead of event %d", len(page.Events), page.More, want)
		}
		after = page.Next
	}
}

func TestEventsPage(t *testing.T) {
	f := newFake()
	for range 4 {
		f.happen("site")
	}
	s := newServer(t, f)
	var got []string
	after := ""
	for pages := 0; pages < 10; pages++ {
		var page v1.Events
		if err := json.Unmarshal(ask(s, "GET", "/v1/events?limit=2&after="+after, "").Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			got = append(got, fmt.Sprintf("%s:%d", e.Journal, e.Seq))
		}
		after = page.Next
		if !page.More {
			break
		}
	}
	if len(got) != 6 || after != "cluster/demo:1,site:5" {
		t.Errorf("got %v, next %s", got, after)
	}
	if body := ask(s, "GET", "/v1/events?journal=site&after=3", "").Body.String(); strings.Count(body, `"kind"`) != 2 {
		t.Errorf("after a bare sequence of the only journal: %s", body)
	}
	if body := ask(s, "GET", "/v1/events?after=now", "").Body.String(); !strings.Contains(body, `"next":"cluster/demo:1,site:5"`) {
		t.Errorf("after now: %s", body)
	}
}

// serve serves on a real socket and gives a client of it.
func serve(t *testing.T, s *Server) (*http.Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return &http.Client{Transport: transport}, path
}

func TestPeerIsNamed(t *testing.T) {
	f := newFake()
	c, _ := serve(t, newServer(t, f))
	resp, err := c.Post("http://joist/v1/clusters/demo/actions", "application/json", strings.NewReader(`{"action":"retry"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if f.acted.By == "" || f.acted.By == "somebody" {
		t.Errorf("the caller is called %q", f.acted.By)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another joist serves there") {
		t.Errorf("a second engine on the socket: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A socket that a killed engine left: it is there, and nobody listens.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if l, err = Listen(path); err != nil {
		t.Fatalf("a stale socket is not replaced: %v", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	// A living process of another kind, without our lock.
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another joist serves there") {
		t.Errorf("a living socket: %v", err)
	}
	other.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "something else than a socket") {
		t.Errorf("a file: %v", err)
	}
	if _, err := Listen("/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "at most 107 bytes") {
		t.Errorf("a long path: %v", err)
	}
}
