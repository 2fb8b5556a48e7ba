package format

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"joist/workflows/lang/diag"
)

// Cluster says what Adapt changes in a cluster file.
type Cluster struct {
	Name string            // of the cluster; empty to leave it
	With map[string]string // inputs by name: true, false, numbers; lists, objects and quoted strings as JSON or HCL; all else becomes a string
}

var (
	plainValue = regexp.MustCompile(`^(true|false|-?[0-9]+(\.[0-9]+)?)$`)
	inputName  = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// change is a part of a source with what takes its place.
type change struct {
	from, to int
	text     string
}

// Adapt gives a cluster file with another name and other inputs, and leaves all else as it is; name is what diagnostics
// call it. A file with errors is not touched: the result is nil.
func Adapt(name string, src []byte, c Cluster) ([]byte, diag.Diagnostics) {
	bag := diag.NewBag(map[string][]byte{name: src})
	body, ok := diag.Parse(bag, name, src)
	if !ok {
		return nil, bag.Done("")
	}
	at := slices.IndexFunc(body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == "cluster" && len(b.Labels) == 1 })
	if at < 0 {
		bag.Errorf(hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}, `Write cluster "name" { … }.`, "there is no cluster block")
		return nil, bag.Done("")
	}
	b := body.Blocks[at]
	var changes []change
	if c.Name != "" {
		r := b.LabelRanges[0]
		changes = append(changes, change{r.Start.Byte, r.End.Byte, strconv.Quote(c.Name)})
	}
	more, err := inputs(b, c.With)
	if err != nil {
		bag.Errorf(b.DefRange(), "", "%s", err)
		return nil, bag.Done("")
	}
	changes = append(changes, more...)
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(b.from, a.from) })
	out := bytes.Clone(src)
	for _, one := range changes { // from the end on, so that places stay what they were
		out = slices.Concat(out[:one.from], []byte(one.text), out[one.to:])
	}
	return out, bag.Done("")
}

// inputs gives the changes by which inputs get other values, and those that are not there are added.
func inputs(b *hclsyntax.Block, with map[string]string) ([]change, error) {
	if len(with) == 0 {
		return nil, nil
	}
	where := map[string]hcl.Range{}
	attr := b.Body.Attributes["with"]
	var object *hclsyntax.ObjectConsExpr
	if attr != nil {
		var ok bool
		if object, ok = attr.Expr.(*hclsyntax.ObjectConsExpr); !ok {
			return nil, fmt.Errorf("cannot change inputs: with is not written as { … }")
		}
		for _, item := range object.Items {
			where[hcl.ExprAsKeyword(item.KeyExpr)] = item.ValueExpr.Range()
		}
	}
	var changes []change
	var added []string
	for _, key := range slices.Sorted(maps.Keys(with)) {
		if !inputName.MatchString(key) {
			return nil, fmt.Errorf("%q is not the name of an input", key)
		}
		text, err := literal(with[key])
		if err != nil {
			return nil, fmt.Errorf("cannot change input %s: %w", key, err)
		}
		if r, ok := where[key]; ok {
			changes = append(changes, change{r.Start.Byte, r.End.Byte, text})
		} else {
			added = append(added, key+" = "+text)
		}
	}
	switch {
	case len(added) == 0:
	case object != nil && len(object.Items) > 0:
		at := object.OpenRange.End.Byte
		changes = append(changes, change{at, at, " " + strings.Join(added, ", ") + ","})
	case object != nil:
		r := object.Range()
		changes = append(changes, change{r.Start.Byte, r.End.Byte, "{ " + strings.Join(added, ", ") + " }"})
	default:
		at := b.OpenBraceRange.End.Byte
		changes = append(changes, change{at, at, "\n  with = { " + strings.Join(added, ", ") + " }"})
	}
	return changes, nil
}

// literal writes a value.
func literal(value string) (string, error) {
	if plainValue.MatchString(value) {
		return value, nil
	}
	if strings.ContainsAny(value[:min(1, len(value))], `[{"`) {
		return composed(value)
	}
	for _, r := range value {
		if r < ' ' || r > '~' {
			return "", fmt.Errorf("its value has a character that is not printable ASCII")
		}
	}
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(value)), nil
}

// composed writes a list, an object or a quoted string anew, from what it says: nothing else can come into the file with it.
func composed(value string) (string, error) {
	expr, ds := hclsyntax.ParseExpression([]byte(value), "", hcl.InitialPos)
	if !ds.HasErrors() {
		v, more := expr.Value(nil)
		if ds = more; !ds.HasErrors() {
			return inLine(hclwrite.TokensForValue(v)), nil
		}
	}
	return "", fmt.Errorf(`%s begins as a list, an object or a quoted string, and cannot be read as one (%s: %s); write it as JSON or HCL, such as ["a", "b"] or { a = 1 }, with no references and functions in it`,
		value, strings.TrimSuffix(ds[0].Summary, "."), strings.TrimSuffix(ds[0].Detail, "."))
}

// inLine writes a value in one line, so that all that follows stays in its own.
func inLine(tokens hclwrite.Tokens) string {
	for i, t := range tokens {
		switch {
		case t.Type != hclsyntax.TokenNewline:
		case tokens[i-1].Type == hclsyntax.TokenOBrace: // there is one before every line
			t.Bytes = nil
		case tokens[i+1].Type == hclsyntax.TokenCBrace:
			t.Bytes = []byte(" ")
		default:
			t.Bytes = []byte(",")
		}
	}
	return string(tokens.Bytes())
}

// ClusterName gives the name of the cluster that a file declares.
func ClusterName(name string, src []byte) (string, error) {
	bag := diag.NewBag(map[string][]byte{name: src})
	if body, ok := diag.Parse(bag, name, src); ok {
		for _, b := range body.Blocks {
			if b.Type == "cluster" && len(b.Labels) == 1 {
				return b.Labels[0], nil
			}
		}
		return "", fmt.Errorf("there is no cluster block")
	}
	return "", bag.Done("").Err()
}
