package read

import (
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"joist/engine/model"
	"joist/engine/value"
	"joist/workflows/lang/diag"
	"joist/workflows/lang/expr"
)

// leastDrift is how often an instance may be verified at most.
const leastDrift = 10 * time.Second

// Drift reads a cluster file's drift = { every = "1h", at_once = 16, converge = "itself" }.
func (r *Reader) Drift() model.Drift {
	d := model.Drift{Every: model.DriftEvery, AtOnce: model.DriftAtOnce}
	known := []string{"every", "at_once", "converge"}
	for _, p := range r.Pairs("drift") {
		switch p.Name {
		case "every":
			d.Every = r.driftEvery(p.Value)
		case "at_once":
			if v, ok := expr.Constant(r.Bag, p.Value, value.Type{Kind: value.Number}); ok {
				n, accuracy := v.Cty().AsBigFloat().Int64()
				if accuracy != 0 || n < 1 || n > 100_000 {
					r.Bag.Errorf(p.Value.Range(), "Write a whole number, at least 1: so many nodes verify something at once.", "at_once is not a number of that kind")
				}
				d.AtOnce = int(n)
			}
		case "converge":
			words := []string{"itself", "person"}
			switch word := r.wordOf(p.Value); word {
			case "itself", "":
			case "person":
				d.Waits = true
			default:
				r.Bag.Errorf(p.Value.Range(), diag.Suggest(word, words), "drift converges by itself or waits for a person, it knows no %q", word)
			}
		default:
			r.Bag.Errorf(p.At, diag.Suggest(p.Name, slices.Clone(known)), "nothing of drift is called %q", p.Name)
		}
	}
	return d
}

func (r *Reader) wordOf(e hclsyntax.Expression) string {
	v, ok := expr.Constant(r.Bag, e, value.Type{Kind: value.String})
	if !ok {
		return ""
	}
	return v.Cty().AsString()
}

func (r *Reader) driftEvery(e hclsyntax.Expression) time.Duration {
	word := r.wordOf(e)
	if word == "" || word == "never" {
		return 0
	}
	every, err := time.ParseDuration(word)
	if err != nil || every < leastDrift {
		r.Bag.Errorf(e.Range(), `Write a form such as "30m" or "6h", at least "10s", or "never".`, "%q is not how often to verify", word)
	}
	return every
}
