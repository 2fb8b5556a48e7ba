// Package authority is joist's certificate authority: a root, an intermediate for each cluster, one for agents and one
// for the engine's own listeners, and whatever further authorities a cluster names, made when first needed. Certificates are signed by cfssl's local signer under a
// profile that takes nothing from a request but its public key.
//
// # Threat model
//
// CA keys lie in the data folder, each encrypted with age to an identity that lies in a file of its own (see [Folder]).
// That keeps a key from whoever gets a single file, or a copy of the folder without the identity. It does not keep it
// from root on the engine's machine, nor from whoever copies the identity as well: put the identity on another medium
// than the backups. Keys of leaf certificates are made where they are used and never come here.
//
// All clusters share the root. Whoever must accept only certificates of one cluster trusts that cluster's intermediate
// (the chain of a certificate), not the root: an agent's certificate and another cluster's lead to the root as well.
// A named authority of a cluster signs itself, so that what trusts it trusts nothing else, whatever library it uses.
package authority

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/csr"
	"github.com/cloudflare/cfssl/initca"
	cfssllog "github.com/cloudflare/cfssl/log"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"

	"joist/pki/profiles"
)

// Lifetimes of the authority's own certificates. They are not renewed by themselves yet.
const (
	RootValidity         = 20 * 365 * 24 * time.Hour
	IntermediateValidity = 10 * 365 * 24 * time.Hour
)

// Backdate is how long before its issue a certificate becomes valid, for clocks that lag.
const Backdate = 5 * time.Minute

const rootName = "root"

// Material is a CA's certificate and private key.
type Material struct {
	Certificate []byte // PEM
	Key         []byte // PEM; secret
}

// Vault keeps the CAs' keys.
type Vault interface {
	// Load gives what was created under a name; an error that is fs.ErrNotExist if nothing was.
	Load(ctx context.Context, name string) (Material, error)
	// Create keeps material durably under a new name; an error that is fs.ErrExist if the name is taken.
	Create(ctx context.Context, name string, m Material) error
	// List gives the names of all that is kept.
	List(ctx context.Context) ([]string, error)
	// Destroy ends what is kept under a name, durably; it is no error if nothing is.
	Destroy(ctx context.Context, name string) error
}

// Issued is the record of one certificate. It is made before the certificate is.
type Issued struct {
	Issuer    string    `json:"issuer"` // name of the CA, such as "cluster-demo"
	Serial    string    `json:"serial"` // lower-case hexadecimal
	Owner     string    `json:"owner"`  // on whose behalf: the address of an instance, a node
	Profile   string    `json:"profile"`
	Subject   string    `json:"subject,omitempty"`
	Groups    []string  `json:"groups,omitempty"` // organizations of the subject
	Names     []string  `json:"names,omitempty"`
	Key       string    `json:"key"` // SHA-256 of the public key, hexadecimal
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Revoked is the record of a revocation.
type Revoked struct {
	Issuer   string    `json:"issuer"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"` // the certificate's
	At       time.Time `json:"at"`
}

// Ledger records serials and revocations. It only grows, and lies outside every digest of services.
type Ledger interface {
	// Record makes the record of a certificate durable. The certificate is signed only after it returned.
	Record(ctx context.Context, i Issued) error
	// Issued lists what an issuer issued to an owner and did not revoke, and that is valid at the time given.
	Issued(ctx context.Context, issuer, owner string, at time.Time) ([]Issued, error)
	// Revoke makes revocations durable; a serial that is revoked already stays as it is.
	Revoke(ctx context.Context, revoked []Revoked) error
	// Revoked lists the revocations of an issuer, in the order in which they came. The list is not to be changed.
	Revoked(ctx context.Context, issuer string) ([]Revoked, error)
	// NextCRL draws the issuer's next CRL number, 1 or more, durably.
	NextCRL(ctx context.Context, issuer string) (int64, error)
}

// Config is what an authority needs.
type Config struct {
	Vault  Vault            // required
	Ledger Ledger           // required
	Now    func() time.Time // required
}

// Authority is the root and what it signed. It is safe for concurrent use.
type Authority struct {
	cfg  Config
	root *Issuer

	mu      sync.Mutex // held while an intermediate is loaded or made
	issuers map[string]*Issuer
}

// quiet silences cfssl, which prints to standard error on its own; its errors are returned as well.
var quiet = sync.OnceFunc(func() { cfssllog.Level = cfssllog.LevelFatal })

// Open loads the root, or makes it when there is none yet.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	if cfg.Vault == nil || cfg.Ledger == nil || cfg.Now == nil {
		return nil, errors.New("cannot open the authority: its config lacks vault, ledger or clock")
	}
	quiet()
	a := &Authority{cfg: cfg, issuers: map[string]*Issuer{}}
	root, err := a.loadOrMake(ctx, rootName, nil, rootPath)
	if err != nil {
		return nil, err
	}
	a.root = root
	return a, nil
}

// Root gives the root's certificate.
func (a *Authority) Root() *x509.Certificate { return a.root.cert }

// RootPEM gives the root's certificate in PEM.
func (a *Authority) RootPEM() string { return encode(a.root.cert) }

// Pin gives the SHA-256 of the root's public key (SubjectPublicKeyInfo, DER) in hexadecimal, as `joist.ca` carries it.
func (a *Authority) Pin() string { return keyID(a.root.cert) }

// Cluster gives the intermediate of a cluster.
func (a *Authority) Cluster(ctx context.Context, cluster string) (*Issuer, error) {
	return a.issuer(ctx, "cluster-"+cluster)
}

// Named gives a further authority of a cluster, such as "etcd": one that signs itself and issues leaves only. An empty
// name is the cluster's intermediate.
func (a *Authority) Named(ctx context.Context, cluster, name string) (*Issuer, error) {
	if name == "" {
		return a.Cluster(ctx, cluster)
	}
	if !namedAuthority.MatchString(name) {
		return nil, fmt.Errorf("cannot make a certificate authority %.80q: want lower-case letters, digits and hyphens", name)
	}
	return a.issuer(ctx, "cluster-"+cluster+"."+name) // no cluster has a dot in its name
}

// Known gives an authority of a cluster, under the names of Named, if it was made before: asking makes none. Its error is
// fs.ErrNotExist if there is none, or its keys were destroyed.
func (a *Authority) Known(ctx context.Context, cluster, name string) (*Issuer, error) {
	whole := "cluster-" + cluster
	valid := !strings.Contains(cluster, ".") // or it would be another cluster's named authority
	if name != "" {
		whole, valid = whole+"."+name, valid && namedAuthority.MatchString(name)
	}
	if !valid || !issuerName.MatchString(whole) {
		return nil, fmt.Errorf("there is no certificate authority %.120q: %w", whole, fs.ErrNotExist)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.issuers[whole]; !ok {
		if _, err := a.cfg.Vault.Load(ctx, whole); err != nil {
			return nil, fmt.Errorf("cannot load the certificate authority %s: %w", whole, err)
		}
	}
	return a.hold(ctx, whole)
}

// RootCRL gives the root's revocation list, see Issuer.CRL. Whoever checks each certificate of a chain needs it too.
func (a *Authority) RootCRL(ctx context.Context) ([]byte, error) { return a.root.CRL(ctx) }

// Forget destroys the keys of a cluster's authorities, all of them: nothing can be certified by them any more. What the ledger
// says of their certificates stays. It may be called again.
func (a *Authority) Forget(ctx context.Context, cluster string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	names, err := a.cfg.Vault.List(ctx)
	for _, name := range names {
		if whole := "cluster-" + cluster; err == nil && (name == whole || strings.HasPrefix(name, whole+".")) { // no cluster has a dot in its name
			delete(a.issuers, name)
			err = a.cfg.Vault.Destroy(ctx, name)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot destroy the certificate authorities of cluster %s: %w", cluster, err)
	}
	return nil
}

// Agents gives the intermediate of agents. Whoever authenticates agents trusts this certificate alone, not the root,
// under which clusters issue client certificates too.
func (a *Authority) Agents(ctx context.Context) (*Issuer, error) { return a.issuer(ctx, "agents") }

// Engine gives the intermediate for the engine's own listeners.
func (a *Authority) Engine(ctx context.Context) (*Issuer, error) { return a.issuer(ctx, "engine") }

var (
	issuerName     = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)
	namedAuthority = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
)

// How long a chain a CA may sign: the root signs intermediates, all others leaves.
const (
	rootPath = 1
	leafPath = 0
)

func (a *Authority) issuer(ctx context.Context, name string) (*Issuer, error) {
	if !issuerName.MatchString(name) {
		return nil, fmt.Errorf("cannot make a certificate authority %.120q: want letters a-z, digits, dots and hyphens", name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hold(ctx, name)
}

// hold gives a CA that is in memory, or loads or makes it. The caller holds mu.
func (a *Authority) hold(ctx context.Context, name string) (*Issuer, error) {
	if i, ok := a.issuers[name]; ok {
		return i, nil
	}
	parent := a.root
	if strings.Contains(name, ".") {
		parent = nil // a named authority
	}
	i, err := a.loadOrMake(ctx, name, parent, leafPath)
	if err != nil {
		return nil, err
	}
	a.issuers[name] = i
	return i, nil
}

// loadOrMake loads a CA, or makes and keeps one that parent signs; without a parent it signs itself.
func (a *Authority) loadOrMake(ctx context.Context, name string, parent *Issuer, path int) (*Issuer, error) {
	m, err := a.cfg.Vault.Load(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		if m, err = a.make(ctx, name, parent, path); err != nil {
			return nil, fmt.Errorf("cannot make the certificate authority %s: %w", name, err)
		}
		if err = a.cfg.Vault.Create(ctx, name, m); errors.Is(err, fs.ErrExist) { // another process was faster
			m, err = a.cfg.Vault.Load(ctx, name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot load the certificate authority %s: %w", name, err)
	}
	issuer, err := open(name, m, parent, a.cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot use the certificate authority %s: %w", name, err)
	}
	issuer.leaves = path == leafPath
	return issuer, nil
}

func (a *Authority) make(ctx context.Context, name string, parent *Issuer, path int) (Material, error) {
	req := &csr.CertificateRequest{CN: "joist " + name, KeyRequest: &csr.KeyRequest{A: "ecdsa", S: 256}}
	request, key, err := csr.ParseRequest(req)
	if err != nil {
		return Material{}, err
	}
	priv, err := parseKey(key)
	if err != nil {
		return Material{}, err
	}
	policy := initca.CAPolicy()
	profile := policy.Default
	profile.CAConstraint = config.CAConstraint{IsCA: true, MaxPathLen: path, MaxPathLenZero: path == 0}
	profile.CSRWhitelist = &config.CSRWhitelist{Subject: true, PublicKey: true, PublicKeyAlgorithm: true, SignatureAlgorithm: true}
	profile.ClientProvidesSerialNumbers = true
	record := Issued{
		Issuer: rootName, Owner: name, Profile: "ca", Subject: req.CN, Key: spkiID(priv.Public()), NotBefore: a.cfg.Now().Add(-Backdate).Truncate(time.Second),
	}
	record.NotAfter = record.NotBefore.Add(RootValidity)
	signKey, signCert := priv, (*x509.Certificate)(nil)
	if parent != nil {
		signKey, signCert = parent.key, parent.cert
		if record.NotBefore, record.NotAfter, err = parent.clamp(IntermediateValidity); err != nil {
			return Material{}, err
		}
	}
	cert, err := sign(ctx, a.cfg.Ledger, record, signRequest{key: signKey, cert: signCert, policy: policy, request: request})
	return Material{Certificate: cert, Key: key}, err
}

// signRequest is one signature by cfssl.
type signRequest struct {
	key     crypto.Signer
	cert    *x509.Certificate // nil: self-signed
	policy  *config.Signing
	request []byte // PKCS #10, PEM
	hosts   []string
}

// sign draws a serial, records it, and only then signs.
func sign(ctx context.Context, ledger Ledger, record Issued, r signRequest) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	record.Serial = serial.Text(16)
	s, err := local.NewSigner(r.key, r.cert, x509.ECDSAWithSHA256, r.policy)
	if err != nil {
		return nil, err
	}
	if err := ledger.Record(ctx, record); err != nil {
		return nil, fmt.Errorf("cannot record serial %s: %w", record.Serial, err)
	}
	subject := &signer.Subject{CN: record.Subject}
	for _, group := range record.Groups {
		subject.Names = append(subject.Names, csr.Name{O: group})
	}
	return s.Sign(signer.SignRequest{
		Request: string(r.request), Hosts: r.hosts, Subject: subject, Serial: serial,
		NotBefore: record.NotBefore, NotAfter: record.NotAfter,
	})
}

// newSerial draws 126 random bits below a set one: positive, 16 octets, far above the 64 bits of entropy
// that CAs are held to (RFC 5280 § 4.1.2.2 allows 20 octets).
func newSerial() (*big.Int, error) {
	var octets [16]byte
	if _, err := rand.Read(octets[:]); err != nil {
		return nil, fmt.Errorf("cannot draw a serial number: %w", err)
	}
	octets[0] = octets[0]&0x7f | 0x40
	return new(big.Int).SetBytes(octets[:]), nil
}

// signingProfile turns a profile into cfssl's, which takes from the request its public key alone.
func signingProfile(p profiles.Profile) *config.Signing {
	usage := []string{"digital signature"}
	if p.Server {
		usage = append(usage, "server auth")
	}
	if p.Client {
		usage = append(usage, "client auth")
	}
	return &config.Signing{Default: &config.SigningProfile{
		Usage:        usage,
		ExpiryString: p.Validity.String(),
		Expiry:       p.Validity,
		CSRWhitelist: &config.CSRWhitelist{PublicKey: true, PublicKeyAlgorithm: true},

		ClientProvidesSerialNumbers: true,
	}}
}

func encode(certs ...*x509.Certificate) string {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return string(out)
}

func keyID(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// spkiID gives the SHA-256 of a public key; empty for a key that has no DER form.
func spkiID(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

var dnsName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName says whether a text can be a name in a certificate: a DNS name in lower case without trailing dot or
// wildcard (RFC 1123 § 2.1), or an address in its canonical form.
func CheckName(name string) error {
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr.String() != name || addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified() {
			return fmt.Errorf("cannot certify the address %q: write it as %s", name, addr.WithZone("").Unmap())
		}
		return nil
	}
	if len(name) > 253 || !dnsName.MatchString(name) {
		return fmt.Errorf("cannot certify the name %.80q: want a DNS name in lower case, or an address", name)
	}
	return nil
}
