package expr

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// table is the fixed set of functions; it is never written to. All are pure: no time, no randomness, no files.
var table = map[string]function.Function{
	"abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "floor": stdlib.FloorFunc, "min": stdlib.MinFunc, "max": stdlib.MaxFunc,
	"coalesce": stdlib.CoalesceFunc, "compact": stdlib.CompactFunc, "concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc,
	"distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc, "flatten": stdlib.FlattenFunc, "format": limited(stdlib.FormatFunc, wideFormat),
	"join": stdlib.JoinFunc, "jsonencode": stdlib.JSONEncodeFunc, "keys": stdlib.KeysFunc, "length": lengthFunc, "lookup": stdlib.LookupFunc,
	"lower": stdlib.LowerFunc, "merge": stdlib.MergeFunc, "replace": limited(stdlib.ReplaceFunc, longReplace), "reverse": stdlib.ReverseListFunc,
	"setintersection": stdlib.SetIntersectionFunc, "setsubtract": stdlib.SetSubtractFunc, "setunion": stdlib.SetUnionFunc,
	"slice": stdlib.SliceFunc, "sort": stdlib.SortFunc, "split": stdlib.SplitFunc, "substr": stdlib.SubstrFunc,
	"trim": stdlib.TrimFunc, "trimprefix": stdlib.TrimPrefixFunc, "trimspace": stdlib.TrimSpaceFunc, "trimsuffix": stdlib.TrimSuffixFunc,
	"upper": stdlib.UpperFunc, "values": stdlib.ValuesFunc, "zipmap": stdlib.ZipmapFunc,

	"tobool": conversion(cty.Bool), "tonumber": conversion(cty.Number), "tostring": conversion(cty.String),
	"tolist": conversion(cty.List(cty.DynamicPseudoType)), "toset": conversion(cty.Set(cty.DynamicPseudoType)),
	"tomap": conversion(cty.Map(cty.DynamicPseudoType)),

	"kib": scaled(1 << 10), "mib": scaled(1 << 20), "gib": scaled(1 << 30), "tib": scaled(1 << 40),
	"cidrhost": cidrHostFunc, "cidrsubnet": cidrSubnetFunc, "cidrprefix": cidrPrefixFunc, "cidrcontains": cidrContainsFunc, "cidrsize": cidrSizeFunc,
}

// Functions lists the names of all functions, sorted.
func Functions() []string { return slices.Sorted(maps.Keys(table)) }

// lengthFunc counts characters of strings as well as elements.
var lengthFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowDynamicType: true, AllowMarked: true}}, // there are no marks: nothing need be looked for
	Type: func(args []cty.Value) (cty.Type, error) {
		t := args[0].Type()
		if t == cty.String || t == cty.DynamicPseudoType || t.IsCollectionType() || t.IsTupleType() || t.IsObjectType() {
			return cty.Number, nil
		}
		return cty.Number, errors.New("expected a list, set, map, object or string")
	},
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		switch t := args[0].Type(); {
		case t == cty.String:
			return stdlib.Strlen(args[0])
		case t.IsObjectType():
			return cty.NumberIntVal(int64(len(t.AttributeTypes()))), nil
		}
		return args[0].Length(), nil
	},
})

func conversion(want cty.Type) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true}},
		Type: func(args []cty.Value) (cty.Type, error) {
			have := args[0].Type()
			if have == cty.DynamicPseudoType || have.Equals(want) {
				return want, nil
			}
			v, err := convert.Convert(cty.UnknownVal(have), want)
			if err != nil {
				return want, function.NewArgErrorf(0, "cannot make this a %s: %s", want.FriendlyName(), err)
			}
			return v.Type(), nil
		},
		Impl: func(args []cty.Value, t cty.Type) (cty.Value, error) { return convert.Convert(args[0], t) },
	})
}

func scaled(by int64) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "count", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return args[0].Multiply(cty.NumberIntVal(by)), nil
		},
	})
}

const longest = 16 << 20 // bytes of a string that replace makes

// limited refuses calls whose result could be far larger than their arguments.
func limited(f function.Function, refuse func(args []cty.Value) error) function.Function {
	return function.New(&function.Spec{
		Params: f.Params(), VarParam: f.VarParam(),
		Type: func(args []cty.Value) (cty.Type, error) {
			for _, a := range args {
				if !a.IsKnown() || a.IsNull() {
					return f.ReturnTypeForValues(args)
				}
			}
			if err := refuse(args); err != nil {
				return cty.String, err
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}

// wide matches a directive of format with a width or precision of five digits or more.
var wide = regexp.MustCompile(`%[^a-zA-Z%]*[0-9]{5}`)

func wideFormat(args []cty.Value) error {
	if wide.MatchString(args[0].AsString()) {
		return function.NewArgErrorf(0, "a width of more than 9999 is not supported")
	}
	return nil
}

func longReplace(args []cty.Value) error {
	s, from, to := args[0].AsString(), args[1].AsString(), args[2].AsString()
	if strings.Count(s, from)*len(to)+len(s) > longest {
		return fmt.Errorf("the result would have more than %d bytes", longest)
	}
	return nil
}

func prefixArg(v cty.Value) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v.AsString())
	if err != nil {
		return p, function.NewArgErrorf(0, "%q is not a network; expected a form such as 10.0.0.0/24", v.AsString())
	}
	return p.Masked(), nil
}

var (
	networkParam = function.Parameter{Name: "network", Type: cty.String}
	numberParam  = function.Parameter{Name: "number", Type: cty.Number}
)

// offset adds n to an address, and reports whether the sum lies within p.
func offset(p netip.Prefix, n *big.Int) (netip.Addr, bool) {
	sum := new(big.Int).Add(new(big.Int).SetBytes(p.Addr().AsSlice()), n)
	size := p.Addr().BitLen() / 8
	if sum.Sign() < 0 || sum.BitLen() > size*8 {
		return netip.Addr{}, false
	}
	a, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, size)))
	return a, p.Contains(a)
}

func whole(v cty.Value, arg int) (*big.Int, error) {
	f := v.AsBigFloat()
	n, acc := f.Int(nil)
	if acc != big.Exact || n == nil || n.BitLen() > 128 {
		return nil, function.NewArgErrorf(arg, "expected a whole number")
	}
	return n, nil
}

// cidrhost("10.0.0.0/24", 5) is "10.0.0.5"; a negative number counts from the end.
var cidrHostFunc = function.New(&function.Spec{
	Params: []function.Parameter{networkParam, numberParam},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		n, err := whole(args[1], 1)
		if err != nil {
			return cty.NilVal, err
		}
		if n.Sign() < 0 {
			n = new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits())), n)
		}
		a, ok := offset(p, n)
		if !ok || n.Sign() < 0 {
			return cty.NilVal, function.NewArgErrorf(1, "%s has no host %s", p, n)
		}
		return cty.StringVal(a.String()), nil
	},
})

// cidrsubnet("10.0.0.0/16", 8, 3) is "10.0.3.0/24".
var cidrSubnetFunc = function.New(&function.Spec{
	Params: []function.Parameter{networkParam, {Name: "newbits", Type: cty.Number}, numberParam},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		more, err := whole(args[1], 1)
		if err != nil {
			return cty.NilVal, err
		}
		n, err := whole(args[2], 2)
		if err != nil {
			return cty.NilVal, err
		}
		if more.Sign() < 0 || more.BitLen() > 8 || p.Bits()+int(more.Int64()) > p.Addr().BitLen() {
			return cty.NilVal, function.NewArgErrorf(1, "%s cannot be divided by %s more bits", p, more)
		}
		bits := p.Bits() + int(more.Int64())
		a, ok := offset(p, new(big.Int).Lsh(n, uint(p.Addr().BitLen()-bits)))
		if !ok {
			return cty.NilVal, function.NewArgErrorf(2, "%s has no part %s of %d bits", p, n, bits)
		}
		return cty.StringVal(netip.PrefixFrom(a, bits).String()), nil
	},
})

// cidrprefix("10.0.0.0/24") is 24.
var cidrPrefixFunc = function.New(&function.Spec{
	Params: []function.Parameter{networkParam},
	Type:   function.StaticReturnType(cty.Number),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		return cty.NumberIntVal(int64(p.Bits())), err
	},
})

// cidrSizeFunc is how many addresses a network has.
var cidrSizeFunc = function.New(&function.Spec{
	Params: []function.Parameter{networkParam},
	Type:   function.StaticReturnType(cty.Number),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		size := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
		return cty.NumberVal(new(big.Float).SetInt(size)), nil
	},
})

// cidrcontains("10.0.0.0/24", "10.0.0.7") is true.
var cidrContainsFunc = function.New(&function.Spec{
	Params: []function.Parameter{networkParam, {Name: "address", Type: cty.String}},
	Type:   function.StaticReturnType(cty.Bool),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		a, err := netip.ParseAddr(args[1].AsString())
		if err != nil {
			return cty.NilVal, function.NewArgErrorf(1, "%q is not an address", args[1].AsString())
		}
		return cty.BoolVal(p.Contains(a)), nil
	},
})
