package console

import (
	"strings"
	"testing"
)

func TestFilterInParts(t *testing.T) {
	var b strings.Builder
	f := &Filter{W: &b}
	for _, part := range []string{"a\x1b[3", "1mred\x1b[0m\r\n", "\x1bc\x07b\tc\x7f\x00"} {
		if n, err := f.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if got, want := b.String(), "ared\nb\tc"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFilter(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mred\x1b[0m\r\nb\tc": "ared\nb\tc", "\x1b]0;title\x07x": "0;titlex", "\x1bMup": "up", "\x00\x7fé": "é",
	} {
		if got := string((&Filter{}).clean([]byte(in))); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
