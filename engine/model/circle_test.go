package model

import (
	"fmt"
	"strings"
	"testing"
)

// drawn reads tasks such as "x each=a on=a host=y except=t after=z all=u any=v".
func drawn(lines ...string) []Task {
	var tasks []Task
	for _, line := range lines {
		words := strings.Fields(line)
		t := Task{Name: words[0], Step: &Step{}}
		for _, w := range words[1:] {
			key, v, _ := strings.Cut(w, "=")
			switch key {
			case "each":
				t.Each = strings.Split(v, ",")
			case "on":
				t.On = v
			case "except":
				t.Except = append(t.Except, v)
			case "after":
				t.After = append(t.After, After{Task: v})
			case "any":
				t.After = append(t.After, After{Task: v, All: true, Share: Any})
			default:
				kind := map[string]RefKind{"host": RefHost, "all": RefAll}[key]
				t.With = append(t.With, Argument{Refs: []Ref{{Kind: kind, Name: v}}})
			}
		}
		tasks = append(tasks, t)
	}
	return tasks
}

func TestCircles(t *testing.T) {
	for what, test := range map[string]struct{ tasks, want string }{
		"none without a host":               {"t each=a; x each=a on=a except=t", ""},
		"none where it needs another thing": {"t each=a; h each=a; x each=a on=a host=h except=t", ""},
		"what it makes way for itself":      {"t each=a; x each=a on=a host=t except=t", "x of t by [t] sure"},
		"by way of others":                  {"t each=a; u each=a after=t; h each=a after=u; x each=a on=a host=h except=t", "x of t by [h u t] sure"},
		"by way of a gather":                {"t each=a; h each=b all=t; x each=a on=b host=h except=t", "x of t by [h t] sure"},
		"by way of a single one":            {"t each=a; u all=t; h each=b after=u; x each=a on=b host=h except=t", "x of t by [h u t] sure"},
		"if the nodes are the same":         {"t each=a,b; h each=b after=t; x each=a on=b host=h except=t", "x of t by [h t]"},
		"any of them will do":               {"t each=a,b; h each=b any=t; x each=a on=b host=h except=t", "x of t by [h t]"},
		"any, and all are in the way":       {"t each=a,b; h each=b any=t; x each=a,b on=b host=h except=t", "x of t by [h t] sure"},
		"by way of another that makes way":  {"t each=a; u each=a; x each=a on=a host=u except=t; y each=a on=a host=t except=u", "x of t by [u t] sure; y of u by [t u] sure"},
		"what makes way for who makes way":  {"t each=a; x each=a except=t; y each=a on=a host=t except=x", "y of t by [t] sure"},
		"a single one":                      {"t; h each=a after=t; x on=a host=h except=t", "x of t by [h t] sure"},
	} {
		t.Run(what, func(t *testing.T) {
			var got []string
			for _, c := range Circles(drawn(strings.Split(test.tasks, "; ")...)) {
				line := fmt.Sprintf("%s of %s by %v", c.Task, c.Of, c.Via)
				if c.Sure {
					line += " sure"
				}
				got = append(got, line)
			}
			if strings.Join(got, "; ") != test.want {
				t.Errorf("found %q, want %q", got, test.want)
			}
		})
	}
}
