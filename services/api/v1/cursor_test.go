package v1

import (
	"maps"
	"strings"
	"testing"
)

func TestParseCursor(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "site:0": "site:0", "site:4,cluster/a-1:2": "cluster/a-1:2,site:4", "cluster/demo:18446744073709551615": "cluster/demo:18446744073709551615",
	} {
		c, err := ParseCursor(text)
		if err != nil || c.String() != want {
			t.Errorf("%q: %v %v", text, c, err)
		}
	}
	for _, text := range []string{"site", "site:", "site:x", "site:-1", "site:+1", "site:18446744073709551616", "site:1,site:2", ",", "site:1,", "other:1", "cluster/:1", "cluster/A:1", "cluster/a/b:1", "cluster/" + strings.Repeat("a", 200) + ":1", strings.Repeat("site:1,", MaxCursor)} {
		if c, err := ParseCursor(text); err == nil {
			t.Errorf("%.60q is read as %v", text, c)
		} else if len(err.Error()) > 400 {
			t.Errorf("%.60q: the error has %d bytes", text, len(err.Error()))
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, seed := range []string{"", "site:1", "cluster/a:1,site:2", "site:+1", "site:1,site:1", "cluster/:0", ":::"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			return
		}
		again, err := ParseCursor(c.String())
		if err != nil || !maps.Equal(c, again) {
			t.Fatalf("%q is read as %v, and that as %v (%v)", text, c, again, err)
		}
	})
}
