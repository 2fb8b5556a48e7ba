package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// boundByTokens is bound as the standard library's decoder sees a value.
func boundByTokens(data []byte) error {
	if len(data) > MaxJSON {
		return fmt.Errorf("it has more than %d bytes", MaxJSON)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	depth, values := 0, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.New("it is not well formed")
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '[' || t == '{' {
				depth++
			} else {
				depth--
			}
			if depth > MaxDepth {
				return fmt.Errorf("it is nested deeper than %d levels", MaxDepth)
			}
		case json.Number:
			if err := boundNumber(t.String()); err != nil {
				return err
			}
		}
		if depth == 0 {
			values++
		}
	}
	if depth != 0 || values != 1 || !json.Valid(data) {
		return errors.New("it is not well formed")
	}
	return nil
}

// FuzzBound: bytes and tokens agree on what is taken, and on why a well-formed value is not.
func FuzzBound(f *testing.F) {
	for _, seed := range []string{
		`{"out":"t01/n1"}`, `{"a":[1,-2.5e3,true,null,"x\\"],"1e999999":{}}`, `"\"[[["`, `1e999999`, `-1e-999999`, `[1 2]`, `1 2`, `{"a":1e400000}`, `"`, `"\`, ``, ` `,
		`[`, `]`, `01`, `--1`, `[1,]`, strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
		strings.Repeat("9", 2000), `{"a":"` + strings.Repeat("[", 100) + `"}`, "\"\xff\"", "{\"k\":1}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, want := bound(data), boundByTokens(data)
		if (got == nil) != (want == nil) {
			t.Fatalf("%q: %v, by tokens %v", data, got, want)
		}
		if got != nil && json.Valid(data) && got.Error() != want.Error() && strings.Contains(got.Error(), "number") == strings.Contains(want.Error(), "number") {
			t.Fatalf("%q: %v, by tokens %v", data, got, want)
		}
	})
}

// FuzzTexts: what texts reads, natural reads as the same value.
func FuzzTexts(f *testing.F) {
	for _, seed := range []string{
		`{"out":"t01/n1"}`, `{}`, `{"a":"1","a":"2"}`, `{"a":null}`, `{"a":"x","b":1}`, `{"a":1,"a":"x"}`, `{"e\u0301":"e\u0301","\u00e9":"other"}`, `{"a":"\ud800"}`,
		"{\"\xff\":\"\xfe\"}", `{"":""}`, ` {"a" : "{"} `, `{"A":"x","a":"y"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bound(data) != nil {
			return
		}
		got, ok := texts(data)
		if !ok {
			return
		}
		want, err := natural(data)
		if err != nil || !got.RawEquals(want) {
			t.Fatalf("%q: %#v, naturally %#v, %v", data, got, want, err)
		}
	})
}

// BenchmarkParse reads what a step yields, which the engine does for every completion.
func BenchmarkParse(b *testing.B) {
	data, object := []byte(`{"out":"t01/n000001"}`), Type{Kind: Object, Attrs: map[string]Attr{"out": {Type: Type{Kind: String}}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := object.Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBound compares both on it.
func BenchmarkBound(b *testing.B) {
	data := []byte(`{"out":"t01/n000001"}`)
	for name, f := range map[string]func([]byte) error{"bytes": bound, "tokens": boundByTokens} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
