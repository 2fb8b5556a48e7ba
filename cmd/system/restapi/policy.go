package restapi

import (
	"fmt"
	"time"

	"joist/engine/history"
	"joist/engine/policy"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
)

// refusalOf gives what a policy refuses the form in which it travels.
func refusalOf(r *policy.Refusal) v1.Refusal {
	at := r.Policy.Range
	out := v1.Refusal{
		Policy: r.Policy.Name, At: fmt.Sprintf("%s:%d:%d", at.File, at.Line, at.Col), Refuses: string(r.Policy.Refuse), Has: r.Has,
		Says: r.Says(), Advice: r.Advice(), MayForce: r.Policy.Override,
	}
	if !r.Opens.IsZero() {
		out.Passes = r.Opens.UTC()
	}
	if r.By != nil {
		out.Reason = r.By.Reason
	}
	return out
}

func overridesOf(list []v1.Override) []history.Override {
	var out []history.Override
	for _, o := range list {
		out = append(out, history.Override(o))
	}
	return out
}

// said is what a person says with a declaration.
func said(in v1.Apply) clusters.Said {
	return clusters.Said{By: in.By, Overrides: overridesOf(in.Overrides), Life: time.Duration(in.TTL * float64(time.Second)), Run: in.Run}
}
