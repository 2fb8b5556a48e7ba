package lists_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/engine/entries"
	"joist/pki/authority"
	"joist/pki/profiles"
	"joist/services/certs"
	"joist/services/certs/lists"
)

// everything allows every name: this is about revocations.
type everything struct{}

func (everything) Allowed(context.Context, string, string, []string) error { return nil }

type site struct {
	*authority.Authority
	vault *authority.Folder
	now   time.Time
	web   http.Handler
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{now: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return s.now }
	dir := t.TempDir()
	var err error
	if s.vault, err = authority.OpenFolder(filepath.Join(dir, "keys"), ""); err != nil {
		t.Fatal(err)
	}
	ledger, err := authority.OpenLedger(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	if s.Authority, err = authority.Open(t.Context(), authority.Config{Vault: s.vault, Ledger: ledger, Now: clock}); err != nil {
		t.Fatal(err)
	}
	service, err := certs.New(certs.Config{Authority: s.Authority, Store: &entries.Memory{}, Inventory: everything{}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	s.web = lists.Handler(service, slog.New(slog.DiscardHandler))
	return s
}

// issue certifies something of an owner, by an authority that is made if need be.
func (s *site) issue(t *testing.T, cluster, name, owner string) (*authority.Issuer, string) {
	t.Helper()
	issuer, err := s.Named(t.Context(), cluster, name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issuer.Issue(t.Context(), authority.Request{CSR: csr, Profile: profiles.Client, Owner: owner, Subject: owner})
	if err != nil {
		t.Fatal(err)
	}
	return issuer, c.Serial
}

func (s *site) ask(t *testing.T, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.web.ServeHTTP(w, r)
	return w
}

// list fetches a list and gives it with its serials.
func (s *site) list(t *testing.T, path string, by *x509.Certificate) (*x509.RevocationList, []string) {
	t.Helper()
	w := s.ask(t, "GET", path)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/pkix-crl" {
		t.Fatalf("%s: %d %v\n%s", path, w.Code, w.Header(), w.Body)
	}
	list, err := x509.ParseRevocationList(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(by); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	var serials []string
	for _, e := range list.RevokedCertificateEntries {
		serials = append(serials, e.SerialNumber.Text(16))
	}
	return list, serials
}

// TestLists: each authority has a list of its own, on which is what it revoked.
func TestLists(t *testing.T) {
	s := newSite(t)
	whole, one := s.issue(t, "demo", "", "a")
	etcd, two := s.issue(t, "demo", "etcd", "a")
	other, _ := s.issue(t, "other", "etcd", "a")
	for _, i := range []*authority.Issuer{whole, etcd} {
		if _, err := i.RevokeOwner(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path string
		by   *x509.Certificate
		want []string
	}{
		{"/crl/demo", whole.Certificate(), []string{one}},
		{"/crl/demo/etcd", etcd.Certificate(), []string{two}},
		{"/crl/other/etcd", other.Certificate(), nil},
		{"/crl", s.Root(), nil},
	} {
		list, serials := s.list(t, c.path, c.by)
		if !slices.Equal(serials, c.want) {
			t.Errorf("%s: %v, want %v", c.path, serials, c.want)
		}
		if list.ThisUpdate.After(s.now.Add(-time.Minute)) || !list.NextUpdate.Equal(s.now.Add(authority.CRLValidity)) {
			t.Errorf("%s: from %s to %s, and now it is %s", c.path, list.ThisUpdate, list.NextUpdate, s.now)
		}
	}
}

// TestOneSignature: however many ask, and however they do, a list is made anew after a revocation, or when half of its life is over.
func TestOneSignature(t *testing.T) {
	s := newSite(t)
	issuer, serial := s.issue(t, "demo", "kubernetes", "a")
	number := func() int64 {
		list, _ := s.list(t, "/crl/demo/kubernetes", issuer.Certificate())
		return list.Number.Int64()
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for _, method := range []string{"GET", "HEAD"} {
				s.ask(t, method, "/crl/demo/kubernetes")
			}
		})
	}
	all.Wait()
	if n := number(); n != 1 {
		t.Errorf("after 41 questions it is list %d", n)
	}
	s.now = s.now.Add(authority.CRLValidity/2 - time.Second)
	if n := number(); n != 1 {
		t.Errorf("before half of its life it is list %d", n)
	}
	s.now = s.now.Add(time.Second)
	if n := number(); n != 2 {
		t.Errorf("after half of its life it is list %d", n)
	}

	w := s.ask(t, "GET", "/crl/demo/kubernetes")
	tag := w.Header().Get("ETag")
	if kept := s.ask(t, "GET", "/crl/demo/kubernetes", "If-None-Match", tag); kept.Code != http.StatusNotModified || kept.Body.Len() != 0 {
		t.Errorf("nothing is new, and the answer is %d with %d bytes", kept.Code, kept.Body.Len())
	}
	if w.Header().Get("Cache-Control") != "public, no-cache" || w.Header().Get("Last-Modified") != "" {
		t.Errorf("the list may be taken for new when it is not: %v", w.Header())
	}
	head := s.ask(t, "HEAD", "/crl/demo/kubernetes")
	if head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") != w.Header().Get("Content-Length") || head.Header().Get("ETag") != tag {
		t.Errorf("HEAD: %d %v", head.Code, head.Header())
	}
	// In the very second of the list before.
	if _, err := issuer.RevokeOwner(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if again := s.ask(t, "GET", "/crl/demo/kubernetes", "If-None-Match", tag); again.Code != http.StatusOK {
		t.Errorf("a revocation is not seen: %d", again.Code)
	}
	if list, serials := s.list(t, "/crl/demo/kubernetes", issuer.Certificate()); list.Number.Int64() != 3 || !slices.Equal(serials, []string{serial}) {
		t.Errorf("list %s revokes %v", list.Number, serials)
	}
}

// TestNothingThere: to ask for what is not there is answered, and makes nothing.
func TestNothingThere(t *testing.T) {
	s := newSite(t)
	s.issue(t, "demo", "etcd", "a") // and no intermediate
	s.issue(t, "gone", "", "a")
	if w := s.ask(t, "GET", "/crl/gone"); w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	if err := s.Forget(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	before, err := s.vault.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/crl/", "/crl/nobody", "/crl/nobody/etcd", "/crl/demo", "/crl/demo/", "/crl/demo/front-proxy", "/crl/demo.etcd", "/crl/demo/etcd/", "/crl/demo/etcd/x", "/crl/gone",
		"/crl/..", "/crl/../ca", "/crl/%2e%2e", "/crl/..%2fagents", "/crl/demo/..", "/crl/demo/ETCD", "/crl/DEMO/etcd", "/crl/demo%00/etcd", "/crl//etcd", "/crl/" + strings.Repeat("x", 5000),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if w := s.ask(t, method, path); w.Code != http.StatusNotFound {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	if after, err := s.vault.List(t.Context()); err != nil || !slices.Equal(after, before) {
		t.Errorf("authorities were %v and are %v, %v", before, after, err)
	}
	if w := s.ask(t, "POST", "/crl/demo/etcd"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
}

type broken struct{}

func (broken) CRL(context.Context, string, string) ([]byte, error) {
	return nil, errors.New("cannot write /var/lib/joist/ca")
}

// TestFailure: what goes wrong is in the log, and nowhere else.
func TestFailure(t *testing.T) {
	var log bytes.Buffer
	w := httptest.NewRecorder()
	lists.Handler(broken{}, slog.New(slog.NewTextHandler(&log, nil))).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/crl/demo", nil))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "/var") || !strings.Contains(log.String(), "cannot write /var/lib/joist/ca") {
		t.Errorf("%d %s\n%s", w.Code, w.Body, &log)
	}
}
