package clusters

import (
	"context"
	"errors"
	"strings"
	"testing"

	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// reads is an expression about one name: an input of the workflow or of a step, or an output of a task.
type reads model.Ref

func (r reads) Refs() []model.Ref                           { return []model.Ref{model.Ref(r)} }
func (r reads) Eval(scope model.Scope) (value.Value, error) { return scope.Lookup(model.Ref(r)), nil }

func argument(name string, e model.Expr) model.Argument {
	return model.Argument{Name: name, Expr: e, Refs: e.Refs()}
}

// TestForeseen: services are asked about exactly those calls that are known before machines are chosen, and their refusals
// are about the workflow's input that is to blame.
func TestForeseen(t *testing.T) {
	fqdn, number := value.Type{Kind: value.FQDN}, value.Type{Kind: value.Number}
	port := value.Int(6443)
	front := &model.Step{Name: "base.balancer", Scope: model.Service, Apply: model.Action{Call: "balance.front"},
		Inputs: []model.Field{{Name: "name", Type: fqdn}, {Name: "port", Type: number, Default: &port}, {Name: "ready", Type: value.Type{Kind: value.String}, Optional: true}}}
	domain := reads{Kind: model.RefInput, Name: "domain"}
	c := &Compiled{Model: &model.Model{
		Cluster: "demo",
		Inputs:  map[string]value.Value{"domain": value.Text("demo.lab"), "wanted": value.Truth(false)},
		Tasks: []model.Task{
			{Name: "record", Each: []string{"m"}, Step: front, With: []model.Argument{argument("name", domain)}},
			{Name: "later", Step: front, With: []model.Argument{argument("name", reads{Kind: model.RefTask, Name: "record", Attr: "fqdn"})}},
			{Name: "unwanted", Step: front, With: []model.Argument{argument("name", domain)}, When: &model.Argument{Expr: reads{Kind: model.RefInput, Name: "wanted"}}},
			{Name: "node", Step: &model.Step{Scope: model.Node, Apply: model.Action{Builtin: "key"}}},
			{Name: "front", Step: front, With: []model.Argument{argument("name", domain)}},
		},
	}}
	var asked []step.Call
	var refusal *step.Refusal
	var failure error
	ask := []step.Foresee{
		func(context.Context, []step.Call) (*step.Refusal, error) { return nil, nil },
		func(_ context.Context, calls []step.Call) (*step.Refusal, error) {
			asked = calls
			return refusal, failure
		},
	}
	if err := c.foreseen(t.Context(), ask); err != nil {
		t.Error(err)
	}
	if len(asked) != 1 || asked[0].Owner != "demo/front" || asked[0].Name != "balance.front" || string(asked[0].Inputs) != `{"name":"demo.lab","port":6443,"ready":null}` {
		t.Errorf("asked about %+v", asked)
	}
	refusal = &step.Refusal{Call: 0, Input: "name", Why: "it is taken", Advice: "Choose another."}
	var about string
	c.Refuse = func(_, input, advice, summary string) error {
		about = input
		return errors.New(summary + ": " + advice)
	}
	if err := c.foreseen(t.Context(), ask); err == nil || err.Error() != "it is taken: Choose another." || about != "domain" {
		t.Errorf("%v, about %q", err, about)
	}
	refusal, failure = nil, errors.New("the table cannot be read")
	if err := c.foreseen(t.Context(), ask); !errors.Is(err, failure) {
		t.Error(err)
	}
}

// TestLed: a slot's step that only passes on a URL is refused if that leads nowhere.
func TestLed(t *testing.T) {
	for link, want := range map[string]string{
		"https://192.0.2.7:6443":     "",
		"https://api.demo.lab:6443":  "",
		"https://127.0.0.1:6443":     "",
		"https://0.0.0.0:6443":       "url of task endpoint is https://0.0.0.0:6443, which leads to no machine",
		"https://[::]:6443":          "which leads to no machine",
		"https://224.0.0.1:6443":     "which leads to no machine",
		"https://10.32.0.1:6443":     "url of task endpoint is https://10.32.0.1:6443, in the cluster's own network services (10.32.0.0/16)",
		"https://[::ffff:10.32.0.9]": "in the cluster's own network services (10.32.0.0/16)",
	} {
		fixed := &model.Step{
			Name: "p.fixed", Scope: model.Cluster, Inputs: []model.Field{{Name: "link", Type: value.Type{Kind: value.URL}}}, Outputs: []model.Field{{Name: "url", Type: value.Type{Kind: value.URL}}},
			Apply: model.Action{Outputs: map[string]model.Argument{"url": argument("url", reads{Kind: model.RefStep, Name: "link"})}},
		}
		c := &Compiled{Model: &model.Model{
			Cluster: "demo", Inputs: map[string]value.Value{"link": value.Text(link), "services": value.Text("10.32.0.0/16")},
			Tasks: []model.Task{
				{Name: "network", Step: &model.Step{Apply: model.Action{Call: "reserve.network"}}, Each: []string{"m"}, With: []model.Argument{argument("within", reads{Kind: model.RefInput, Name: "services"})}},
				{Name: "endpoint", Step: fixed, With: []model.Argument{argument("link", reads{Kind: model.RefInput, Name: "link"})}},
			},
		}}
		try := func(how string) {
			if err := c.foreseen(t.Context(), nil); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v", link, how, err)
			}
		}
		try("once")
		// The same on each node, beside an input that depends on machines.
		fixed.Inputs = append(fixed.Inputs, model.Field{Name: "servers", Type: value.Type{Kind: value.String}, Optional: true})
		endpoint := &c.Model.Tasks[1]
		endpoint.Each, endpoint.With = []string{"m"}, append(endpoint.With, argument("servers", reads{Kind: model.RefRole, Name: "m"}))
		try("on each node")
		// What depends on machines itself is not known, whatever its input's default is.
		nowhere := value.Text("https://0.0.0.0")
		fixed.Inputs[0].Default, endpoint.With[0] = &nowhere, argument("link", reads{Kind: model.RefNode, Attr: "address"})
		want = ""
		try("of a node")
	}
}
