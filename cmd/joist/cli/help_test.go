package cli_test

import (
	"strings"
	"testing"

	"joist/cmd/joist/cli"
)

// TestHelp asks every command for its help: each has an example that begins with the command itself.
func TestHelp(t *testing.T) {
	var visit func(path []string)
	seen := 0
	visit = func(path []string) {
		var out, errs buffer
		code := cli.Run(t.Context(), cli.Env{Args: append(append([]string{}, path...), "--help"), In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
		text := out.String()
		name := strings.Join(append([]string{"joist"}, path...), " ")
		if code != 0 || !strings.Contains(text, "Examples:\n  joist ") {
			t.Errorf("%s --help: code %d, no example:\n%s%s", name, code, text, errs.String())
		}
		seen++
		list := false
		for line := range strings.Lines(text) {
			switch {
			case strings.HasSuffix(line, ":\n") && !strings.HasPrefix(line, " "):
				list = !strings.HasPrefix(line, "Usage") && !strings.HasPrefix(line, "Examples") && !strings.HasPrefix(line, "Flags") && !strings.HasPrefix(line, "Global") && !strings.HasPrefix(line, "Additional")
			case list && strings.HasPrefix(line, "  "):
				visit(append(append([]string{}, path...), strings.Fields(line)[0]))
			}
		}
	}
	visit(nil)
	if seen < 35 {
		t.Errorf("only %d commands have help", seen)
	}
}
