package layout_test

import (
	"strings"
	"testing"

	"joist/cmd/joist/layout"
)

func TestTable(t *testing.T) {
	var b strings.Builder
	ink := layout.Paint(true)
	layout.Table(&b, [][]string{{"A", "B"}, {ink.Red("long"), "x"}, {"y", ""}})
	lines := strings.Split(b.String(), "\n")
	if lines[0] != "A     B" || !strings.HasSuffix(lines[1], "  x") || lines[2] != "y" {
		t.Errorf("%q", lines)
	}
}
