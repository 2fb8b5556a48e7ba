package diag_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"joist/workflows/lang/diag"
)

// TestTextObeyed: a source cannot write to the terminal of whoever checks it, and marks stay in their places.
func TestTextObeyed(t *testing.T) {
	bag := diag.NewBag(map[string][]byte{"a.hcl": []byte("a = \"\x1b[31m\u202e\r\" b\n")})
	bag.Errorf(at("a.hcl", 1, 14, 1, 15), "Not \x1b]0;x\x07.", "odd \x1b[2J")
	want := "error: odd \ufffd[2J\n  --> a.hcl:1:14\n   1 | a = \"\ufffd[31m\ufffd\ufffd\" b\n     |              ^\n  Not \ufffd]0;x\ufffd.\n"
	if got := bag.Done("").Text(); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func at(file string, line, col, endLine, endCol int) hcl.Range {
	return hcl.Range{Filename: file, Start: hcl.Pos{Line: line, Column: col}, End: hcl.Pos{Line: endLine, Column: endCol}}
}

func TestText(t *testing.T) {
	bag := diag.NewBag(map[string][]byte{"b.hcl": []byte("first\n\tsecond = 1\r\nthird\n"), "a.hcl": []byte("x")})
	bag.Errorf(at("b.hcl", 2, 2, 2, 8), "Do this.\nThen that.", "wrong %d", 7)
	bag.Warnf(at("b.hcl", 1, 3, 3, 2), "", "odd")
	bag.Errorf(at("a.hcl", 1, 2, 1, 2), "", "at the end")
	bag.Errorf(hcl.Range{}, "Anywhere.", "nowhere")
	bag.Errorf(hcl.Range{}, "Anywhere.", "nowhere")
	ds := bag.Done("p/")
	want := `error: nowhere
  Anywhere.

error: at the end
  --> p/a.hcl:1:2
   1 | x
     |  ^

warning: odd
  --> p/b.hcl:1:3
   1 | first
     |   ^^^

error: wrong 7
  --> p/b.hcl:2:2
   2 |  second = 1
     |  ^^^^^^
  Do this.
  Then that.
`
	if got := ds.Text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := ds.Error(); got != "nowhere: Anywhere. (and 2 more)" {
		t.Error(got)
	}
	if got := ds[3].String(); got != "p/b.hcl:2:2: wrong 7: Do this.\nThen that." {
		t.Error(got)
	}
	data, err := json.Marshal(ds[3])
	if err != nil {
		t.Fatal(err)
	}
	if got := string(data); got != `{"severity":"error","message":"wrong 7","advice":"Do this.\nThen that.","file":"p/b.hcl","line":2,"column":2,"end_line":2,"end_column":8,"source":"\tsecond = 1"}` {
		t.Error(got)
	}
	if ds.Err() == nil || (diag.Diagnostics{{Severity: diag.Warning}}).Err() != nil {
		t.Error("an error is told from a warning")
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"member", "members", "seat", "a"}
	for name, want := range map[string]string{
		"membr": `Did you mean "member"?`, "seats": `Did you mean "seat"?`, "b": "Known here: a, member, members, seat.", "zzz": "Known here: a, member, members, seat.",
	} {
		if got := diag.Suggest(name, known); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := diag.Suggest("x", nil); got != "There are none here." {
		t.Error(got)
	}
}

// TestGuard: what people write passes, and what only an attacker writes does not.
func TestGuard(t *testing.T) {
	list := "a = [\n" + strings.Repeat("  1 + 2,\n", 5000) + "]\n"
	object := "a = {\n" + strings.Repeat("  \"x${b.c}\" = d.e == 1 ? 2 : 3\n", 2000) + "}\n"
	text := "a = <<E\n" + strings.Repeat("line ${b.c} and ${d} more\n", 2000) + "E\n"
	lines := strings.Repeat("a {\n  b = -c[0] * 2\n}\n", 2000)
	for name, src := range map[string]string{"list": list, "object": object, "text": text, "lines": lines, "quotes": `a = [` + strings.Repeat(`"x", `, 5000) + `]`} {
		bag := diag.NewBag(nil)
		if _, ok := diag.Parse(bag, "x", []byte(src)); !ok {
			t.Errorf("%s is refused: %s", name, bag.Done("").Text())
		}
	}
	for name, src := range map[string]string{
		"depth": "a = " + strings.Repeat("[", 101) + strings.Repeat("]", 101), "chain": "a = 1" + strings.Repeat(" +\n1", 600),
		"for": "a = {for x in y : x =>\n" + strings.Repeat("1+\n", 600) + "1}", "size": "#" + strings.Repeat("x", diag.MaxSource),
		"interpolations in parentheses": "a = (" + strings.Repeat("1 +\n", 600) + "1)", "number": "a = 1e100", "digits": "a = " + strings.Repeat("9", 41),
		"utf8": "a = \"\xff\"",
	} {
		bag := diag.NewBag(nil)
		if _, ok := diag.Parse(bag, "x", []byte(src)); ok || bag.Count() != 1 {
			t.Errorf("%s is taken, or refused more than once: %d", name, bag.Count())
		}
	}
}
