package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/pki/enrol"
	"joist/pki/profiles"
)

var t0 = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

type fixture struct {
	*Authority
	*clock
	dir    string
	ledger *FileLedger
}

func newFixture(t *testing.T, dir string) *fixture {
	t.Helper()
	f := &fixture{clock: &clock{t: t0}, dir: dir}
	folder, err := OpenFolder(filepath.Join(dir, "keys"), "")
	if err != nil {
		t.Fatal(err)
	}
	if f.ledger, err = OpenLedger(filepath.Join(dir, "ledger")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.ledger.Close() })
	if f.Authority, err = Open(t.Context(), Config{Vault: folder, Ledger: f.ledger, Now: f.now}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) cluster(t *testing.T, name string) *Issuer {
	t.Helper()
	i, err := f.Cluster(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parse(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM in %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func pool(t *testing.T, text string) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM([]byte(text)) {
		t.Fatal("no certificate")
	}
	return p
}

// TestForget: of a cluster that is gone no key is left, in memory or in a file, and a later one of its name gets others.
func TestForget(t *testing.T) {
	f := newFixture(t, t.TempDir())
	other := f.cluster(t, "demo-2")
	was := f.cluster(t, "demo")
	named, err := f.Named(t.Context(), "demo", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again is no error
		if err := f.Forget(t.Context(), "demo"); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(f.dir, "keys", "cluster-*"))
	if want := filepath.Join(f.dir, "keys", "cluster-demo-2.age"); err != nil || len(files) != 1 || files[0] != want {
		t.Errorf("%q, %v; want %s alone", files, err, want)
	}
	again, err := f.Named(t.Context(), "demo", "etcd")
	if err != nil || again.cert.Equal(named.cert) || f.cluster(t, "demo").cert.Equal(was.cert) {
		t.Errorf("a later cluster has keys of the one before: %v", err)
	}
	if f.cluster(t, "demo-2") != other {
		t.Error("another cluster lost its authority")
	}
}

func TestIssueVerifies(t *testing.T) {
	f := newFixture(t, t.TempDir())
	key := newKey(t)
	basic, err := asn1.Marshal(struct{ IsCA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	// The request asks for everything that it must not get.
	greedy := newCSR(t, key, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root", Organization: []string{"system:masters"}},
		DNSNames: []string{"evil.lab"}, IPAddresses: []net.IP{net.IPv4(6, 6, 6, 6)}, EmailAddresses: []string{"a@b"},
		URIs:            []*url.URL{enrol.Identity{Node: "n9", Incarnation: "i"}.URI()},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basic}},
	})
	names := []string{"n1.demo.lab", "etcd.demo.lab", "10.0.0.5", "fd00::5", "n1.demo.lab"}
	c, err := f.cluster(t, "demo").Issue(t.Context(), Request{CSR: greedy, Profile: profiles.Peer, Owner: "demo/cert[n1]", Subject: "n1.demo.lab", Names: names})
	if err != nil {
		t.Fatal(err)
	}
	leaf := parse(t, c.Leaf)
	if len(leaf.DNSNames) != 2 || len(leaf.IPAddresses) != 2 || len(leaf.EmailAddresses)+len(leaf.URIs) != 0 || leaf.IsCA ||
		leaf.Subject.String() != "CN=n1.demo.lab" || leaf.KeyUsage != x509.KeyUsageDigitalSignature || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("the certificate has %v %v %v %v, CA %v, subject %s", leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses, leaf.URIs, leaf.IsCA, leaf.Subject)
	}
	if !leaf.NotBefore.Equal(t0.Add(-Backdate)) && !leaf.NotBefore.Equal(f.cluster(t, "demo").cert.NotBefore) || !leaf.NotAfter.Equal(t0.Add(30*24*time.Hour)) {
		t.Errorf("valid from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		for _, name := range []string{"etcd.demo.lab", "10.0.0.5"} {
			if _, err := leaf.Verify(x509.VerifyOptions{
				DNSName: name, Roots: pool(t, c.Root), Intermediates: pool(t, c.Chain), CurrentTime: t0, KeyUsages: []x509.ExtKeyUsage{usage},
			}); err != nil {
				t.Errorf("for %s: %v", name, err)
			}
		}
	}
	other := f.cluster(t, "other")
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: other.Pool(), CurrentTime: t0}); err == nil {
		t.Error("another cluster's intermediate accepts the certificate")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: f.cluster(t, "demo").Pool(), CurrentTime: t0}); err != nil {
		t.Errorf("the cluster's own intermediate alone: %v", err)
	}
	opensslVerify(t, c)
}

// opensslVerify asks openssl to check a certificate and to show it.
func opensslVerify(t *testing.T, c Certificate) {
	t.Helper()
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	at := "1803902400" // 2027-03-01
	leaf, chain, root := path("leaf", c.Leaf), path("chain", c.Chain), path("root", c.Root)
	out, err := exec.Command("openssl", "verify", "-x509_strict", "-attime", at, "-CAfile", root, "-untrusted", chain,
		"-purpose", "sslserver", "-verify_hostname", "etcd.demo.lab", leaf).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
	out, err = exec.Command("openssl", "x509", "-noout", "-text", "-in", leaf).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "DNS:n1.demo.lab, DNS:etcd.demo.lab, IP Address:10.0.0.5") || strings.Contains(string(out), "evil") {
		t.Errorf("openssl x509: %v\n%s", err, out)
	}
}

func TestIssueRefuses(t *testing.T) {
	f := newFixture(t, t.TempDir())
	demo := f.cluster(t, "demo")
	good := newCSR(t, newKey(t), &x509.CertificateRequest{})
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		issuer *Issuer
		r      Request
		want   string
	}{
		"profile":          {demo, Request{CSR: good, Profile: "ca", Names: []string{"a"}}, "want one of"},
		"no names":         {demo, Request{CSR: good, Profile: profiles.Server}, "at least one name"},
		"wildcard":         {demo, Request{CSR: good, Profile: profiles.Peer, Names: []string{"*.demo.lab"}}, "DNS name in lower case"},
		"capitals":         {demo, Request{CSR: good, Profile: profiles.Peer, Names: []string{"N1.demo.lab"}}, "DNS name in lower case"},
		"mail":             {demo, Request{CSR: good, Profile: profiles.Peer, Names: []string{"a@demo.lab"}}, "DNS name in lower case"},
		"URI":              {demo, Request{CSR: good, Profile: profiles.Peer, Names: []string{"joist://node/n1/i"}}, "DNS name in lower case"},
		"mapped address":   {demo, Request{CSR: good, Profile: profiles.Peer, Names: []string{"::ffff:10.0.0.1"}}, "write it as 10.0.0.1"},
		"zone":             {demo, Request{CSR: good, Profile: profiles.Peer, Names: []string{"fe80::1%eth0"}}, "write it as fe80::1"},
		"URI of a peer":    {demo, Request{CSR: good, Profile: profiles.Peer, Names: []string{"a"}, URI: &url.URL{Scheme: "x"}}, "carries no URI"},
		"agent's names":    {demo, Request{CSR: good, Profile: profiles.Agent, Names: []string{"a"}, URI: &url.URL{Scheme: "x"}}, "one URI and no other"},
		"long common name": {demo, Request{CSR: good, Profile: profiles.Client, Subject: strings.Repeat("x", 65)}, "longer than 64"},
		"signature":        {demo, Request{CSR: broken, Profile: profiles.Client}, "did not sign"},
		"not a CSR":        {demo, Request{CSR: []byte("hello"), Profile: profiles.Client}, "cannot read certificate request"},
		"weak key":         {demo, Request{CSR: newCSR(t, p224, &x509.CertificateRequest{}), Profile: profiles.Client}, "unsuitable"},
		"by the root":      {f.root, Request{CSR: good, Profile: profiles.Client}, "intermediates only"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tc.issuer.Issue(t.Context(), tc.r); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestClamp(t *testing.T) {
	f := newFixture(t, t.TempDir())
	demo := f.cluster(t, "demo")
	end := demo.cert.NotAfter
	if !end.Equal(t0.Add(IntermediateValidity)) {
		t.Errorf("the intermediate ends %s", end)
	}
	r := Request{CSR: newCSR(t, newKey(t), &x509.CertificateRequest{}), Profile: profiles.Client, Owner: "o", Subject: "x"}
	r.Validity = time.Hour
	if c, err := demo.Issue(t.Context(), r); err != nil || !c.NotAfter.Equal(t0.Add(time.Hour)) {
		t.Errorf("an hour ends %s, %v", c.NotAfter, err)
	}
	r.Validity = 1000 * time.Hour
	if c, err := demo.Issue(t.Context(), r); err != nil || !c.NotAfter.Equal(t0.Add(30*24*time.Hour)) {
		t.Errorf("more than the profile's life ends %s, %v", c.NotAfter, err)
	}
	f.add(IntermediateValidity - time.Hour)
	if c, err := demo.Issue(t.Context(), r); err != nil || !c.NotAfter.Equal(end) {
		t.Errorf("a leaf ends %s, its issuer %s; %v", c.NotAfter, end, err)
	}
	f.add(time.Hour)
	if _, err := demo.Issue(t.Context(), r); err == nil || !strings.Contains(err.Error(), "is valid from") {
		t.Errorf("an expired issuer: %v", err)
	}
	f.add(RootValidity - IntermediateValidity - time.Hour)
	if late := f.cluster(t, "late"); !late.cert.NotAfter.Equal(f.Root().NotAfter) {
		t.Errorf("an intermediate ends %s, the root %s", late.cert.NotAfter, f.Root().NotAfter)
	}
	f.add(-100 * 365 * 24 * time.Hour)
	if _, err := f.Cluster(t.Context(), "early"); err == nil {
		t.Error("a clock before the root's start was believed")
	}
}

// failing is a ledger that cannot record.
type failing struct{ *FileLedger }

func (failing) Record(context.Context, Issued) error { return errors.New("disk full") }

func TestSerialIsRecordedFirst(t *testing.T) {
	f := newFixture(t, t.TempDir())
	demo := f.cluster(t, "demo")
	r := Request{CSR: newCSR(t, newKey(t), &x509.CertificateRequest{}), Profile: profiles.Client, Owner: "o", Subject: "x"}
	c, err := demo.Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.ledger.Issued(t.Context(), demo.Name(), "o", t0)
	if err != nil || len(list) != 1 || list[0].Serial != c.Serial || !list[0].NotAfter.Equal(c.NotAfter) || list[0].Key == "" {
		t.Errorf("ledger %+v, %v; want serial %s", list, err, c.Serial)
	}
	demo.cfg.Ledger = failing{f.ledger}
	if _, err := demo.Issue(t.Context(), r); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("a certificate without a record: %v", err)
	}
}

func TestReopenKeepsAuthorities(t *testing.T) {
	dir := t.TempDir()
	f := newFixture(t, dir)
	pin, demo := f.Pin(), f.cluster(t, "demo").cert
	again := newFixture(t, dir)
	if again.Pin() != pin || !again.cluster(t, "demo").cert.Equal(demo) {
		t.Error("a reopened authority is another one")
	}
	entries, err := os.ReadDir(filepath.Join(dir, "keys"))
	if err != nil || len(entries) != 3 { // identity, root, cluster-demo
		t.Errorf("files %v, %v", entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "keys", e.Name()))
		if err != nil || strings.Contains(string(text), "PRIVATE KEY") {
			t.Errorf("%s holds a key in the clear", e.Name())
		}
	}
	identity := filepath.Join(dir, "keys", "identity")
	if err := os.Chmod(identity, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(filepath.Join(dir, "keys"), ""); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("an identity that others can read: %v", err)
	}
	if err := os.Remove(identity); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(filepath.Join(dir, "keys"), ""); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("keys without their identity: %v", err)
	}
}

func TestFolderNeverReplaces(t *testing.T) {
	folder, err := OpenFolder(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Load(t.Context(), "root"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load = %v", err)
	}
	if err := folder.Create(t.Context(), "root", Material{Key: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if err := folder.Create(t.Context(), "root", Material{Key: []byte("2")}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create = %v", err)
	}
	if m, err := folder.Load(t.Context(), "root"); err != nil || string(m.Key) != "1" {
		t.Errorf("Load = %s, %v", m.Key, err)
	}
}

func TestRevocation(t *testing.T) {
	dir := t.TempDir()
	f := newFixture(t, dir)
	demo := f.cluster(t, "demo")
	issue := func(owner string) Certificate {
		c, err := demo.Issue(t.Context(), Request{CSR: newCSR(t, newKey(t), &x509.CertificateRequest{}), Profile: profiles.Client, Owner: owner, Subject: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, second, kept := issue("gone"), issue("gone"), issue("kept")
	before := readCRL(t, demo)
	if len(before.RevokedCertificateEntries) != 0 || before.Number.Int64() != 1 {
		t.Errorf("list %s has %d entries", before.Number, len(before.RevokedCertificateEntries))
	}
	for want := 2; want >= 0; want -= 2 {
		if n, err := demo.RevokeOwner(t.Context(), "gone"); err != nil || n != want {
			t.Errorf("revoked %d, %v; want %d", n, err, want)
		}
	}
	after := readCRL(t, demo)
	revoked := map[string]bool{}
	for _, e := range after.RevokedCertificateEntries {
		revoked[e.SerialNumber.Text(16)] = true
	}
	if !revoked[first.Serial] || !revoked[second.Serial] || revoked[kept.Serial] || after.Number.Cmp(before.Number) <= 0 {
		t.Errorf("list %s revokes %v", after.Number, revoked)
	}
	opensslCRL(t, f, demo, first, false)
	opensslCRL(t, f, demo, kept, true)

	again := newFixture(t, dir) // after a restart numbers go on growing
	if list := readCRL(t, again.cluster(t, "demo")); list.Number.Cmp(after.Number) <= 0 || len(list.RevokedCertificateEntries) != 2 {
		t.Errorf("after a restart list %s has %d entries", list.Number, len(list.RevokedCertificateEntries))
	}
	again.add(30*24*time.Hour + CRLValidity - time.Hour)
	if list := readCRL(t, again.cluster(t, "demo")); len(list.RevokedCertificateEntries) != 2 {
		t.Errorf("a certificate left the list with its end: %d entries", len(list.RevokedCertificateEntries))
	}
	again.add(2 * CRLValidity)
	if list := readCRL(t, again.cluster(t, "demo")); len(list.RevokedCertificateEntries) != 0 {
		t.Errorf("expired certificates stay on the list: %d entries", len(list.RevokedCertificateEntries))
	}
}

func readCRL(t *testing.T, i *Issuer) *x509.RevocationList {
	t.Helper()
	der, err := i.CRL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(i.cert); err != nil {
		t.Error(err)
	}
	return list
}

// opensslCRL asks openssl whether a certificate is good under the issuer's revocation list.
func opensslCRL(t *testing.T, f *fixture, i *Issuer, c Certificate, good bool) {
	t.Helper()
	der, err := i.CRL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	crl := write("crl", string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})))
	out, err := exec.Command("openssl", "verify", "-attime", big.NewInt(f.now().Unix()).String(), "-crl_check", "-CRLfile", crl,
		"-CAfile", write("root", c.Root), "-untrusted", write("chain", c.Chain), write("leaf", c.Leaf)).CombinedOutput()
	if good != (err == nil) || !good && !strings.Contains(string(out), "revoked") {
		t.Errorf("openssl says %v\n%s", err, out)
	}
}

func TestAgentIdentity(t *testing.T) {
	f := newFixture(t, t.TempDir())
	agents, err := f.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := enrol.Identity{Node: "n1", Incarnation: "0a1b"}
	c, err := agents.Issue(t.Context(), Request{CSR: newCSR(t, newKey(t), &x509.CertificateRequest{}), Profile: profiles.Agent, Owner: "n1", Subject: "n1", URI: id.URI()})
	if err != nil {
		t.Fatal(err)
	}
	leaf := parse(t, c.Leaf)
	if got, err := enrol.IdentityOf(leaf); err != nil || got != id || !c.NotAfter.Equal(t0.Add(24*time.Hour)) {
		t.Errorf("identity %v until %s, %v", got, c.NotAfter, err)
	}
	clients := x509.VerifyOptions{Roots: agents.Pool(), CurrentTime: t0, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := leaf.Verify(clients); err != nil {
		t.Error(err)
	}
	member, err := f.cluster(t, "demo").Issue(t.Context(), Request{CSR: newCSR(t, newKey(t), &x509.CertificateRequest{}), Profile: profiles.Client, Subject: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	clients.Intermediates = pool(t, member.Chain)
	if _, err := parse(t, member.Leaf).Verify(clients); err == nil {
		t.Error("a cluster's client passes for an agent")
	}
}

func TestListener(t *testing.T) {
	f := newFixture(t, t.TempDir())
	l, err := f.Listener(t.Context(), []string{"127.0.0.1", "engine.lab"})
	if err != nil {
		t.Fatal(err)
	}
	handshake := func() []*x509.Certificate {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		done := make(chan error, 1)
		go func() {
			done <- tls.Server(b, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: l.GetCertificate, Time: f.now, SessionTicketsDisabled: true}).Handshake()
		}()
		c := tls.Client(a, &tls.Config{RootCAs: pool(t, f.RootPEM()), ServerName: "127.0.0.1", Time: f.now})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().PeerCertificates
	}
	first := handshake()
	if len(first) != 3 || keyID(first[2]) != f.Pin() {
		t.Fatalf("%d certificates were sent; want three, the root last", len(first))
	}
	f.add(19 * 24 * time.Hour)
	if same := handshake(); !same[0].Equal(first[0]) {
		t.Error("renewed too early")
	}
	f.add(2 * 24 * time.Hour)
	if renewed := handshake(); renewed[0].Equal(first[0]) {
		t.Error("not renewed with a third of its life left")
	}
}

func TestLedgerSurvivesATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	one := Issued{Issuer: "a", Serial: "1", Owner: "o", NotAfter: t0}
	if err := l.Record(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(t.Context(), one); err == nil {
		t.Error("one serial was recorded twice")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, `{"issued":{"iss`...), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = OpenLedger(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(t.Context(), Issued{Issuer: "a", Serial: "2", Owner: "o", NotAfter: t0}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = OpenLedger(path); err != nil {
		t.Fatal(err)
	}
	if list, err := l.Issued(t.Context(), "a", "o", t0.Add(-1)); err != nil || len(list) != 2 {
		t.Errorf("ledger %v, %v", list, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("rubbish\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLedger(path); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("damage in the middle: %v", err)
	}
}

func FuzzParseCSR(f *testing.F) {
	der := newCSR(f, newKey(f), &x509.CertificateRequest{DNSNames: []string{"a"}})
	f.Add(der)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseCSR(data); err == nil && r.CheckSignature() != nil {
			t.Error("accepted without its own signature")
		}
	})
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"n1.demo.lab", "10.0.0.1", "::1", "a@b", "/x", "*.x", "-a", "a..b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckName(s) == nil && strings.ContainsAny(s, "@/* %ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Errorf("%q passes", s)
		}
	})
}
