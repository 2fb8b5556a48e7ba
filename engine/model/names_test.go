package model_test

import (
	"maps"
	"testing"

	"joist/engine/model"
)

// version makes a model of tasks, each with what it was called before, that stand by the names given.
func version(stands map[string]string, tasks ...[]string) *model.Model {
	m := &model.Model{}
	for _, names := range tasks {
		m.Tasks = append(m.Tasks, model.Task{Name: model.Stand(stands, names[0]), Called: names[0], Was: names[1:]})
	}
	return m
}

func TestNamesAfter(t *testing.T) {
	a := version(nil, []string{"a"}, []string{"b"})
	c := version(map[string]string{"c": "a"}, []string{"c", "a"}, []string{"b"})
	both := version(map[string]string{"c": "a", "a": "a~2"}, []string{"c"}, []string{"a"})
	for name, k := range map[string]struct {
		now    *model.Model
		before []*model.Model
		want   map[string]string
	}{
		"nothing before":                {version(nil, []string{"c", "a"}), nil, nil},
		"not renamed":                   {version(nil, []string{"a"}, []string{"b"}), []*model.Model{a}, nil},
		"renamed":                       {version(nil, []string{"c", "a"}), []*model.Model{a}, map[string]string{"c": "a"}},
		"renamed, and not said":         {version(nil, []string{"c"}), []*model.Model{a}, nil},
		"said no more":                  {version(nil, []string{"c"}, []string{"b"}), []*model.Model{c, a}, map[string]string{"c": "a"}},
		"renamed again":                 {version(nil, []string{"d", "c"}), []*model.Model{c}, map[string]string{"d": "a"}},
		"over a version":                {version(nil, []string{"d", "a", "c"}), []*model.Model{a}, map[string]string{"d": "a"}},
		"back":                          {version(nil, []string{"a"}, []string{"b"}), []*model.Model{c, a}, nil},
		"its name is another's":         {version(nil, []string{"c"}, []string{"a"}), []*model.Model{c}, map[string]string{"c": "a", "a": "a~2"}},
		"and stays so":                  {version(nil, []string{"a"}, []string{"c"}), []*model.Model{both}, map[string]string{"c": "a", "a": "a~2"}},
		"two become one":                {version(nil, []string{"c", "b", "a"}), []*model.Model{a}, map[string]string{"c": "b"}},
		"one is there and goes on":      {version(nil, []string{"b", "a"}), []*model.Model{a}, nil},
		"two claim one, in turn":        {version(nil, []string{"c", "a"}, []string{"d", "a"}), []*model.Model{a}, map[string]string{"c": "a"}},
		"it is being removed meanwhile": {version(nil, []string{"c", "a"}), []*model.Model{version(nil, []string{"b"}), a}, map[string]string{"c": "a"}},
	} {
		if got := model.NamesAfter(k.now, k.before).Tasks; !maps.Equal(got, k.want) {
			t.Errorf("%s: stand by %v, want %v", name, got, k.want)
		}
	}
}
