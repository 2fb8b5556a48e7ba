package api

import (
	"net/http"
	"strings"
	"testing"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// FuzzRequests sends anything to every route: it may be refused, and never end in status 500.
func FuzzRequests(f *testing.F) {
	s := newServer(f, newFake())
	routes := s.Routes()
	for i := range routes {
		f.Add(uint8(i), "demo", "instance=a[n1]&journal=site&after=site:1", `{"action":"retry"}`)
	}
	f.Add(uint8(4), "demo", "", `{"file_name":"a","file":"YQ==","packs":{"p":"YQ=="}}`)
	f.Add(uint8(12), "demo", "", `{"csr":"x","ttl":"1h"}`)
	f.Add(uint8(13), "", "after=cluster/demo:1,site:2&limit=1", "")
	f.Fuzz(func(t *testing.T, n uint8, name, query, body string) {
		if name == "broken" || name == "panic" || strings.ContainsAny(name, "/.%") {
			return
		}
		r := routes[int(n)%len(routes)]
		path := r.Path
		for _, v := range []string{"{cluster}", "{machine}", "{instance}", "{digest}"} {
			path = strings.ReplaceAll(path, v, "NAME")
		}
		req, err := http.NewRequest(r.Method, "http://joist/", strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		req.URL.Path = strings.ReplaceAll(path, "NAME", name)
		req.URL.RawQuery = query
		if q := req.URL.Query(); q.Get("follow") != "" {
			return // a stream does not end
		}
		w := &recorder{header: http.Header{}}
		s.ServeHTTP(w, req)
		if w.status >= 500 && w.status != http.StatusNotImplemented {
			t.Fatalf("%s %s?%s: status %d", r.Method, req.URL.Path, query, w.status)
		}
	})
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}
func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return len(p), nil
}
func (r *recorder) Flush() {}

// FuzzReadStream reads anything as a stream.
func FuzzReadStream(f *testing.F) {
	f.Add("id: site:1\nevent: x\ndata: {}\n\n")
	f.Add(": beat\n\nretry: 1000\n\ndata: a\ndata: b\r\n\r\n")
	f.Add("data\n\n:\nid\n")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		_ = client.ReadStream(strings.NewReader(text), func(m client.Message) error {
			n += len(m.Data)
			return nil
		})
		if n > len(text) {
			t.Fatal("more data than text")
		}
	})
}

// FuzzDecode decodes anything as each request.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"file":"YQ==","packs":{"p":"YQ=="}}`, `{"action":"force","instance":"a[b]"}`, `{"csr":"x"}`, `{"fingerprint":"x"}`, `{} {}`, `null`, ` {"by":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, into := range []any{&v1.Apply{}, &v1.Source{}, &v1.Action{}, &v1.CertificateRequest{}, &v1.Approve{}, &v1.Power{}} {
			if err := decode(data, into); err != nil && problemOf(err).Status != http.StatusBadRequest {
				t.Fatalf("%v", err)
			}
		}
	})
}
