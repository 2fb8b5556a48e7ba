package format_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/workflows/format"
)

func TestFormat(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"layout", "a={b=1}\n# kept\nstep \"x\" {\nscope=\"node\" // kept too\n   once =true\n}", "a = { b = 1 }\n# kept\nstep \"x\" {\n  scope = \"node\" // kept too\n  once  = true\n}\n"},
		{"empty", "", ""},
		{"blank", " \n\n", ""},
		{"comment", "# only this", "# only this\n"},
		{"line ends", "a = 1\r\nb = 2\r\n\r\n\r\n", "a = 1\nb = 2\n"},
		{"heredoc", "a = <<-E\n      x\n    E\n", "a = <<-E\n      x\n    E\n"},
	} {
		got, ds := format.Format("x.hcl", []byte(c.src))
		if len(ds) > 0 || string(got) != c.want {
			t.Errorf("%s:\n%q\nwant\n%q\n%s", c.name, got, c.want, ds.Text())
		}
	}
	for _, bad := range []string{"a =", "a {", strings.Repeat("(", 10_000), "\xff"} {
		if got, ds := format.Format("x.hcl", []byte(bad)); got != nil || !ds.HasErrors() {
			t.Errorf("%.20q is formatted to %q", bad, got)
		}
	}
}

// TestExamples: the examples are written as they would be formatted.
func TestExamples(t *testing.T) {
	for _, name := range []string{"../lang/testdata/base/pack.hcl", "../lang/testdata/demo.hcl"} {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, ds := format.Format(name, src); len(ds) > 0 || !bytes.Equal(got, src) {
			t.Errorf("%s is not formatted: %s", name, ds.Text())
		}
	}
}

func comments(src []byte) string {
	tokens, _ := hclsyntax.LexConfig(src, "x", hcl.InitialPos)
	var out []string
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenComment {
			out = append(out, strings.TrimSpace(string(t.Bytes)))
		}
	}
	return strings.Join(out, "\n")
}

// FuzzFormat: formatting twice is formatting once, what was valid stays valid, and no comment is lost.
func FuzzFormat(f *testing.F) {
	for _, name := range []string{"../lang/testdata/etcd/pack.hcl", "../lang/testdata/base/pack.hcl", "../lang/testdata/demo.hcl"} {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("a=[1,\n# x\n2]\nb=<<E\n ${a}\nE\n"))
	f.Add([]byte("a /* x */ = 1 // y\n\n\n\nb{}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 20_000 {
			return
		}
		once, ds := format.Format("x.hcl", src)
		if ds.HasErrors() {
			return
		}
		twice, ds := format.Format("x.hcl", once)
		if ds.HasErrors() {
			t.Fatalf("%q became invalid as %q: %s", src, once, ds.Text())
		}
		if !bytes.Equal(once, twice) {
			t.Fatalf("%q, then %q, then %q", src, once, twice)
		}
		if comments(bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))) != comments(once) {
			t.Fatalf("comments of %q became those of %q", src, once)
		}
	})
}
