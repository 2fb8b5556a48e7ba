package layout

import (
	"fmt"
	"io"
	"strings"

	v1 "joist/services/api/v1"
)

// Blocked says what is at the bottom of everything that is blocked or waits; red paints what a person has to see to.
func Blocked(w io.Writer, red func(string) string, list []v1.Blockage) {
	for i, b := range list {
		if i == 20 {
			fmt.Fprintf(w, "… and %d more reasons\n", len(list)-i)
			return
		}
		by := "waiting by " + b.By
		switch b.By {
		case "transition":
		case "approval":
			by = red("waiting for approval")
		default:
			by = red("blocked by " + b.By)
		}
		fmt.Fprintf(w, "%s: %s\n    %s: %s\n", by, FirstLine(b.Says, 200), Counted(b.Count, "instance"), strings.Join(AtMost(b.Instances, 6), ", "))
	}
}

// AtMost gives the first n names, with a mark where there are more.
func AtMost(names []string, n int) []string {
	if len(names) <= n {
		return names
	}
	return append(names[:n:n], "…")
}
