package clusters

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"joist/engine/model"
)

// naming is the world's compiler with two words more: "task=NAME" is what its task is called, and "about=NAME" a policy about one.
type naming struct{ w *world }

func (n naming) Compile(ctx context.Context, s Source) (*Compiled, error) {
	plain, about, called := s, "", "s"
	var words []string
	for word := range strings.FieldsSeq(string(s.File)) {
		switch key, of, _ := strings.Cut(word, "="); key {
		case "about":
			about = of
		case "task":
			called = of
		default:
			words = append(words, word)
		}
	}
	plain.File = []byte(strings.Join(words, " "))
	out, err := n.w.Compile(ctx, plain)
	if err != nil {
		return nil, err
	}
	m := out.Model
	m.Digest[0] ^= byte(len(s.File))
	m.Tasks[0].Name = called
	out.Source = &s
	if about == "" {
		return out, nil
	}
	switch stands, known := s.Names.Tasks[about]; {
	case known:
		m.Gone.Tasks = map[string]string{about: stands}
	case s.Tentative:
		m.Unmet = []model.Unmet{{Name: about}}
	case about != called:
		return nil, errors.New("nobody has " + about)
	}
	m.Policies = []model.Policy{{Name: "limit", Refuse: model.Removal, Tasks: []string{about}, Bounded: true, Beyond: 9}}
	return out, nil
}

// TestGoneNames: what policies name and only the cluster has is looked up there, in a plan and when it is applied, and stands in the
// goal's source; what nobody has is refused, also where there is no cluster yet.
func TestGoneNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.cfg.Compiler = naming{w}
		for _, step := range []struct{ file, wrong string }{
			{"demo: n1 about=z", "nobody has z"},
			{"demo: n1", ""},
			{"demo: n1 task=t about=s", ""},
			{"demo: n1 task=t about=s", ""}, // once nothing of it is left
			{"demo: n1 task=t about=z", "nobody has z"},
		} {
			source := Source{FileName: "c.hcl", File: []byte(step.file)}
			_, plan := w.Preview(t.Context(), source)
			_, apply := w.Apply(t.Context(), source, "ada")
			for _, err := range []error{plan, apply} {
				if (err == nil) != (step.wrong == "") || err != nil && !strings.Contains(err.Error(), step.wrong) {
					t.Errorf("%s: %v, want %q", step.file, err, step.wrong)
				}
			}
			synctest.Wait()
		}
	})
}
