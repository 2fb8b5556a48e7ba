package authority

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"sync"
	"time"

	"joist/pki/profiles"
)

// CRLValidity is how long a revocation list may be used from the time it is made; a new one is made when half of it has passed.
const CRLValidity = 24 * time.Hour

// Request asks for a certificate. Names and use come from it alone; of the CSR only the key counts.
type Request struct {
	CSR      []byte        // PKCS #10, DER or PEM
	Profile  string        // a name of package profiles
	Owner    string        // on whose behalf, for the record
	Subject  string        // common name; empty or at most 64 octets
	Groups   []string      // organizations of the subject, each at most 64 octets
	Names    []string      // DNS names and addresses, see CheckName
	URI      *url.URL      // for profiles that carry one
	Validity time.Duration // at most; 0 for the profile's
}

// Certificate is what was issued, in PEM: the `certificate` of steps.
type Certificate struct {
	Leaf  string `json:"leaf"`
	Chain string `json:"chain"` // the issuer: the intermediate, or the named authority; whoever accepts this cluster alone trusts it
	Root  string `json:"root"`  // the same as the chain for a named authority, which signs itself

	Serial    string    `json:"-"` // lower-case hexadecimal
	NotBefore time.Time `json:"-"`
	NotAfter  time.Time `json:"-"`
}

// Issuer is a CA that issues certificates.
type Issuer struct {
	name   string
	cert   *x509.Certificate
	key    crypto.Signer
	parent *Issuer // nil for one that signed itself
	leaves bool    // it issues leaves; the root does not
	cfg    Config

	mu      sync.Mutex // guards the cached revocation list
	crl     []byte
	crlMade time.Time
	crlSize int
}

// open checks that certificate and key belong together and to the parent.
func open(name string, m Material, parent *Issuer, cfg Config) (*Issuer, error) {
	block, _ := pem.Decode(m.Certificate)
	if block == nil {
		return nil, errors.New("its certificate is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("its certificate cannot be read: %w", err)
	}
	key, err := parseKey(m.Key)
	if err != nil {
		return nil, err
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("its key does not belong to its certificate")
	}
	signer := cert
	if parent != nil {
		signer = parent.cert
	}
	if err := cert.CheckSignatureFrom(signer); err != nil {
		return nil, fmt.Errorf("its certificate is not signed by %s: %w", signer.Subject.CommonName, err)
	}
	return &Issuer{name: name, cert: cert, key: key, parent: parent, cfg: cfg}, nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("its key is not PEM")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its key cannot be read") // the cause could quote the key
	}
	if key, ok := key.(*ecdsa.PrivateKey); ok {
		return key, nil
	}
	return nil, fmt.Errorf("its key is of type %T, not ECDSA", key)
}

// Name gives the issuer's name, such as "cluster-demo".
func (i *Issuer) Name() string { return i.name }

// Certificate gives the issuer's own certificate.
func (i *Issuer) Certificate() *x509.Certificate { return i.cert }

// Pool gives the pool that trusts this issuer and nobody else.
func (i *Issuer) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(i.cert)
	return pool
}

// With gives a leaf that this issuer issued, in PEM, together with its chain and root.
func (i *Issuer) With(leaf string) Certificate {
	c := Certificate{Leaf: leaf, Chain: encode(i.cert), Root: encode(i.cert)}
	if i.parent != nil {
		c.Root = encode(i.parent.cert)
	}
	return c
}

// ParseCSR reads a certificate request in DER or PEM and checks that its own key signed it.
func ParseCSR(data []byte) (*x509.CertificateRequest, error) {
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("cannot read certificate request: it is PEM of type %.40q, or followed by something", block.Type)
		}
		data = block.Bytes
	}
	request, err := x509.ParseCertificateRequest(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read certificate request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("cannot accept certificate request: its own key did not sign it: %w", err)
	}
	switch key := request.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return request, nil
		}
	case *rsa.PublicKey:
		if key.N.BitLen() >= 2048 {
			return request, nil
		}
	}
	return nil, fmt.Errorf("cannot accept certificate request: its key is a %s key of an unsuitable size; want ECDSA on P-256 or P-384, or RSA of 2048 bits or more",
		request.PublicKeyAlgorithm)
}

// Issue signs a certificate. Its serial is in the ledger before it exists. It lives no longer than its issuer.
func (i *Issuer) Issue(ctx context.Context, r Request) (Certificate, error) {
	c, err := i.issue(ctx, r)
	if err != nil {
		return Certificate{}, fmt.Errorf("cannot issue a certificate to %s: %w", r.Owner, err)
	}
	return c, nil
}

func (i *Issuer) issue(ctx context.Context, r Request) (Certificate, error) {
	profile, err := profiles.Find(r.Profile)
	if err != nil {
		return Certificate{}, err
	}
	if !i.leaves {
		return Certificate{}, errors.New("the root signs intermediates only")
	}
	request, err := ParseCSR(r.CSR)
	if err != nil {
		return Certificate{}, err
	}
	hosts, err := hosts(profile, r)
	if err != nil {
		return Certificate{}, err
	}
	validity := profile.Validity
	if r.Validity > 0 {
		validity = min(validity, r.Validity)
	}
	notBefore, notAfter, err := i.clamp(validity)
	if err != nil {
		return Certificate{}, err
	}
	leaf, err := sign(ctx, i.cfg.Ledger, Issued{
		Issuer: i.name, Owner: r.Owner, Profile: r.Profile, Subject: r.Subject, Groups: r.Groups, Names: hosts, Key: spkiID(request.PublicKey),
		NotBefore: notBefore, NotAfter: notAfter,
	}, signRequest{
		key: i.key, cert: i.cert, policy: signingProfile(profile), hosts: hosts,
		request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request.Raw}),
	})
	if err != nil {
		return Certificate{}, err
	}
	block, _ := pem.Decode(leaf)
	if block == nil {
		return Certificate{}, errors.New("internal error: the signer gave no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Certificate{}, fmt.Errorf("internal error: the signer's certificate cannot be read: %w", err)
	}
	c := i.With(string(leaf))
	c.Serial, c.NotBefore, c.NotAfter = cert.SerialNumber.Text(16), cert.NotBefore, cert.NotAfter
	return c, nil
}

// hosts gives the names for the certificate, each checked: cfssl would take one with an @ for a mail address, and one
// with a slash for a URI. It is never nil: nil would mean the CSR's names.
func hosts(p profiles.Profile, r Request) ([]string, error) {
	switch {
	case p.URI && (r.URI == nil || len(r.Names) > 0):
		return nil, fmt.Errorf("profile %s carries one URI and no other name", p.Name)
	case p.URI:
		return []string{r.URI.String()}, nil
	case r.URI != nil:
		return nil, fmt.Errorf("profile %s carries no URI", p.Name)
	case p.Server && len(r.Names) == 0:
		return nil, fmt.Errorf("profile %s needs at least one name", p.Name)
	case len(r.Subject) > 64:
		return nil, fmt.Errorf("the common name %.80q is longer than 64 octets", r.Subject)
	case slices.ContainsFunc(r.Groups, func(g string) bool { return g == "" || len(g) > 64 }): // RFC 5280 appendix A.1
		return nil, errors.New("an organization of the subject is empty or longer than 64 octets")
	}
	out := make([]string, 0, len(r.Names))
	for _, name := range r.Names {
		if err := CheckName(name); err != nil {
			return nil, err
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// clamp gives the lifetime of a certificate issued now: within the issuer's own, and from Backdate before now.
func (i *Issuer) clamp(validity time.Duration) (notBefore, notAfter time.Time, err error) {
	now := i.cfg.Now().UTC().Truncate(time.Second)
	if now.Before(i.cert.NotBefore) || !now.Before(i.cert.NotAfter) {
		return now, now, fmt.Errorf("the authority %s is valid from %s to %s, and now it is %s",
			i.name, i.cert.NotBefore.Format(time.RFC3339), i.cert.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	notBefore, notAfter = now.Add(-Backdate), now.Add(validity)
	if notBefore.Before(i.cert.NotBefore) {
		notBefore = i.cert.NotBefore
	}
	if notAfter.After(i.cert.NotAfter) {
		notAfter = i.cert.NotAfter
	}
	return notBefore, notAfter, nil
}

// RevokeOwner revokes every certificate that this issuer issued to an owner and that has not expired. It gives their
// number; revoking again gives 0.
func (i *Issuer) RevokeOwner(ctx context.Context, owner string) (int, error) {
	now := i.cfg.Now().UTC()
	list, err := i.cfg.Ledger.Issued(ctx, i.name, owner, now)
	if err != nil {
		return 0, fmt.Errorf("cannot find the certificates of %s: %w", owner, err)
	}
	if len(list) == 0 {
		return 0, nil
	}
	revoked := make([]Revoked, 0, len(list))
	for _, c := range list {
		revoked = append(revoked, Revoked{Issuer: i.name, Serial: c.Serial, NotAfter: c.NotAfter, At: now})
	}
	if err := i.cfg.Ledger.Revoke(ctx, revoked); err != nil {
		return 0, fmt.Errorf("cannot revoke the certificates of %s: %w", owner, err)
	}
	return len(revoked), nil
}

// CRL gives the issuer's revocation list in DER (RFC 5280 § 5), with a number that grows with each list made. A list
// is made anew after a revocation and when half of its validity has passed. Certificates leave it a day after they
// expired, so each is on at least one list past its end (§ 3.3). It begins Backdate before now, as certificates do: under a
// list that has not begun yet no certificate is good at all.
func (i *Issuer) CRL(ctx context.Context) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	revoked, err := i.cfg.Ledger.Revoked(ctx, i.name)
	if err != nil {
		return nil, fmt.Errorf("cannot list the revocations of %s: %w", i.name, err)
	}
	now := i.cfg.Now().UTC().Truncate(time.Second)
	if i.crl != nil && i.crlSize == len(revoked) && now.Sub(i.crlMade) < CRLValidity/2 {
		return i.crl, nil
	}
	number, err := i.cfg.Ledger.NextCRL(ctx, i.name)
	if err != nil {
		return nil, fmt.Errorf("cannot number a revocation list of %s: %w", i.name, err)
	}
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-Backdate), NextUpdate: now.Add(CRLValidity)}
	for _, r := range revoked {
		serial, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("cannot read the serial %q among the revocations of %s", r.Serial, i.name)
		}
		if now.Sub(r.NotAfter) < CRLValidity {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: serial, RevocationTime: r.At})
		}
	}
	crl, err := x509.CreateRevocationList(rand.Reader, list, i.cert, i.key)
	if err != nil {
		return nil, fmt.Errorf("cannot sign the revocation list of %s: %w", i.name, err)
	}
	i.crl, i.crlMade, i.crlSize = crl, now, len(revoked)
	return crl, nil
}
