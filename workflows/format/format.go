// Package format lays packs and cluster files out the one way that everybody has them.
package format

import (
	"bytes"

	"github.com/hashicorp/hcl/v2/hclwrite"

	"joist/workflows/lang/diag"
)

// Format lays a source file out; name is what diagnostics call it. Comments stay where they are, and what is laid out
// already stays as it is. A source with errors is not touched: the result is nil.
func Format(name string, src []byte) ([]byte, diag.Diagnostics) {
	bag := diag.NewBag(map[string][]byte{name: src})
	if _, ok := diag.Parse(bag, name, src); !ok {
		return nil, bag.Done("")
	}
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	out := hclwrite.Format(tidy(src))
	for range 4 { // hclwrite may need more than one pass until nothing moves any more
		again := hclwrite.Format(out)
		if bytes.Equal(again, out) {
			break
		}
		out = again
	}
	return out, bag.Done("")
}

// tidy ends the file with exactly one line break.
func tidy(src []byte) []byte {
	src = bytes.TrimRight(src, " \t\n")
	if len(src) == 0 {
		return src
	}
	return append(bytes.Clone(src), '\n')
}
