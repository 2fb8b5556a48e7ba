package packtest

import "testing"

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, instance string
		want              bool
	}{
		{"s[y]", `s["y"]`, true},
		{`s["y"]`, `s["y"]`, true},
		{"s[*]", `s["y"]`, true},
		{"remove s[y]", `remove s["y"]`, true},
		{"s[y]", `remove s["y"]`, false},
		{"s[y]", "s[y]", true},
		{`s["y"]`, "s[y]", false},
		{"s[n1][y]", "s[n1][y]", true},
		{"s[y]", "s[n1][y]", false},
		{"*[n1]*", "s[n1][y]", true},
	} {
		if got := matches(tt.pattern, tt.instance); got != tt.want {
			t.Errorf("%s means %s: %v", tt.pattern, tt.instance, got)
		}
	}
}
