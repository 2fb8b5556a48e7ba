package value

import (
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
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Check converts v to t and checks every known part of it, domain types included; unknown parts stay unknown. The error
// says where in the value the fault lies and what form is expected.
func (t Type) Check(v Value) (Value, error) {
	c := v.Cty()
	converted, err := convert.Convert(c, t.Cty())
	if err != nil {
		return Value{}, fmt.Errorf("cannot use this value as %s: %s", t, describe(err))
	}
	if err := t.examine(converted); err != nil {
		return Value{}, err
	}
	return Value{converted}, nil
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

// examine checks the known parts of c, which has the form of t.Cty already.
func (t Type) examine(c cty.Value) error {
	c, _ = c.Unmark()
	if !c.IsKnown() || c.IsNull() {
		return nil
	}
	switch t.Kind {
	case Any, Bool, Number, String, Secret:
		return nil
	case List, Set, Map:
		for it := c.ElementIterator(); it.Next(); {
			k, e := it.Element()
			if err := t.Elem.examine(e); err != nil {
				if t.Kind == Map {
					return fmt.Errorf("[%q]: %w", k.AsString(), err)
				}
				return err
			}
		}
		return nil
	case Object:
		for _, name := range slices.Sorted(maps.Keys(t.Attrs)) {
			a := t.Attrs[name]
			e := c.GetAttr(name)
			if e.IsKnown() && e.IsNull() && !a.Optional {
				return fmt.Errorf("%s is null; give it a value", name)
			}
			if err := a.Type.examine(e); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	case Certificate:
		for _, part := range []string{"leaf", "chain", "root"} {
			if err := checkPEM(c.GetAttr(part), "CERTIFICATE", part != "chain"); err != nil {
				return fmt.Errorf("%s: %w", part, err)
			}
		}
		return nil
	}
	return t.examineText(c.AsString())
}

var (
	label     = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
	digestHex = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func (t Type) examineText(s string) error {
	switch t.Kind {
	case Address:
		if _, err := netip.ParseAddr(s); err != nil {
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
		if u, err := url.Parse(s); err != nil || u.Scheme == "" || u.Host == "" {
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
		return checkPEM(cty.StringVal(s), "CERTIFICATE REQUEST", true)
	case Path:
		if !path.IsAbs(s) || path.Clean(s) != s {
			return fmt.Errorf("%q is not a path; expected an absolute one without . or .. parts", s)
		}
	}
	return nil
}

// ValidFQDN reports whether s is a fully qualified domain name in lower case, of at least two labels, without a final
// dot (RFC 1035 §2.3.1, RFC 1123 §2.1; underscores as in RFC 8552).
func ValidFQDN(s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return false
	}
	return !slices.ContainsFunc(labels, func(l string) bool { return !label.MatchString(l) })
}

// checkPEM checks that a string holds PEM blocks of one type that parse; required refuses an empty one.
func checkPEM(c cty.Value, kind string, required bool) error {
	if !c.IsKnown() || c.IsNull() {
		return nil
	}
	rest, n := []byte(c.AsString()), 0
	for len(strings.TrimSpace(string(rest))) > 0 {
		block, tail := pem.Decode(rest)
		if block == nil || block.Type != kind {
			return fmt.Errorf("expected PEM of type %s", kind)
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
	if required && n == 0 {
		return fmt.Errorf("expected PEM of type %s, found nothing", kind)
	}
	return nil
}
