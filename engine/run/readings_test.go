package run

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/value"
)

// shelf is a library that counts how often a large value is asked for.
type shelf struct {
	blobs map[value.Digest][]byte
	asked int
}

func (s *shelf) Model(history.Goal) *model.Model { return nil }

func (s *shelf) Blob(d value.Digest) []byte {
	s.asked++
	return s.blobs[d]
}

// TestReadings: what a thousand nodes were given alike is fetched and read once, for each type that it is read as; what
// cannot be read is no value; and what is remembered is bounded.
func TestReadings(t *testing.T) {
	s := &shelf{blobs: map[value.Digest][]byte{}}
	keep := func(data string) []byte {
		sum := sha256.Sum256([]byte(data))
		s.blobs[sum] = []byte(data)
		return fmt.Appendf(nil, `{"$large":"%x"}`, sum)
	}
	m := New(history.New(), s)
	texts := &model.Task{Name: "a", Step: &model.Step{Inputs: []model.Field{{Name: "in", Type: value.Type{Kind: value.String}}}}}
	numbers := &model.Task{Name: "b", Step: &model.Step{Inputs: []model.Field{{Name: "in", Type: value.Type{Kind: value.Number}}}}}
	data := keep(`"12"`)
	for range 1000 {
		v, err := m.read(texts, &texts.Step.Inputs[0], data)
		if err != nil || v.Cty().AsString() != "12" {
			t.Fatalf("read %v, %v", v, err)
		}
	}
	if s.asked != 1 {
		t.Errorf("it was fetched %d times", s.asked)
	}
	if _, err := m.read(numbers, &numbers.Step.Inputs[0], keep(`"twelve"`)); err == nil {
		t.Error("a text was read as a number")
	}
	for i := range 100 {
		if v, err := m.read(texts, &texts.Step.Inputs[0], keep(fmt.Sprintf(`"%d"`, i))); err != nil || v.Cty().AsString() != fmt.Sprint(i) {
			t.Fatalf("read %v, %v", v, err)
		}
	}
	if len(m.readings) > mostReadings {
		t.Errorf("%d values are remembered", len(m.readings))
	}
	if _, err := m.read(texts, &texts.Step.Inputs[0], fmt.Appendf(nil, `{"$large":"%064x"}`, 1)); err == nil {
		t.Error("a value was read that is not there")
	}
	small := `"small"`
	if v, err := m.read(texts, &texts.Step.Inputs[0], []byte(small)); err != nil || v.Cty().AsString() != "small" {
		t.Errorf("read %v, %v", v, err)
	}
}
