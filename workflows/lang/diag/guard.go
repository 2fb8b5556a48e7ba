package diag

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Limits of one source file. HCL's parser is recursive and has no limit of its own: deep nesting ends the whole process
// with a stack overflow that cannot be recovered from.
const (
	MaxSource  = 1 << 20 // bytes
	maxDepth   = 100     // brackets, quotes and interpolations inside one another
	maxChain   = 500     // operators in a row: each nests the expression one deeper
	maxNumeral = 40      // characters of a number
)

// Parse reads a source file after it has made sure that the parser survives it. It reports false if there is no body
// worth looking at.
func Parse(bag *Bag, name string, src []byte) (*hclsyntax.Body, bool) {
	if !guard(bag, name, src) {
		return nil, false
	}
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	bag.AddHCL(diags)
	if file == nil {
		return nil, false
	}
	body, ok := file.Body.(*hclsyntax.Body)
	return body, ok && !diags.HasErrors()
}

// frame is an open bracket and what was seen directly inside it.
type frame struct {
	chain  int
	breaks bool // a line break ends an expression here
	empty  bool
}

func guard(bag *Bag, name string, src []byte) bool {
	start := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
	if len(src) > MaxSource {
		bag.Errorf(start, "Split it into several files.", "the file has %d bytes; at most %d are read", len(src), MaxSource)
		return false
	}
	if !utf8.Valid(src) {
		bag.Errorf(start, "Save it as UTF-8.", "the file is not UTF-8 text")
		return false
	}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // the parser reports what the lexer finds
	stack := []frame{{breaks: true}}
	for i := range tokens {
		if why := push(&stack, &tokens[i]); why != "" {
			bag.Errorf(tokens[i].Range, "Write it in simpler parts: outputs of a step of their own, or shorter expressions.", "%s", why)
			return false
		}
	}
	return true
}

func push(stack *[]frame, t *hclsyntax.Token) string {
	s := *stack
	top := &s[len(s)-1]
	first := top.empty
	top.empty = false
	switch t.Type {
	case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc,
		hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		top.chain++
		if t.Type == hclsyntax.TokenOBrace || t.Type == hclsyntax.TokenTemplateInterp || t.Type == hclsyntax.TokenOQuote || t.Type == hclsyntax.TokenOHeredoc {
			top.chain-- // these follow one another without nesting
		}
		*stack = append(s, frame{breaks: t.Type == hclsyntax.TokenOBrace, empty: true})
		if len(*stack) > maxDepth {
			return fmt.Sprintf("nested more than %d deep", maxDepth)
		}
	case hclsyntax.TokenCBrace, hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
		if len(s) > 1 {
			*stack = s[:len(s)-1]
		}
	case hclsyntax.TokenIdent:
		if first && string(t.Bytes) == "for" {
			top.breaks = false
		}
	case hclsyntax.TokenComma:
		top.chain = 0
	case hclsyntax.TokenNewline:
		if top.breaks {
			top.chain = 0
		}
		top.empty = first
	case hclsyntax.TokenNumberLit:
		return numeral(string(t.Bytes))
	case hclsyntax.TokenComment, hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit, hclsyntax.TokenEOF, hclsyntax.TokenEqual:
	default:
		top.chain++
	}
	if top.chain > maxChain {
		return fmt.Sprintf("more than %d operators in one expression", maxChain)
	}
	return ""
}

// numeral refuses numbers that take gigabytes once they are written out.
func numeral(text string) string {
	_, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if len(text) > maxNumeral || len(strings.TrimLeft(exponent, "+-0")) > 2 {
		return "a number that is far too long"
	}
	return ""
}
