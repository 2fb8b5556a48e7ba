package value_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"

	"joist/engine/value"
)

func of(k value.Kind) value.Type { return value.Type{Kind: k} }

func object(attrs map[string]value.Attr) value.Type {
	return value.Type{Kind: value.Object, Attrs: attrs}
}

func TestTypes(t *testing.T) {
	nested := value.Of(value.Map, object(map[string]value.Attr{
		"b": {Type: value.Of(value.Secret, of(value.String)), Optional: true}, "a": {Type: of(value.URL)},
	}))
	for text, typ := range map[string]value.Type{
		"any": {}, "list(fqdn)": value.Of(value.List, of(value.FQDN)), "set(number)": value.Of(value.Set, of(value.Number)),
		"map(object({ a = url, b = optional(secret(string)) }))": nested, "object({ })": object(nil),
	} {
		if typ.String() != text {
			t.Errorf("%q, want %q", typ, text)
		}
	}
	for _, word := range value.Names() {
		typ, ok := value.Named(word)
		if !ok || typ.String() != word || !typ.Equal(typ) {
			t.Errorf("Named(%q) = %q, %t", word, typ, ok)
		}
	}
	if n := len(value.Names()); n != 13 {
		t.Errorf("%d bare words", n)
	}
	for _, word := range []string{"", "secret", "list", "object", "Any"} {
		if _, ok := value.Named(word); ok {
			t.Errorf("%q is a bare word", word)
		}
	}
	for kind, want := range map[value.Kind]bool{value.Map: true, value.Secret: true, value.String: true, value.URL: true, value.List: false} {
		if nested.Holds(kind) != want {
			t.Errorf("Holds(%d) = %t", kind, !want)
		}
	}
	different := []value.Type{{}, of(value.URL), value.Of(value.List, value.Type{}), value.Of(value.List, of(value.URL)), nested, nested.Clear(),
		object(nil), object(map[string]value.Attr{"a": {}}), object(map[string]value.Attr{"a": {Optional: true}}), object(map[string]value.Attr{"b": {}})}
	for i, a := range different {
		for j, b := range different {
			if a.Equal(b) != (i == j) {
				t.Errorf("%s equals %s: %t", a, b, i != j)
			}
		}
	}
	if got := nested.Clear().String(); got != "map(object({ a = url, b = optional(string) }))" {
		t.Errorf("in clear %s", got)
	}
}

func certificate(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(2e9, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func request(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func quoted(s string) string {
	data, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always encodes
	}
	return string(data)
}

func TestCheckText(t *testing.T) {
	handle := value.HandleOf(value.Sum([]byte("x"))).String()
	const (
		noAddress  = `%q is not an IP address; expected a form such as 10.0.0.7 or fd00::7`
		noNetwork  = `%q is not a network; expected a form such as 10.0.0.0/24, host bits zero`
		noName     = `%q is not a domain name; expected a form such as n1.demo.lab, in lower case and without a final dot`
		noURL      = `%q is not a URL; expected a form such as https://host:2379`
		noDuration = `%q is not a duration; expected a form such as 90s or 2h30m`
		noDigest   = `%q is not a digest; expected sha256: and 64 hexadecimal digits`
		noPath     = `%q is not a path; expected an absolute one without . or .. parts`
		noSecret   = `expected a secret that a step has yielded; a secret cannot be written down`
	)
	for _, test := range []struct {
		typ   value.Type
		err   string
		texts []string
	}{
		{of(value.Address), "", []string{"10.0.0.7", "fd00::7", "::ffff:10.0.0.1"}},
		{of(value.Address), noAddress, []string{"", "10.0.0", "10.0.0.07", "10.0.0.7/24", "n1", "fe80::1%eth0", " 10.0.0.7"}},
		{of(value.CIDR), "", []string{"10.0.0.0/24", "0.0.0.0/0", "fd00::/8"}},
		{of(value.CIDR), noNetwork, []string{"", "10.0.0.7/24", "10.0.0.0", "10.0.0.0/33", "fe80::%1/64"}},
		{of(value.FQDN), "", []string{"n1.demo.lab", "_etcd._tcp.demo.lab", "a.b", "1.2.3.lab", strings.Repeat("a", 63) + ".b"}},
		{of(value.FQDN), noName, []string{"", "n1", "N1.demo.lab", "n1.demo.lab.", "n1..lab", "-a.b", "a-.b", "10.0.0.7", "a b.c", strings.Repeat("a", 64) + ".b",
			strings.Repeat("a.", 127), "a.b\n", "*.demo.lab"}},
		{of(value.URL), "", []string{"https://host:2379", "http://[fd00::1]:80/a?b", "unix://x/y"}},
		{of(value.URL), noURL, []string{"", "host:2379", "https://", "https://:2379", "https://h:0", "https://h:65536", "https://h:", "mailto:a@b", "https://a b", "https://h\n"}},
		{of(value.Duration), "", []string{"90s", "2h30m", "0", "1.5h"}},
		{of(value.Duration), noDuration, []string{"", "90", "-1s", "1d", "1e9h"}},
		{of(value.DigestKind), "", []string{"sha256:" + strings.Repeat("0a", 32)}},
		{of(value.DigestKind), noDigest, []string{"", strings.Repeat("0a", 32), "sha256:" + strings.Repeat("0A", 32), "sha256:0a", "sha512:" + strings.Repeat("0a", 64)}},
		{of(value.Path), "", []string{"/", "/var/lib/etcd", "/a b"}},
		{of(value.Path), noPath, []string{"", "a", "/a/", "/a/../b", "//a", "/a\x00", "/a\nb", "~/x"}},
		{value.Of(value.Secret, of(value.String)), "", []string{handle}},
		{value.Of(value.Secret, of(value.String)), noSecret, []string{"", "hunter2", "secret:", strings.ToUpper(handle), handle + "0", "secret:" + strings.Repeat("0", 64)}},
		{of(value.CSR), "", []string{request(t)}},
		{of(value.CSR), "expected PEM of type CERTIFICATE REQUEST, found nothing", []string{"", " \n"}},
		{of(value.CSR), "expected one PEM block of type CERTIFICATE REQUEST, found 2", []string{request(t) + request(t)}},
		{of(value.CSR), "expected PEM of type CERTIFICATE REQUEST", []string{"x", certificate(t)}},
		{of(value.CSR), "expected PEM of type CERTIFICATE REQUEST and nothing beside it", []string{"x\n" + request(t)}},
	} {
		for _, text := range test.texts {
			want := test.err
			if strings.Contains(want, "%q") {
				want = fmt.Sprintf(want, text)
			}
			_, err := test.typ.Check(value.Text(text))
			if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
				t.Errorf("%s %q: %s\n\twant %s", test.typ, text, got, want)
			}
		}
	}
}

func TestCheckCertificate(t *testing.T) {
	a, b := certificate(t), certificate(t)
	key := "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"
	for _, test := range []struct{ leaf, chain, root, want string }{
		{a, "", b, ""},
		{a, b, b + a, ""},
		{"\n" + strings.ReplaceAll(a, "\n", "\r\n"), a + "\n" + b, b, ""},
		{a + b, "", b, "leaf: expected one PEM block of type CERTIFICATE, found 2"},
		{"", "", b, "leaf: expected PEM of type CERTIFICATE, found nothing"},
		{a, "", "", "root: expected PEM of type CERTIFICATE, found nothing"},
		{a + key, "", b, "leaf: expected PEM of type CERTIFICATE"},
		{a, strings.Replace(key, "AAAA", "!", 1) + b, b, "chain: expected PEM of type CERTIFICATE and nothing beside it"},
		{a, "", "x" + b, "root: expected PEM of type CERTIFICATE"},
		{a, "", "x\n" + b, "root: expected PEM of type CERTIFICATE and nothing beside it"},
	} {
		doc := fmt.Sprintf(`{"leaf":%s,"chain":%s,"root":%s}`, quoted(test.leaf), quoted(test.chain), quoted(test.root))
		if _, err := of(value.Certificate).Parse([]byte(doc)); fmt.Sprint(err) != test.want && (test.want != "" || err != nil) {
			t.Errorf("%v\n\twant %s", err, test.want)
		}
	}
	if _, err := of(value.Certificate).Parse([]byte(`{"leaf":null,"chain":"","root":""}`)); fmt.Sprint(err) != "leaf: it is null; give it a value" {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	pair := object(map[string]value.Attr{"id": {Type: of(value.String)}, "url": {Type: of(value.URL), Optional: true}})
	for _, test := range []struct {
		typ      value.Type
		in, want string // want: JSON, or an error
	}{
		{of(value.Any), `{"a":[1,null,"x",true,{}]}`, `{"a":[1,null,"x",true,{}]}`},
		{of(value.Any), `null`, `null`},
		{of(value.String), `null`, `null`},
		{of(value.String), `7`, `"7"`},
		{of(value.Number), `"7"`, `7`},
		{of(value.Number), `1e3`, `1000`},
		{of(value.Number), `"1e99999"`, "a number is outside 1e-1000 to 1e1000"},
		{of(value.Bool), `"true"`, `true`},
		{of(value.Bool), `1`, "cannot use this value as bool: bool required, but have number"},
		{value.Of(value.List, of(value.Address)), `["10.0.0.1","x"]`, `[1]: "x" is not an IP address; expected a form such as 10.0.0.7 or fd00::7`},
		{value.Of(value.List, of(value.String)), `["a",null]`, "[1]: it is null; give it a value"},
		{value.Of(value.Set, of(value.String)), `["b","a","b"]`, `["a","b"]`},
		{value.Of(value.Set, of(value.FQDN)), `["b"]`, `"b" is not a domain name; expected a form such as n1.demo.lab, in lower case and without a final dot`},
		{value.Of(value.Map, of(value.URL)), `{"n1":"https://a"}`, `{"n1":"https://a"}`},
		{value.Of(value.Map, of(value.URL)), `{"n 1":"a"}`, `["n 1"]: "a" is not a URL; expected a form such as https://host:2379`},
		{value.Of(value.Map, pair), `{"n1":{"id":"a"}}`, `{"n1":{"id":"a","url":null}}`},
		{value.Of(value.Map, pair), `{"n1":{"id":null}}`, `["n1"].id: it is null; give it a value`},
		{value.Of(value.Map, pair), `{"n1":{"id":"a","url":"b"}}`, `["n1"].url: "b" is not a URL; expected a form such as https://host:2379`},
		{value.Of(value.Map, pair), `{"n1":null}`, `["n1"]: it is null; give it a value`},
		{pair, `{"url":"https://a"}`, `cannot use this value as object({ id = string, url = optional(url) }): attribute "id" is required`},
		{pair, `{"id":"a","more":1}`, `{"id":"a","url":null}`},
		{value.Of(value.List, value.Type{}), `[1,"a"]`, `["1","a"]`},
		{of(value.Any), ``, "cannot read JSON: it is not well formed"},
		{of(value.Any), `1 2`, "cannot read JSON: it is not well formed"},
		{of(value.Any), `{"a":1`, "cannot read JSON: it is not well formed"},
		{of(value.Any), `[1,]`, "cannot read JSON: it is not well formed"},
		{of(value.Any), strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 64) + strings.Repeat("]", 64)},
		{of(value.Any), strings.Repeat("[", 65) + strings.Repeat("]", 65), "cannot read JSON: it is nested deeper than 64 levels"},
		{of(value.Any), strings.Repeat("[", 1e6), "cannot read JSON: it is nested deeper than 64 levels"},
		{of(value.Any), `1e999999999`, "cannot read JSON: a number is outside 1e-1000 to 1e1000"},
		{of(value.Any), `[1E-99999999999999999999]`, "cannot read JSON: a number is outside 1e-1000 to 1e1000"},
		{of(value.Any), strings.Repeat("9", 2001), "cannot read JSON: a number has more than 2000 characters"},
		{of(value.Any), strings.Repeat("9", 2000), "cannot read JSON: a number is outside 1e-1000 to 1e1000"},
		{of(value.Any), `"` + strings.Repeat("x", value.MaxJSON) + `"`, "cannot read JSON: it has more than 16777216 bytes"},
	} {
		short := test.in[:min(40, len(test.in))]
		v, err := test.typ.Parse([]byte(test.in))
		if err != nil {
			if err.Error() != test.want {
				t.Errorf("%s %s: %v\n\twant %s", test.typ, short, err, test.want)
			}
			continue
		}
		if got, err := json.Marshal(v); err != nil || string(got) != test.want {
			t.Errorf("%s %s: %s, %v\n\twant %s", test.typ, short, got, err, test.want)
		}
	}
}

func TestUnknown(t *testing.T) {
	u := value.Unknown(value.Of(value.List, of(value.FQDN)))
	if u.Known() || u.Null() || u.Equal(u) || u.True() {
		t.Error("an unknown value is known")
	}
	if checked, err := value.Of(value.List, of(value.FQDN)).Check(u); err != nil || checked.Known() {
		t.Errorf("%v, %v", checked, err)
	}
	mixed := value.Dict(map[string]value.Value{"a": value.Text("x"), "b": {}})
	if _, err := object(map[string]value.Attr{"a": {Type: of(value.FQDN)}, "b": {Type: of(value.URL)}}).Check(mixed); err == nil || !strings.HasPrefix(err.Error(), `a: "x" is not a domain`) {
		t.Errorf("the known part was not checked: %v", err)
	}
	if _, err := mixed.MarshalJSON(); err == nil || err.Error() != "cannot encode a value that is not known yet" {
		t.Error(err)
	}
	if a, ok := mixed.Attr("c"); ok {
		t.Errorf("attribute %v", a)
	}
	if a, ok := (value.Value{}).Attr("c"); !ok || a.Known() {
		t.Errorf("an attribute of an unknown is %v, %t", a, ok)
	}
	if _, err := value.FromCty(cty.PositiveInfinity).MarshalJSON(); err == nil || err.Error() != "cannot encode a value: a number is infinite" {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("an unknown value has a digest")
		}
	}()
	mixed.Digest()
}

func TestGather(t *testing.T) {
	text := of(value.String)
	for name, test := range map[string]struct {
		typ  value.Type
		of   map[string]value.Value
		want string
	}{
		"none":          {text, nil, `{}`},
		"none of any":   {value.Type{}, nil, `{}`},
		"some":          {text, map[string]value.Value{"b": value.Text("2"), "a": value.Text("1")}, `{"a":"1","b":"2"}`},
		"any":           {value.Type{}, map[string]value.Value{"b": value.Int(2), "a": value.Text("1")}, `{"a":"1","b":2}`},
		"not one type":  {text, map[string]value.Value{"b": value.Int(2), "a": value.Text("1")}, `{"a":"1","b":2}`},
		"null of a row": {text, map[string]value.Value{"b": value.NullOf(text), "a": value.Text("1")}, `{"a":"1","b":null}`},
	} {
		if got, err := value.Gather(test.typ, test.of).MarshalJSON(); err != nil || string(got) != test.want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if value.Gather(text, map[string]value.Value{"a": value.Text("1"), "b": value.Unknown(text)}).Known() {
		t.Error("a gathered unknown is known")
	}
}

// tree draws plain JSON data.
func tree(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		most := 5
		if depth == 0 {
			most = 3
		}
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return rapid.SampledFrom([]json.Number{"0", "-0", "1", "1.0", "10", "1e1", "0.1", "-7", "123456789012345678901234567890", "1e-300"}).Draw(t, "number")
		case 3:
			return rapid.SampledFrom([]string{"", "a", "ab", "b", "0", "é", "e\u0301", "\u0000"}).Draw(t, "text")
		case 4:
			return rapid.SliceOfN(tree(depth-1), 0, 3).Draw(t, "list")
		}
		return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), tree(depth-1), 0, 3).Draw(t, "map")
	})
}

func parse(t interface{ Fatal(...any) }, v any) value.Value {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var parsed value.Value
	if err := parsed.UnmarshalJSON(data); err != nil {
		t.Fatal(string(data), err)
	}
	return parsed
}

func text(t interface{ Fatal(...any) }, v value.Value) string {
	data, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestDigest: digests are equal exactly if the canonical JSON is, survive the journal, and a list's or map's is that of
// the tuple or object of the same content.
func TestDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := parse(t, tree(3).Draw(t, "a")), parse(t, tree(3).Draw(t, "b"))
		textA, textB := text(t, a), text(t, b)
		if (textA == textB) != (a.Digest() == b.Digest()) || a.Equal(b) != (textA == textB) {
			t.Fatalf("%s and %s: digests %s and %s, equal %t", textA, textB, a.Digest().Short(), b.Digest().Short(), a.Equal(b))
		}
		if again := parse(t, json.RawMessage(textA)); again.Digest() != a.Digest() || text(t, again) != textA {
			t.Fatalf("%s became %s", textA, text(t, again))
		}
		c := a.Cty()
		if !c.IsNull() && c.Type().IsTupleType() && c.LengthInt() > 0 {
			if list, err := value.Of(value.List, value.Type{}).Check(a); err == nil && text(t, list) == textA && list.Digest() != a.Digest() {
				t.Fatalf("list %s has another digest than the tuple", textA)
			}
		}
		if !c.IsNull() && c.Type().IsObjectType() && c.LengthInt() > 0 {
			if m, err := value.Of(value.Map, value.Type{}).Check(a); err == nil && text(t, m) == textA && m.Digest() != a.Digest() {
				t.Fatalf("map %s has another digest than the object", textA)
			}
		}
	})
}

// TestDigestOfSets: the order and repetition of what a set was made from do not show.
func TestDigestOfSets(t *testing.T) {
	set := value.Of(value.Set, value.Of(value.Map, of(value.String)))
	rapid.Check(t, func(t *rapid.T) {
		elems := rapid.SliceOfN(rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"1", "2", "3"}), 1, 2), 1, 6).Draw(t, "elements")
		shuffled := append(rapid.Permutation(elems).Draw(t, "order"), elems[0])
		a, errA := set.Check(parse(t, elems))
		b, errB := set.Check(parse(t, shuffled))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if a.Digest() != b.Digest() || text(t, a) != text(t, b) {
			t.Fatalf("%s and %s", text(t, a), text(t, b))
		}
	})
}

func TestDigestText(t *testing.T) {
	var none value.Digest
	if none.String() != "" || none.Short() != "" {
		t.Errorf("none is %q, %q", none, none.Short())
	}
	d := value.Sum([]byte("a"))
	for _, want := range []value.Digest{none, d} {
		text, err := want.MarshalText()
		got := value.Sum(nil)
		if err := errors.Join(err, got.UnmarshalText(text)); err != nil || got != want {
			t.Errorf("%s became %s: %v", want, got, err)
		}
	}
	for _, bad := range []string{"0a", strings.Repeat("x", 64), d.String() + "00"} {
		if err := new(value.Digest).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("read %q", bad)
		}
	}
	if value.Sum([]byte("ab"), []byte("c")) == value.Sum([]byte("a"), []byte("bc")) {
		t.Error("parts run together")
	}
}

func TestSecrets(t *testing.T) {
	typ := object(map[string]value.Attr{
		"user": {Type: of(value.String)}, "pass": {Type: value.Of(value.Secret, of(value.String))}, "old": {Type: value.Of(value.Secret, of(value.String)), Optional: true},
		"keys": {Type: value.Of(value.List, value.Of(value.Secret, value.Of(value.Map, of(value.Number))))}, "by": {Type: value.Of(value.Map, value.Of(value.Secret, value.Type{}))},
	})
	clear := `{"by":{"n1":["deep"]},"keys":[{"a":1},{"b":2}],"old":null,"pass":"hunter2","user":"root"}`
	safe := map[value.Handle][]byte{}
	sealed, err := typ.Seal([]byte(clear), func(plain []byte) (value.Handle, error) {
		h := value.HandleOf(value.Sum([]byte("key"), plain))
		safe[h] = plain
		return h, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(safe) != 4 {
		t.Errorf("%d secrets were sealed", len(safe))
	}
	for _, plain := range []string{"hunter2", "deep", `"a"`, "null,"} {
		if got := text(t, sealed); plain != "null," && strings.Contains(got, plain) {
			t.Errorf("%s shows %s", got, plain)
		}
	}
	stored, err := typ.Parse([]byte(text(t, sealed)))
	if err != nil || !stored.Equal(sealed) {
		t.Fatalf("%v after the journal: %v", stored, err)
	}
	open := func(h value.Handle) ([]byte, error) {
		if plain, ok := safe[h]; ok {
			return plain, nil
		}
		return nil, errors.New("no such secret")
	}
	if got, err := typ.Open(stored, open); err != nil || string(got) != clear {
		t.Errorf("%s, %v", got, err)
	}
	clearSafe := func(value.Handle) ([]byte, error) { return nil, errors.New("it is lost") }
	if _, err := typ.Open(stored, clearSafe); err == nil || err.Error() != "it is lost" {
		t.Error(err)
	}
	for _, bad := range []string{`{"user":"root","pass":{"x":"hunter2"}}`, `{"pass":"hunter2`, `"hunter2"`, `{"user":"root","pass":"hunter2","keys":[{"a":"hunter2"}],"by":{}}`} {
		if _, err := typ.Seal([]byte(bad), nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	secretAddress := value.Of(value.Secret, of(value.Address))
	if _, err := secretAddress.Seal([]byte(`"hunter2"`), nil); err == nil || err.Error() != "it is not a value of type secret(address)" {
		t.Error(err)
	}
	if _, err := secretAddress.Open(value.Text("hunter2"), open); err == nil || err.Error() != "a secret is not given as a handle" {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2e3,"x"]}`, `-0`, `1e999999999`, `"\ud800"`, `{"a":1,"a":"x"}`, `[[[[`, `{"leaf":"x","chain":"","root":null}`, "\"e\u0301\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var types []value.Type
		for _, word := range value.Names() {
			typ, _ := value.Named(word)
			types = append(types, typ, value.Of(value.List, typ), value.Of(value.Map, typ))
		}
		for _, typ := range types {
			v, err := typ.Parse(data)
			if err != nil {
				continue
			}
			again, err := typ.Parse([]byte(text(t, v)))
			if err != nil || again.Digest() != v.Digest() {
				t.Fatalf("%s %s: read again %v, %v", typ, data, again, err)
			}
		}
	})
}

func TestEncodedValuesGiveTheSameJSON(t *testing.T) {
	v := value.Dict(map[string]value.Value{"b": value.Int(2), "a": value.Text("1")})
	e := v.Encoded()
	want, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	first, _ := e.MarshalJSON()
	again, _ := e.MarshalJSON()
	if string(first) != string(want) || &first[0] != &again[0] || !e.Equal(v) || e.Digest() != v.Digest() {
		t.Errorf("encoded %s, then %s, want %s once", first, again, want)
	}
	if u := value.Unknown(value.Type{}).Encoded(); u.Known() {
		t.Error("an unknown value is known once encoded")
	}
}
