package enrol

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

// Identity is whom an agent's client certificate names.
type Identity struct {
	Node        string // the machine's name in the site
	Incarnation string
}

const (
	identityScheme = "joist"
	identityHost   = "node"
)

// URI gives the certificate's one URI name, joist://node/NAME/INCARNATION, shaped like a SPIFFE id.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: identityScheme, Host: identityHost, Path: "/" + i.Node + "/" + i.Incarnation}
}

// IdentityOf reads the identity from an agent's certificate, which the caller has verified against the agents' CA.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("cannot tell whose certificate this is: it has %d URI names, not one", len(cert.URIs))
	}
	return ParseIdentity(cert.URIs[0].String())
}

// ParseIdentity reads what URI gives, and nothing else.
func ParseIdentity(text string) (Identity, error) {
	rest, ok := strings.CutPrefix(text, identityScheme+"://"+identityHost+"/")
	node, incarnation, both := strings.Cut(rest, "/")
	if !ok || !both || !ValidNode(node) || !ValidIncarnation(incarnation) {
		return Identity{}, fmt.Errorf("cannot read identity %.120q: want joist://node/NAME/INCARNATION", text)
	}
	return Identity{Node: node, Incarnation: incarnation}, nil
}

// ValidNode says whether a name can name a machine: a DNS label of lower-case letters, digits and inner hyphens
// (RFC 1123 § 2.1), at most 63 octets.
func ValidNode(name string) bool {
	return len(name) <= 63 && ValidIncarnation(name) && name[0] != '-' && name[len(name)-1] != '-'
}

// ValidIncarnation says whether a text can be an incarnation: 1 to 64 of a-z, 0-9 and hyphen.
func ValidIncarnation(text string) bool {
	for _, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(text) >= 1 && len(text) <= 64
}
