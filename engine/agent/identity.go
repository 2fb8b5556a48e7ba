package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Files of an identity directory (/run/joist, mode 0700). They are all an agent needs to go on in another root.
const (
	KeyFile      = "key.pem"       // private key, PKCS #8; never leaves the machine
	CertFile     = "cert.pem"      // client certificate, leaf first
	IdentityFile = "identity.json" // Profile
	spoolDir     = "spool"
	workDir      = "work"
)

// Profile is what a machine knows of itself and of the engine, without secrets.
type Profile struct {
	Node        string   `json:"node"`        // the machine's name in the site
	Incarnation string   `json:"incarnation"` // of the writable root
	Boot        string   `json:"boot"`        // boot id of this power-on
	URLs        []string `json:"urls"`        // of the engine, "https://10.0.0.1:8443", tried in turn
	Pin         string   `json:"pin"`         // SHA-256 of the root's public key, see ParsePin
}

// Identity is a profile with its key and certificate.
type Identity struct {
	Profile
	dir  string
	key  *ecdsa.PrivateKey
	cert atomic.Pointer[tls.Certificate]
}

// LoadIdentity reads what an enrolment left in dir.
func LoadIdentity(dir string) (*Identity, error) {
	id := &Identity{dir: dir}
	raw, err := os.ReadFile(filepath.Join(dir, IdentityFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read the identity: %w", err)
	}
	if err := json.Unmarshal(raw, &id.Profile); err != nil {
		return nil, fmt.Errorf("cannot read the identity: %w", err)
	}
	if id.key, err = loadKey(filepath.Join(dir, KeyFile)); err != nil {
		return nil, err
	}
	chain, err := os.ReadFile(filepath.Join(dir, CertFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate: %w", err)
	}
	cert, err := certificate(chain, id.key)
	if err != nil {
		return nil, err
	}
	id.cert.Store(cert)
	return id, nil
}

// Expired says whether the certificate is of no use any more at this time, so that the machine has to enrol again.
func (id *Identity) Expired(now time.Time) bool { return !now.Before(id.cert.Load().Leaf.NotAfter) }

// renewAt is when two thirds of the certificate's life are over.
func (id *Identity) renewAt() time.Time {
	leaf := id.cert.Load().Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3 * 2)
}

// install makes a chain that the engine issued the one in use, on disk first.
func (id *Identity) install(chain []byte) error {
	cert, err := certificate(chain, id.key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(id.dir, CertFile), chain, 0o600); err != nil {
		return fmt.Errorf("cannot keep the certificate: %w", err)
	}
	id.cert.Store(cert)
	return nil
}

func (id *Identity) save() error {
	raw, err := json.Marshal(id.Profile)
	if err != nil {
		return fmt.Errorf("cannot encode the identity: %w", err)
	}
	if err := writeFile(filepath.Join(id.dir, IdentityFile), raw, 0o600); err != nil {
		return fmt.Errorf("cannot keep the identity: %w", err)
	}
	return nil
}

// certificate reads a PEM chain and checks that its leaf certifies the key.
func certificate(chain []byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	cert := &tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
	}
	if len(cert.Certificate) == 0 {
		return nil, errors.New("cannot use the certificate: there is none in the file")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("cannot use the certificate: %w", err)
	}
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
		return nil, errors.New("cannot use the certificate: it certifies another key")
	}
	cert.Leaf = leaf
	return cert, nil
}

// machineKey loads the key in dir or, if there is none, makes it.
func machineKey(dir string) (*ecdsa.PrivateKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the identity's directory: %w", err)
	}
	name := filepath.Join(dir, KeyFile)
	key, err := loadKey(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	return makeKey(name)
}

// makeKey makes a P-256 key in a file of mode 0600.
func makeKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the key: %w", err)
	}
	if err := writeFile(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("cannot keep the key: %w", err)
	}
	return key, nil
}

func loadKey(name string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("cannot read the key in %s: it is not PEM", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key in %s: %w", name, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("cannot use the key in %s: it is not ECDSA on P-256", name)
	}
	return key, nil
}

// writeFile replaces a file at once and durably: after a crash it is the old one or the new one.
func writeFile(name string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Pin is the SHA-256 of the root's public key (SubjectPublicKeyInfo, DER): the one thing by which a machine knows the
// engine.
type Pin [sha256.Size]byte

// ParsePin reads 64 hexadecimal digits, as joist.ca carries them.
func ParsePin(text string) (Pin, error) {
	var pin Pin
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(pin) {
		return pin, fmt.Errorf("cannot read the pin %.80q: want the 64 hexadecimal digits of a SHA-256", text)
	}
	copy(pin[:], raw)
	return pin, nil
}

// verify checks a connection's certificates: a chain from a leaf for this host to a root whose public key is pinned,
// and which the engine therefore has to send too. The time is the machine's.
func (p Pin) verify(state tls.ConnectionState, host string, now time.Time) error {
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range state.PeerCertificates[1:] {
		if c.IsCA && sha256.Sum256(c.RawSubjectPublicKeyInfo) == p {
			roots.AddCert(c)
			found = true
		} else {
			others.AddCert(c)
		}
	}
	if !found {
		return errors.New("the server does not show the root that this machine was given the pin of: it is not our engine, or somebody is in between")
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		DNSName: host, Roots: roots, Intermediates: others, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// tlsConfig is the client's side of every connection to the engine at address (host:port). The standard verification
// is replaced by the pin's, which knows the root only once it sees it, and does not depend on what the system trusts.
func (p Pin) tlsConfig(address string, now func() time.Time) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("cannot use the engine's address: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         host,
		InsecureSkipVerify: true, // VerifyConnection does it, on every handshake
		VerifyConnection:   func(state tls.ConnectionState) error { return p.verify(state, host, now()) },
		Time:               now,
	}, nil
}
