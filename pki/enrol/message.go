package enrol

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// What binds a request to its connection. Both sides use these and no others.
const (
	Magic          = "joist-enrol-1"
	ExporterLabel  = "EXPORTER-joist-enrol-1" // RFC 5705 § 4 keeps the prefix for labels of this kind
	ExporterLength = 32
)

// Limits of the messages, in octets.
const (
	MaxRequest = 512 << 10 // a whole request; nearly all of it are facts
	MaxReply   = 64 << 10
	maxCSR     = 8 << 10
)

// MinVoucher is the least length of a voucher secret, in octets.
const MinVoucher = 16

// Binding is the keying material exported from a TLS connection; both ends compute the same, and no other connection has it.
type Binding [ExporterLength]byte

// BindingOf exports the binding of a connection whose handshake is done. Below TLS 1.3 it refuses.
func BindingOf(state tls.ConnectionState) (Binding, error) {
	if state.Version != tls.VersionTLS13 {
		return Binding{}, fmt.Errorf("cannot enrol over %s: want TLS 1.3", tls.VersionName(state.Version))
	}
	material, err := state.ExportKeyingMaterial(ExporterLabel, nil, ExporterLength)
	if err != nil {
		return Binding{}, fmt.Errorf("cannot export keying material: %w", err)
	}
	return Binding(material), nil
}

// Request is what a machine posts, and posts again until it holds a certificate. The same request is answered alike.
type Request struct {
	Boot        BootID          `json:"boot"`              // from the boot script
	CSR         []byte          `json:"csr"`               // PKCS #10, DER; only its public key and signature matter
	Incarnation string          `json:"incarnation"`       // see ValidIncarnation
	MAC         string          `json:"mac,omitempty"`     // of the boot interface, "52:54:00:12:34:56"
	UUID        string          `json:"uuid,omitempty"`    // SMBIOS system UUID, lower case
	Time        time.Time       `json:"time"`              // the machine's clock
	Facts       json.RawMessage `json:"facts,omitempty"`   // JSON object, not interpreted here
	Signature   []byte          `json:"signature"`         // ECDSA, ASN.1
	Voucher     []byte          `json:"voucher,omitempty"` // HMAC; absent without a voucher secret
	Agent       string          `json:"agent,omitempty"`   // the agent's version, for people
}

// Reply is the engine's answer to a Request.
type Reply struct {
	Outcome     Outcome   `json:"outcome"`
	Reason      Reason    `json:"reason,omitempty"`
	Message     string    `json:"message,omitempty"`     // one sentence for the console
	Fingerprint string    `json:"fingerprint,omitempty"` // of the machine's key, as the engine sees it
	Level       Level     `json:"level,omitempty"`
	Node        string    `json:"node,omitempty"`        // the machine's name
	Certificate string    `json:"certificate,omitempty"` // PEM, leaf first, then its chain; with outcomes accept and same
	Root        string    `json:"root,omitempty"`        // PEM
	Now         time.Time `json:"now"`                   // the engine's clock; with reason "clock" the machine sets its own by it
	RetryAfter  int       `json:"retry_after,omitempty"` // seconds until asking again is useful; 0 for never
}

// Draft is what a machine wants to enrol with.
type Draft struct {
	Boot        BootID
	Incarnation string
	MAC, UUID   string
	Facts       json.RawMessage
	Secret      []byte // voucher secret; nil for none. It is not sent
	Agent       string
	Now         time.Time // the machine's clock
}

// NewRequest signs a draft with the machine's key, for the connection with this binding. The randomness of ECDSA and
// of the CSR comes from crypto/rand.
func NewRequest(key crypto.Signer, binding Binding, d Draft) (Request, error) {
	spki, err := spkiOf(key.Public())
	if err != nil {
		return Request{}, err
	}
	if !ValidIncarnation(d.Incarnation) {
		return Request{}, fmt.Errorf("cannot enrol with incarnation %.80q: want 1 to 64 of a-z, 0-9 and hyphen", d.Incarnation)
	}
	if d.Secret != nil && len(d.Secret) < MinVoucher {
		return Request{}, fmt.Errorf("cannot use a voucher secret of %d octets: want at least %d", len(d.Secret), MinVoucher)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return Request{}, fmt.Errorf("cannot make a certificate request: %w", err)
	}
	message := message(binding, d.Boot)
	digest := sha256.Sum256(message)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return Request{}, fmt.Errorf("cannot sign the enrolment: %w", err)
	}
	r := Request{
		Boot: d.Boot, CSR: csr, Incarnation: d.Incarnation, MAC: d.MAC, UUID: d.UUID, Time: d.Now.UTC(),
		Facts: d.Facts, Signature: signature, Agent: d.Agent,
	}
	if d.Secret != nil {
		r.Voucher = voucher(d.Secret, message, spki)
	}
	return r, nil
}

// ParseRequest reads a request of at most MaxRequest octets. Unknown fields and anything after the object are errors.
func ParseRequest(data []byte) (Request, error) {
	var r Request
	if err := decode(data, MaxRequest, &r); err != nil {
		return Request{}, fmt.Errorf("cannot read enrolment request: %w", err)
	}
	return r, nil
}

// ParseReply reads a reply of at most MaxReply octets.
func ParseReply(data []byte) (Reply, error) {
	var r Reply
	if err := decode(data, MaxReply, &r); err != nil {
		return Reply{}, fmt.Errorf("cannot read enrolment reply: %w", err)
	}
	return r, nil
}

// Proven is a request whose proofs hold: Verify makes it, and nothing else should.
type Proven struct {
	Boot        BootID
	Key         KeyID
	SPKI        []byte // SubjectPublicKeyInfo, DER: what the certificate will certify
	Fingerprint string
	Incarnation string
	MAC         string
	UUID        string
	Time        time.Time // the machine's clock
	Vouched     bool      // it proved the voucher secret
}

// ProofError reports a request that does not prove what it claims. It is answered and forgotten: it changes no state.
type ProofError struct {
	Reason Reason
	Err    error
}

// Error implements error.
func (e *ProofError) Error() string { return "cannot accept the enrolment: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *ProofError) Unwrap() error { return e.Err }

// Verify checks the proofs of a request that came over the connection with this binding. Secret is the voucher secret
// that the site knows for the machine of the boot id, nil for none; a voucher is then not looked at. Every error is a
// *ProofError.
func (r Request) Verify(binding Binding, secret []byte) (Proven, error) {
	csr, err := r.csr()
	if err != nil {
		return Proven{}, &ProofError{BadRequest, err}
	}
	spki, err := spkiOf(csr.PublicKey)
	if err != nil {
		return Proven{}, &ProofError{BadRequest, err}
	}
	message := message(binding, r.Boot)
	digest := sha256.Sum256(message)
	if !ecdsa.VerifyASN1(csr.PublicKey.(*ecdsa.PublicKey), digest[:], r.Signature) {
		return Proven{}, &ProofError{BadSignature, errors.New("its signature does not match this connection, boot id and key")}
	}
	vouched := secret != nil && r.Voucher != nil
	if vouched && (len(secret) < MinVoucher || !hmac.Equal(r.Voucher, voucher(secret, message, spki))) {
		return Proven{}, &ProofError{BadVoucher, errors.New("its voucher does not match the secret that was given to the machine")}
	}
	return Proven{
		Boot: r.Boot, Key: IDOf(spki), SPKI: spki, Fingerprint: Fingerprint(spki), Incarnation: r.Incarnation,
		MAC: r.MAC, UUID: r.UUID, Time: r.Time, Vouched: vouched,
	}, nil
}

// csr parses and checks what can be checked without the connection.
func (r Request) csr() (*x509.CertificateRequest, error) {
	if r.Boot == (BootID{}) {
		return nil, errors.New("it has no boot id")
	}
	if !ValidIncarnation(r.Incarnation) {
		return nil, fmt.Errorf("its incarnation is %.80q: want 1 to 64 of a-z, 0-9 and hyphen", r.Incarnation)
	}
	if len(r.CSR) > maxCSR {
		return nil, fmt.Errorf("its certificate request has %d octets, more than %d", len(r.CSR), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, fmt.Errorf("its certificate request cannot be read: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("its certificate request is not signed by its own key: %w", err)
	}
	return csr, nil
}

// message is what the key signs.
func message(binding Binding, boot BootID) []byte {
	out := make([]byte, 0, len(Magic)+len(binding)+len(boot))
	out = append(out, Magic...)
	out = append(out, binding[:]...)
	return append(out, boot[:]...)
}

// voucher proves knowledge of the secret for this message and key.
func voucher(secret, message, spki []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(message)
	mac.Write(spki)
	return mac.Sum(nil)
}

func decode(data []byte, limit int, into any) error {
	if len(data) > limit {
		return fmt.Errorf("it has %d octets, more than %d", len(data), limit)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}
