package value

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// Kind is the constructor of a Type.
type Kind uint8

// The kinds of types. Those from Address to Path are domain types: strings whose form is checked at every boundary
// (Certificate is an object of PEM strings).
const (
	Any Kind = iota // the type of the expression given; an output may repeat it
	Bool
	Number
	String
	List   // of Elem
	Set    // of Elem
	Map    // of Elem, keyed by strings
	Object // of Attrs
	Address
	CIDR
	FQDN
	URL
	Duration
	DigestKind
	CSR
	Path // a file on this node; never crosses nodes
	Certificate
	Secret // of Elem; expressions and the journal see its Handle alone
)

// Type is the declared type of a step's input or output. The zero value is `any`. Types are immutable.
type Type struct {
	Kind  Kind
	Elem  *Type           // element of List, Set, Map and Secret
	Attrs map[string]Attr // attributes of Object
}

// Attr is an attribute of an object type.
type Attr struct {
	Type     Type
	Optional bool
}

// word is the bare word of the language for a kind, empty for those that take an argument.
func (k Kind) word() string {
	switch k {
	case Any:
		return "any"
	case Bool:
		return "bool"
	case Number:
		return "number"
	case String:
		return "string"
	case Address:
		return "address"
	case CIDR:
		return "cidr"
	case FQDN:
		return "fqdn"
	case URL:
		return "url"
	case Duration:
		return "duration"
	case DigestKind:
		return "digest"
	case CSR:
		return "csr"
	case Path:
		return "path"
	case Certificate:
		return "certificate"
	}
	return ""
}

// Named gives the type that a bare word of the language stands for, such as "fqdn".
func Named(word string) (Type, bool) {
	for kind := Any; kind <= Secret; kind++ {
		if word != "" && kind.word() == word {
			return Type{Kind: kind}, true
		}
	}
	return Type{}, false
}

// Names lists the bare words that Named knows, sorted.
func Names() []string {
	var words []string
	for kind := Any; kind <= Secret; kind++ {
		if word := kind.word(); word != "" {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return words
}

// Of makes the type `kind(elem)`, for List, Set, Map and Secret.
func Of(kind Kind, elem Type) Type { return Type{Kind: kind, Elem: &elem} }

// String gives the type as it is written in the language.
func (t Type) String() string {
	switch t.Kind {
	case List:
		return "list(" + t.Elem.String() + ")"
	case Set:
		return "set(" + t.Elem.String() + ")"
	case Map:
		return "map(" + t.Elem.String() + ")"
	case Secret:
		return "secret(" + t.Elem.String() + ")"
	case Object:
		var b strings.Builder
		b.WriteString("object({")
		for i, name := range slices.Sorted(maps.Keys(t.Attrs)) {
			if i > 0 {
				b.WriteByte(',')
			}
			a := t.Attrs[name]
			if a.Optional {
				fmt.Fprintf(&b, " %s = optional(%s)", name, a.Type)
			} else {
				fmt.Fprintf(&b, " %s = %s", name, a.Type)
			}
		}
		b.WriteString(" })")
		return b.String()
	}
	return t.Kind.word()
}

// Equal reports whether two types are the same.
func (t Type) Equal(o Type) bool {
	if t.Kind != o.Kind || (t.Elem == nil) != (o.Elem == nil) || len(t.Attrs) != len(o.Attrs) {
		return false
	}
	if t.Elem != nil && !t.Elem.Equal(*o.Elem) {
		return false
	}
	for name, a := range t.Attrs {
		if b, ok := o.Attrs[name]; !ok || a.Optional != b.Optional || !a.Type.Equal(b.Type) {
			return false
		}
	}
	return true
}

// Holds reports whether the type is, or contains, one of the given kind.
func (t Type) Holds(kind Kind) bool {
	if t.Kind == kind || t.Elem != nil && t.Elem.Holds(kind) {
		return true
	}
	for _, a := range t.Attrs {
		if a.Type.Holds(kind) {
			return true
		}
	}
	return false
}

// Cty is the type that values of t have inside expressions. Domain types are strings there, and a secret is a string
// that stands for it (see Handle).
func (t Type) Cty() cty.Type {
	switch t.Kind {
	case Any:
		return cty.DynamicPseudoType
	case Bool:
		return cty.Bool
	case Number:
		return cty.Number
	case List:
		return cty.List(t.Elem.Cty())
	case Set:
		return cty.Set(t.Elem.Cty())
	case Map:
		return cty.Map(t.Elem.Cty())
	case Object:
		attrs, optional := make(map[string]cty.Type, len(t.Attrs)), []string(nil)
		for name, a := range t.Attrs {
			attrs[name] = a.Type.Cty()
			if a.Optional {
				optional = append(optional, name)
			}
		}
		return cty.ObjectWithOptionalAttrs(attrs, optional)
	case Certificate:
		return cty.Object(map[string]cty.Type{"leaf": cty.String, "chain": cty.String, "root": cty.String})
	}
	return cty.String
}
