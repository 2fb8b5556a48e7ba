package model

import (
	"reflect"
	"slices"

	"joist/engine/value"
)

// Alike reports whether planning with one model or the other makes no difference. Models that differ in what their
// digests cover beside, such as the names of nodes in the cluster file or the text of documentation, are alike.
func Alike(a, b *Model) bool {
	if a == b {
		return true
	}
	return a.Trust == b.Trust && a.Storage == b.Storage && alikeInputs(a.Inputs, b.Inputs) &&
		reflect.DeepEqual(a.Rollouts, b.Rollouts) && slices.EqualFunc(a.Tasks, b.Tasks, alikeTasks)
}

func alikeInputs(a, b map[string]value.Value) bool {
	if len(a) != len(b) {
		return false
	}
	for name, v := range a {
		if w, ok := b[name]; !ok || !v.Equal(w) {
			return false
		}
	}
	return true
}

func alikeTasks(a, b Task) bool {
	return a.Name == b.Name && a.On == b.On && a.Asked == b.Asked && slices.Equal(a.Each, b.Each) && slices.Equal(a.After, b.After) && slices.Equal(a.Except, b.Except) &&
		slices.Equal(a.During, b.During) && slices.Equal(a.Guards, b.Guards) &&
		(a.When == nil) == (b.When == nil) && (a.When == nil || alikeArguments(*a.When, *b.When)) &&
		slices.EqualFunc(a.With, b.With, alikeArguments) && alikeSteps(a.Step, b.Step)
}

func alikeArguments(a, b Argument) bool {
	return a.Name == b.Name && a.Digest == b.Digest && a.Shared == b.Shared && slices.Equal(a.Refs, b.Refs)
}

func alikeSteps(a, b *Step) bool {
	return a.Name == b.Name && slices.Equal(a.Was, b.Was) && a.Scope == b.Scope && a.Once == b.Once && a.Reboots == b.Reboots && a.Scout == b.Scout && a.Digest == b.Digest && a.Apply.Valid == b.Apply.Valid && a.Pure() == b.Pure() &&
		slices.EqualFunc(a.Inputs, b.Inputs, alikeFields) && slices.EqualFunc(a.Outputs, b.Outputs, alikeFields)
}

func alikeFields(a, b Field) bool {
	return a.Name == b.Name && a.Optional == b.Optional && a.Type.Equal(b.Type) && (a.Default == nil) == (b.Default == nil) &&
		(a.Default == nil || a.Default.Equal(*b.Default))
}
