package enrol

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var t0 = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// connection makes a TLS 1.3 connection and gives both ends' bindings.
func connection(t *testing.T, version uint16) (client, server tls.ConnectionState) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"engine"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := tls.Client(a, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	s := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MaxVersion: version})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if version == tls.VersionTLS13 { // the session ticket has to go somewhere
		go func() { _, _ = c.Read(make([]byte, 1)) }()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState(), s.ConnectionState()
}

func TestRequestOverTLS(t *testing.T) {
	client, server := connection(t, tls.VersionTLS13)
	atClient, err := BindingOf(client)
	if err != nil {
		t.Fatal(err)
	}
	atServer, err := BindingOf(server)
	if err != nil || atClient != atServer {
		t.Fatalf("bindings %x and %x, error %v: want one", atClient, atServer, err)
	}
	_, elsewhere := connection(t, tls.VersionTLS13)
	other, err := BindingOf(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	old, _ := connection(t, tls.VersionTLS12)
	if _, err := BindingOf(old); err == nil || !strings.Contains(err.Error(), "TLS 1.2") {
		t.Errorf("BindingOf(TLS 1.2) = %v, want a refusal", err)
	}

	secret := []byte("0123456789abcdef")
	boot := BootID{1}
	r, err := NewRequest(newKey(t), atClient, Draft{Boot: boot, Incarnation: "i1", Secret: secret, Now: t0, Facts: json.RawMessage(`{"memory":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	wire, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(wire), string(secret)) {
		t.Error("the secret is on the wire")
	}
	if r, err = ParseRequest(wire); err != nil {
		t.Fatal(err)
	}
	changed := func(f func(*Request)) Request { c := r; f(&c); return c }
	anotherKeys, err := NewRequest(newKey(t), atClient, Draft{Boot: boot, Incarnation: "i1", Secret: secret, Now: t0})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		request Request
		binding Binding
		secret  []byte
		vouched bool
		reason  Reason
	}{
		{name: "good", request: r, binding: atServer, secret: secret, vouched: true},
		{name: "voucher nobody knows", request: r, binding: atServer},
		{name: "no voucher", request: changed(func(r *Request) { r.Voucher = nil }), binding: atServer, secret: secret},
		{name: "replayed on another connection", request: r, binding: other, secret: secret, reason: BadSignature},
		{name: "other boot id", request: changed(func(r *Request) { r.Boot = BootID{2} }), binding: atServer, reason: BadSignature},
		{name: "no boot id", request: changed(func(r *Request) { r.Boot = BootID{} }), binding: atServer, reason: BadRequest},
		{name: "signature by another key", request: changed(func(r *Request) { r.CSR = anotherKeys.CSR }), binding: atServer, reason: BadSignature},
		{name: "voucher of another key", request: changed(func(r *Request) { r.Voucher = anotherKeys.Voucher }), binding: atServer, secret: secret, reason: BadVoucher},
		{name: "wrong secret", request: r, binding: atServer, secret: []byte("fedcba9876543210"), reason: BadVoucher},
		{name: "empty secret on the engine", request: r, binding: atServer, secret: []byte{}, reason: BadVoucher},
		{name: "damaged CSR", request: changed(func(r *Request) { r.CSR = r.CSR[1:] }), binding: atServer, reason: BadRequest},
		{name: "incarnation with a slash", request: changed(func(r *Request) { r.Incarnation = "a/b" }), binding: atServer, reason: BadRequest},
		{name: "Ed25519", request: changed(func(r *Request) { r.CSR = ed25519CSR(t) }), binding: atServer, reason: BadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := tc.request.Verify(tc.binding, tc.secret)
			var proof *ProofError
			if tc.reason != "" {
				if !errors.As(err, &proof) || proof.Reason != tc.reason {
					t.Fatalf("error %v, want reason %s", err, tc.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Vouched != tc.vouched || p.Key != IDOf(p.SPKI) || p.Fingerprint != Fingerprint(p.SPKI) || p.Boot != boot {
				t.Errorf("proven %+v", p)
			}
		})
	}
}

func ed25519CSR(t *testing.T) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestNewRequestRefuses(t *testing.T) {
	if _, err := NewRequest(newKey(t), Binding{}, Draft{Boot: BootID{1}, Incarnation: "I"}); err == nil {
		t.Error("an incarnation in capitals was taken")
	}
	if _, err := NewRequest(newKey(t), Binding{}, Draft{Boot: BootID{1}, Incarnation: "i", Secret: []byte("short")}); err == nil {
		t.Error("a short secret was taken")
	}
}

func TestFingerprint(t *testing.T) {
	// By Python's hashlib.pbkdf2_hmac: consoles of running machines show it, so it must not change.
	if got := Fingerprint([]byte("joist")); got != "PRSYW48R" {
		t.Errorf("Fingerprint = %s", got)
	}
	for typed, want := range map[string]string{
		"K7QF2M9P": "K7QF2M9P", "k7qf-2m9p": "K7QF2M9P", "K7QF 2M9P": "K7QF2M9P", "oil00000": "01100000",
		"K7QF2M9": "", "K7QF2M9PP": "", "K7QF2M9U": "", "": "", "K7QF2M9é": "",
	} {
		got, err := ParseFingerprint(typed)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseFingerprint(%q) = %q, %v; want %q", typed, got, err, want)
		}
	}
}

func TestLevels(t *testing.T) {
	if !(0 < Claimed && Claimed < Approved && Approved < Vouched && Vouched < Attested) {
		t.Error("levels are out of order")
	}
	for l := Claimed; l <= Attested; l++ {
		if got, err := ParseLevel(l.String()); got != l || err != nil {
			t.Errorf("ParseLevel(%s) = %v, %v", l, got, err)
		}
	}
	if _, err := ParseLevel(""); err == nil {
		t.Error("the empty level was read")
	}
}

func TestIdentity(t *testing.T) {
	id := Identity{Node: "rack1-n2", Incarnation: "0a1b"}
	if got, err := ParseIdentity(id.URI().String()); got != id || err != nil {
		t.Errorf("ParseIdentity(%s) = %v, %v", id.URI(), got, err)
	}
	for _, bad := range []string{
		"", "joist://node/", "joist://node/n1", "joist://node/n1/", "joist://node//i", "joist://node/n1/i/x", "joist://node/N1/i",
		"joist://node/-n/i", "joist://other/n1/i", "spiffe://node/n1/i", "joist://node/n1/i?x", "joist://node/n1/%41",
	} {
		if got, err := ParseIdentity(bad); err == nil {
			t.Errorf("ParseIdentity(%q) = %v", bad, got)
		}
	}
}

func TestMachineJSON(t *testing.T) {
	m := Machine{Name: "n1"}
	for _, e := range []Event{
		{Kind: BootIssued, Machine: "n1", Boot: BootID{1}, MAC: "52:54:00:00:00:01", At: t0},
		{Kind: Accepted, Machine: "n1", Boot: BootID{1}, Key: "k", Fingerprint: "AAAAAAAA", Level: Vouched, Incarnation: "i", At: t0},
	} {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back Event
		if err := json.Unmarshal(text, &back); err != nil || back != e {
			t.Fatalf("%s read back as %+v: %v", text, back, err)
		}
		m = Fold(m, back)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back Machine
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, back); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"boot":"01000000000000000000000000000000","csr":"MIH=","incarnation":"i","time":"2026-12-01T12:00:00Z","signature":""}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"boot":"zz"}`))
	f.Add([]byte(`{"facts":{"a":[1,2]}}{}`))
	if key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
		if r, err := NewRequest(key, Binding{}, Draft{Boot: BootID{1}, Incarnation: "i", Now: t0}); err == nil {
			if text, err := json.Marshal(r); err == nil {
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRequest(data)
		if err != nil {
			return
		}
		if p, err := r.Verify(Binding{}, []byte("0123456789abcdef")); err == nil && (p.Boot == BootID{} || p.Key == "" || !ValidIncarnation(p.Incarnation)) {
			t.Errorf("proven without boot id, key or incarnation: %+v", p)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte(`{"outcome":"pending","level":"claimed","now":"2026-12-01T12:00:00Z","retry_after":2}`))
	f.Add([]byte(`{"level":"emperor"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseReply(data); err == nil {
			if r.Level < 0 || r.Level > Attested {
				t.Errorf("level %d", r.Level)
			}
		}
	})
}

func FuzzParseText(f *testing.F) {
	for _, s := range []string{"", "K7QF-2M9P", "joist://node/n1/i1", "01000000000000000000000000000000", "oil00000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if fp, err := ParseFingerprint(s); err == nil {
			if again, err := ParseFingerprint(fp); err != nil || again != fp {
				t.Errorf("fingerprint %q read again as %q, %v", fp, again, err)
			}
		}
		if id, err := ParseIdentity(s); err == nil && id.URI().String() != s {
			t.Errorf("identity %q written as %q", s, id.URI())
		}
		if id, err := ParseBootID(s); err == nil && id.String() != s {
			t.Errorf("boot id %q written as %q", s, id)
		}
	})
}
