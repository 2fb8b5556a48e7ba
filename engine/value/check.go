package value

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Check converts v to t and checks every known part of it, domain types included; unknown parts stay unknown. The value
// itself may be null, which only its user can judge; a part of it may be null where t says optional, and inside any. An
// object may have more attributes than t declares: they are left out. The error says where in the value the fault lies
// and what form is expected.
func (t Type) Check(v Value) (Value, error) {
	c := v.Cty()
	converted, err := convert.Convert(c, t.Cty())
	if err != nil {
		return Value{}, fmt.Errorf("cannot use this value as %s: %s", t, describe(err))
	}
	var at cty.Path
	if err := t.examine(&at, converted); err != nil {
		if len(at) > 0 {
			err = fmt.Errorf("%s: %w", pathText(at), err)
		}
		return Value{}, err
	}
	return Value{v: converted}, nil
}

func describe(err error) string {
	var at cty.PathError
	if errors.As(err, &at) && len(at.Path) > 0 {
		return fmt.Sprintf("at %s: %s", pathText(at.Path), at.Error())
	}
	return err.Error()
}

func pathText(p cty.Path) string {
	var b strings.Builder
	for _, step := range p {
		switch s := step.(type) {
		case cty.GetAttrStep:
			b.WriteString("." + s.Name)
		case cty.IndexStep:
			if s.Key.Type() == cty.String {
				fmt.Fprintf(&b, "[%q]", s.Key.AsString())
			} else {
				b.WriteString("[" + s.Key.AsBigFloat().String() + "]")
			}
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}

// examine checks the known parts of c, which has the form of t.Cty already. After an error, at is where.
func (t Type) examine(at *cty.Path, c cty.Value) error {
	c, _ = c.Unmark()
	if !c.IsKnown() || c.IsNull() {
		return nil
	}
	switch t.Kind {
	case Any, Bool, String:
		return nil
	case Number:
		return checkNumber(c)
	case List, Set, Map:
		for it := c.ElementIterator(); it.Next(); {
			k, e := it.Element()
			var step cty.PathStep
			if t.Kind != Set { // whose elements are their own keys
				step = cty.IndexStep{Key: k}
			}
			if err := t.Elem.examinePart(at, step, e); err != nil {
				return err
			}
		}
		return nil
	case Object:
		for _, name := range slices.Sorted(maps.Keys(t.Attrs)) {
			a, e := t.Attrs[name], c.GetAttr(name)
			if e, _ := e.Unmark(); a.Optional && e.IsNull() {
				continue
			}
			if err := a.Type.examinePart(at, cty.GetAttrStep{Name: name}, e); err != nil {
				return err
			}
		}
		return nil
	case Certificate:
		for i, part := range []string{"leaf", "chain", "root"} {
			e, step := c.GetAttr(part), cty.GetAttrStep{Name: part}
			if err := (Type{Kind: String}).examinePart(at, step, e); err != nil {
				return err
			}
			if err := checkPEM(e, "CERTIFICATE", []pemCount{one, anyNumber, some}[i]); err != nil {
				*at = append(*at, step)
				return err
			}
		}
		return nil
	}
	return t.examineText(c.AsString())
}

// examinePart checks a part of a value, which must not be null. step leads to it, nil for nowhere in particular.
func (t Type) examinePart(at *cty.Path, step cty.PathStep, c cty.Value) error {
	n := len(*at)
	if step != nil {
		*at = append(*at, step)
	}
	err := t.examine(at, c)
	if plain, _ := c.Unmark(); plain.IsKnown() && plain.IsNull() && t.Kind != Any {
		err = errors.New("it is null; give it a value")
	}
	if err == nil {
		*at = (*at)[:n]
	}
	return err
}

var (
	label     = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
	digestHex = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func (t Type) examineText(s string) error {
	switch t.Kind {
	case Address:
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not an IP address; expected a form such as 10.0.0.7 or fd00::7", s)
		}
	case CIDR:
		if p, err := netip.ParsePrefix(s); err != nil || p != p.Masked() {
			return fmt.Errorf("%q is not a network; expected a form such as 10.0.0.0/24, host bits zero", s)
		}
	case FQDN:
		if !ValidFQDN(s) {
			return fmt.Errorf("%q is not a domain name; expected a form such as n1.demo.lab, in lower case and without a final dot", s)
		}
	case URL:
		if !validURL(s) {
			return fmt.Errorf("%q is not a URL; expected a form such as https://host:2379", s)
		}
	case Duration:
		if d, err := time.ParseDuration(s); err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration; expected a form such as 90s or 2h30m", s)
		}
	case DigestKind:
		if !digestHex.MatchString(s) {
			return fmt.Errorf("%q is not a digest; expected sha256: and 64 hexadecimal digits", s)
		}
	case CSR:
		return checkPEM(cty.StringVal(s), "CERTIFICATE REQUEST", one)
	case Path:
		if !path.IsAbs(s) || path.Clean(s) != s || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%q is not a path; expected an absolute one without . or .. parts", s)
		}
	case Secret:
		if _, ok := ParseHandle(s); !ok { // what it is instead may be the secret itself
			return errors.New("expected a secret that a step has yielded; a secret cannot be written down")
		}
	}
	return nil
}

// ValidFQDN reports whether s is a fully qualified domain name in lower case, of at least two labels, without a final
// dot (RFC 1035 §2.3.1, RFC 1123 §2.1; underscores as in RFC 8552). The last label is not a number, so that no address
// is a name (RFC 3696 §2).
func ValidFQDN(s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 || strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return false
	}
	return !slices.ContainsFunc(labels, func(l string) bool { return !label.MatchString(l) })
}

// validURL asks for a scheme and a host, and for a port in range if there is one (RFC 3986 §3).
func validURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Hostname() == "" {
		return false
	}
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}

// pemCount says how many blocks a text has.
type pemCount int

const (
	anyNumber pemCount = iota // none or more
	one
	some // one or more
)

// checkPEM checks that a string holds PEM blocks of one type that parse, and nothing beside them: what a decoder skips,
// such as a damaged block before a good one, may be a private key.
func checkPEM(c cty.Value, kind string, count pemCount) error {
	c, _ = c.Unmark()
	if !c.IsKnown() {
		return nil
	}
	rest, n := []byte(c.AsString()), 0
	for len(bytes.TrimSpace(rest)) > 0 {
		block, tail := pem.Decode(rest)
		if block == nil || block.Type != kind {
			return fmt.Errorf("expected PEM of type %s", kind)
		}
		was := rest[:len(rest)-len(tail)]
		if again := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: block.Bytes}); !bytes.Equal(dense(was), dense(again)) {
			return fmt.Errorf("expected PEM of type %s and nothing beside it", kind)
		}
		var err error
		if kind == "CERTIFICATE" {
			_, err = x509.ParseCertificate(block.Bytes)
		} else {
			_, err = x509.ParseCertificateRequest(block.Bytes)
		}
		if err != nil {
			return fmt.Errorf("expected PEM of type %s: %w", kind, err)
		}
		rest, n = tail, n+1
	}
	switch {
	case n == 0 && count != anyNumber:
		return fmt.Errorf("expected PEM of type %s, found nothing", kind)
	case n > 1 && count == one:
		return fmt.Errorf("expected one PEM block of type %s, found %d", kind, n)
	}
	return nil
}

// dense is a text without its white space.
func dense(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
}
