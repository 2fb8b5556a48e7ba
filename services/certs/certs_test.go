package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/entries"
	"joist/engine/step"
	"joist/pki/authority"
)

var t0 = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// inventory is a table of what each "cluster/node" may be called.
type inventory map[string][]string

func (i inventory) Allowed(_ context.Context, cluster, node string, names []string) error {
	may, ok := i[cluster+"/"+node]
	if !ok {
		return fmt.Errorf("cluster %s has no node %q", cluster, node)
	}
	for _, name := range names {
		if !slices.Contains(may, name) {
			return fmt.Errorf("%s is no name of %s in cluster %s; give it the name with a names step first", name, node, cluster)
		}
	}
	return nil
}

type fixture struct {
	*Service
	store *entries.Memory
	now   time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{store: &entries.Memory{}, now: t0}
	clock := func() time.Time { return f.now }
	dir := t.TempDir()
	vault, err := authority.OpenFolder(filepath.Join(dir, "keys"), "")
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := authority.OpenLedger(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	a, err := authority.Open(t.Context(), authority.Config{Vault: vault, Ledger: ledger, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	f.Service, err = New(Config{Authority: a, Store: f.store, Now: clock, Inventory: inventory{
		"demo/n1": {"n1.demo.lab", "etcd.demo.lab", "10.0.0.1"}, "demo/n2": {"n2.demo.lab", "etcd.demo.lab"}, "demo/": nil,
		"other/m1": {"m1.other.lab"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newCSR(t testing.TB, names ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func (f *fixture) call(t *testing.T, action step.Action, node string, in inputs) (step.Result, error) {
	t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cluster := "demo"
	if strings.HasPrefix(node, "m") {
		cluster = "other"
	}
	return f.Handlers()[callSign].Call(t.Context(), step.Call{
		Name: callSign, Action: action, Cluster: cluster, Owner: cluster + "/cert[" + node + "]", Node: node, Epoch: 1, Inputs: raw,
	})
}

func leafOf(t *testing.T, r step.Result) (*x509.Certificate, authority.Certificate) {
	t.Helper()
	var out outputs
	if err := json.Unmarshal(r.Outputs, &out); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(out.Certificate.Leaf))
	if block == nil {
		t.Fatalf("no leaf in %s", r.Outputs)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert, out.Certificate
}

func TestSign(t *testing.T) {
	f := newFixture(t)
	in := inputs{CSR: newCSR(t, "evil.lab"), Profile: "peer", Names: []string{"n1.demo.lab", "etcd.demo.lab", "10.0.0.1"}}
	r, err := f.call(t, step.Apply, "n1", in)
	if err != nil {
		t.Fatal(err)
	}
	leaf, certificate := leafOf(t, r)
	roots, chain := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate.Root))
	chain.AppendCertsFromPEM([]byte(certificate.Chain))
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "etcd.demo.lab", Roots: roots, Intermediates: chain, CurrentTime: t0}); err != nil {
		t.Error(err)
	}
	if !r.ValidUntil.Equal(leaf.NotAfter) || leaf.VerifyHostname("evil.lab") == nil || leaf.Subject.CommonName != "n1.demo.lab" {
		t.Errorf("valid until %s, certificate until %s for %v", r.ValidUntil, leaf.NotAfter, leaf.DNSNames)
	}
	list, version, err := f.store.List(t.Context(), entries.Scope{Service: table, Cluster: "demo"})
	if err != nil || len(list) != 1 || list[0].Key != "serial/"+leaf.SerialNumber.Text(16) {
		t.Errorf("entries %v, %v", list, err)
	}

	// A repeated attempt yields the same; a late one renews, without revoking.
	f.now = t0.Add(9 * 24 * time.Hour)
	again, err := f.call(t, step.Apply, "n1", in)
	if same, _ := leafOf(t, again); err != nil || !same.Equal(leaf) {
		t.Errorf("another certificate for the same request, %v", err)
	}
	if _, v, err := f.store.List(t.Context(), entries.Scope{Service: table}); err != nil || v != version {
		t.Errorf("the table's version went from %d to %d, %v", version, v, err)
	}
	if _, err := f.call(t, step.Verify, "n1", in); err != nil {
		t.Error(err)
	}
	f.Service, err = New(f.cfg) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	if restarted, err := f.call(t, step.Apply, "n1", in); err != nil || string(restarted.Outputs) != string(r.Outputs) {
		t.Errorf("after a restart %s, %v", restarted.Outputs, err)
	}
	f.now = t0.Add(20 * 24 * time.Hour)
	renewed, err := f.call(t, step.Apply, "n1", in)
	if other, _ := leafOf(t, renewed); err != nil || other.Equal(leaf) || !renewed.ValidUntil.After(r.ValidUntil) {
		t.Errorf("not renewed, %v", err)
	}
	if n := len(f.revoked(t)); n != 0 {
		t.Errorf("renewing revoked %d", n)
	}
	if list, _, err := f.store.List(t.Context(), entries.Scope{Service: table}); err != nil || len(list) != 1 {
		t.Errorf("%d entries after renewal, %v", len(list), err)
	}
}

func (f *fixture) revoked(t *testing.T) map[string]bool {
	t.Helper()
	der, err := f.CRL(t.Context(), "demo", "")
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]bool{}
	for _, e := range list.RevokedCertificateEntries {
		serials[e.SerialNumber.Text(16)] = true
	}
	return serials
}

func TestRemoveRevokesAndRestoresTheDigest(t *testing.T) {
	f := newFixture(t)
	digest := func() string {
		list, _, err := f.store.List(t.Context(), entries.Scope{Service: table})
		if err != nil {
			t.Fatal(err)
		}
		return entries.Digest(list)
	}
	one := inputs{CSR: newCSR(t), Profile: "peer", Names: []string{"n1.demo.lab"}}
	if _, err := f.call(t, step.Apply, "n1", one); err != nil {
		t.Fatal(err)
	}
	before := digest()
	two := inputs{CSR: newCSR(t), Profile: "peer", Names: []string{"n2.demo.lab"}}
	var serials []string
	for range 2 {
		r, err := f.call(t, step.Apply, "n2", two)
		if err != nil {
			t.Fatal(err)
		}
		leaf, _ := leafOf(t, r)
		serials = append(serials, leaf.SerialNumber.Text(16))
		f.now = f.now.Add(15 * 24 * time.Hour)
	}
	if serials[0] == serials[1] || digest() == before {
		t.Fatal("no second certificate")
	}
	f.now = f.now.Add(-16 * 24 * time.Hour)
	for range 2 { // removing is safe to repeat
		if _, err := f.call(t, step.Remove, "n2", two); err != nil {
			t.Fatal(err)
		}
	}
	revoked := f.revoked(t)
	if len(revoked) != 2 || !revoked[serials[0]] || !revoked[serials[1]] {
		t.Errorf("revoked %v, want %v", revoked, serials)
	}
	if digest() != before {
		t.Error("the digest is not what it was")
	}
	if _, err := f.call(t, step.Verify, "n2", two); err == nil {
		t.Error("a removed certificate verifies")
	}
}

func TestSignRefuses(t *testing.T) {
	f := newFixture(t)
	csr := newCSR(t)
	if _, err := f.call(t, step.Apply, "n1", inputs{CSR: csr, Profile: "client"}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		node string
		in   inputs
		want string
	}{
		"another node's name":    {"n1", inputs{CSR: newCSR(t), Profile: "peer", Names: []string{"n2.demo.lab"}}, "n2.demo.lab is no name of n1"},
		"another cluster's name": {"m1", inputs{CSR: newCSR(t), Profile: "peer", Names: []string{"etcd.demo.lab"}}, "no name of m1"},
		"unknown node":           {"n9", inputs{CSR: newCSR(t), Profile: "client"}, "no node"},
		"agent's profile":        {"n1", inputs{CSR: newCSR(t), Profile: "agent"}, "not for steps"},
		"no name":                {"n1", inputs{CSR: newCSR(t), Profile: "server"}, "at least one name"},
		"wildcard":               {"n1", inputs{CSR: newCSR(t), Profile: "peer", Names: []string{"*.demo.lab"}}, "cannot certify"},
		"not a CSR":              {"n1", inputs{CSR: "x", Profile: "peer"}, "cannot read certificate request"},
		"another node's key":     {"n2", inputs{CSR: csr, Profile: "client"}, "make a new key"},
		"another cluster's key":  {"m1", inputs{CSR: csr, Profile: "client"}, "make a new key"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := f.call(t, step.Apply, tc.node, tc.in); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
	for _, raw := range []string{`{"csr":"x","profile":"peer","names":[],"extra":1}`, `[]`, ``, `{}{}`} {
		if _, err := f.sign(t.Context(), step.Call{Name: callSign, Action: step.Apply, Cluster: "demo", Inputs: json.RawMessage(raw)}); err == nil {
			t.Errorf("inputs %s were taken", raw)
		}
	}
	if list, _, err := f.store.List(t.Context(), entries.Scope{Service: table}); err != nil || len(list) != 1 {
		t.Errorf("refusals left %d entries, %v", len(list), err)
	}
}

func TestStaleEpoch(t *testing.T) {
	f := newFixture(t)
	call := step.Call{Name: callSign, Action: step.Apply, Cluster: "demo", Owner: "demo/cert[n1]", Node: "n1", Epoch: 2}
	call.Inputs, _ = json.Marshal(inputs{CSR: newCSR(t), Profile: "client"})
	if _, err := f.sign(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	call.Epoch = 1
	call.Inputs, _ = json.Marshal(inputs{CSR: newCSR(t), Profile: "client"})
	if r, err := f.sign(t.Context(), call); err == nil || r.Outputs != nil {
		t.Errorf("a superseded controller signed: %s, %v", r.Outputs, err)
	}
	call.Action = step.Remove
	if _, err := f.sign(t.Context(), call); err == nil || len(f.revoked(t)) != 0 {
		t.Errorf("a superseded controller revoked: %v", err)
	}
}

func TestOperator(t *testing.T) {
	f := newFixture(t)
	c, err := f.Operator(t.Context(), "demo", Person{CSR: []byte(newCSR(t, "etcd.demo.lab"))})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(c.Leaf))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Subject.CommonName != "operator" || len(leaf.DNSNames) != 0 || !leaf.NotAfter.Equal(t0.Add(OperatorValidity)) ||
		!slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("certificate for %s %v until %s for %v", leaf.Subject, leaf.DNSNames, leaf.NotAfter, leaf.ExtKeyUsage)
	}
	if _, err := f.Operator(t.Context(), "nowhere", Person{CSR: []byte(newCSR(t))}); err == nil {
		t.Error("a cluster that does not exist has an operator")
	}
	if list, _, err := f.store.List(t.Context(), entries.Scope{Service: table}); err != nil || len(list) != 0 {
		t.Errorf("entries %v, %v", list, err)
	}
}

// Each named authority of a cluster signs itself and nothing else, so what trusts it trusts neither another one of the
// cluster nor the cluster's own.
func TestNamedAuthorities(t *testing.T) {
	f := newFixture(t)
	made := map[string]authority.Certificate{}
	for _, name := range []string{"", "etcd", "kubernetes"} {
		r, err := f.call(t, step.Apply, "n1", inputs{
			CSR: newCSR(t), Profile: "client", Authority: name, CommonName: "kube-apiserver", Groups: []string{"joist:operators"},
		})
		if err != nil {
			t.Fatal(err)
		}
		leaf, cert := leafOf(t, r)
		if leaf.Subject.CommonName != "kube-apiserver" || !slices.Equal(leaf.Subject.Organization, []string{"joist:operators"}) {
			t.Errorf("%q certified %s", name, leaf.Subject)
		}
		if (cert.Chain == cert.Root) != (name != "") {
			t.Errorf("%q: chain and root are the same: %t", name, cert.Chain == cert.Root)
		}
		made[name] = cert
		for other, o := range made {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM([]byte(o.Chain))
			_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: t0, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if (err == nil) != (other == name) {
				t.Errorf("authority %q vouches for a leaf of %q: %v", other, name, err)
			}
		}
	}
	again, err := f.call(t, step.Apply, "n1", inputs{CSR: newCSR(t), Profile: "client", Authority: "etcd"})
	if err != nil {
		t.Fatal(err)
	}
	if _, cert := leafOf(t, again); cert.Root != made["etcd"].Root {
		t.Error("the authority was made a second time")
	}
	for _, bad := range []string{"Etcd", "a.b", "../x", strings.Repeat("x", 40)} {
		if _, err := f.call(t, step.Apply, "n1", inputs{CSR: newCSR(t), Profile: "client", Authority: bad}); err == nil {
			t.Errorf("authority %q was made", bad)
		}
	}
}

// A node's certificate makes it itself: what Kubernetes' node authorizer would take for another node is refused.
func TestNodesCertifyThemselvesOnly(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct {
		name   string
		groups []string
		ok     bool
	}{
		{"system:node:n1", []string{"system:nodes"}, true},
		{"system:node:n2", []string{"system:nodes"}, false},
		{"system:node:n1", []string{"system:nodes", "system:masters"}, false},
		{"system:node:n1", nil, false},
		{"system:kube-proxy", []string{"system:nodes"}, false},
		{"", []string{"system:nodes"}, false},
	} {
		_, err := f.call(t, step.Apply, "n1", inputs{CSR: newCSR(t), Profile: "client", Authority: "kubernetes", CommonName: test.name, Groups: test.groups})
		if (err == nil) != test.ok {
			t.Errorf("%q of %q: %v", test.name, test.groups, err)
		}
	}
	if _, err := f.Operator(t.Context(), "demo", Person{CSR: []byte(newCSR(t)), Groups: []string{"system:nodes"}}); err == nil {
		t.Error("a person was certified as a node")
	}
}

func FuzzInputs(f *testing.F) {
	good, err := json.Marshal(inputs{CSR: newCSR(f), Profile: "peer", Names: []string{"a.lab"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"csr":"","profile":"peer"}`))
	f.Add([]byte(`{"names":[1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, _, err := check(step.Call{Inputs: data})
		if err == nil && (v.Key == "" || slices.ContainsFunc(v.Names, func(n string) bool { return authority.CheckName(n) != nil })) {
			t.Errorf("accepted %+v", v)
		}
	})
}
