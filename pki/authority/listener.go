package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"time"

	"joist/pki/profiles"
)

// Listener holds the certificate of the engine's own TLS listeners. Its key lives in memory, is made anew with every
// certificate, and is never stored. It is safe for concurrent use.
type Listener struct {
	issuer *Issuer
	names  []string

	mu   sync.Mutex
	cert *tls.Certificate
	till time.Time // when a new one is made
}

// Listener makes the certificate for the engine's listeners, with its names and addresses.
func (a *Authority) Listener(ctx context.Context, names []string) (*Listener, error) {
	issuer, err := a.Engine(ctx)
	if err != nil {
		return nil, err
	}
	l := &Listener{issuer: issuer, names: names}
	if _, err := l.current(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// GetCertificate is for tls.Config. It makes a new certificate when a third of the life is left. The chain that it
// sends ends with the root, since a machine that boots knows only the pin of the root's key.
func (l *Listener) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return l.current(hello.Context())
}

func (l *Listener) current(ctx context.Context) (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cert != nil && l.issuer.cfg.Now().Before(l.till) {
		return l.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the engine's key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("cannot request the engine's certificate: %w", err)
	}
	c, err := l.issuer.Issue(ctx, Request{CSR: request, Profile: profiles.Engine, Owner: "engine", Subject: "joist engine", Names: l.names})
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key}
	for rest := []byte(c.Leaf + c.Chain + c.Root); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	l.cert, l.till = cert, c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore)/3)
	return cert, nil
}
