package system

import (
	"context"
	"encoding/json"
	"fmt"

	"joist/content"
	"joist/content/mirror"
	"joist/engine/agent"
	"joist/engine/value"
	"joist/services/clusters"
	"joist/workflows/lang"
)

// Catalogue is what steps can call that is not in a pack.
func Catalogue() lang.Catalogue {
	return lang.Catalogue{Calls: Signatures(), Builtins: agent.Signatures()}
}

// compiler implements clusters.Compiler with the language.
type compiler struct{ mirror *mirror.Mirror }

func (c compiler) Compile(ctx context.Context, s clusters.Source) (*clusters.Compiled, error) {
	kept := s.Pins != nil // decided when a cluster got it as its goal
	file, diags := lang.LoadCluster(s.FileName, s.File)
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	if file.Frozen != "" && s.Pins == nil {
		if err := c.thaw(ctx, file.Frozen, &s); err != nil {
			return nil, err
		}
	}
	packs, more, err := content.Unpack(s.Packs, Catalogue())
	if err != nil {
		return nil, err
	}
	if diags = append(diags, more...); diags.HasErrors() {
		return nil, diags.Err()
	}
	m, more := lang.Compile(lang.Source{Packs: packs, Cluster: file, Pins: s.Pins, Frozen: s.Frozen, Names: s.Names, Tentative: s.Tentative, Kept: kept})
	diags = append(diags, more...)
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	if s.Pins == nil {
		if s.Pins, err = c.mirror.Resolve(ctx, m.Artifacts); err != nil {
			return nil, err
		}
		if len(s.Pins) > 0 {
			m, _ = lang.Compile(lang.Source{Packs: packs, Cluster: file, Pins: s.Pins, Frozen: s.Frozen, Names: s.Names, Tentative: s.Tentative}) // what there is to say was said above
		}
	}
	for _, a := range m.Artifacts {
		if a.Digest == (value.Digest{}) || a.Size == 0 {
			return nil, fmt.Errorf("the frozen set %s has no artifact %s: it was made of another workflow; leave frozen out, or freeze again", file.Frozen, a.PinName())
		}
	}
	out := &clusters.Compiled{Model: m, Source: &s, Choose: map[string]clusters.Selection{}, Warnings: diags.Text()}
	given := map[string]string{} // what the cluster file calls the roles
	for role, sel := range file.Nodes {
		chosen := clusters.Selection{Names: sel.Names, Count: sel.Count}
		if sel.Predicate != nil {
			chosen.Match = func(name string, facts json.RawMessage) (bool, error) {
				if facts == nil {
					facts = json.RawMessage("{}")
				}
				var v value.Value
				if err := v.UnmarshalJSON(facts); err != nil {
					return false, err
				}
				return sel.Predicate(name, v)
			}
		}
		stands, _ := m.RoleCalled(role)
		out.Choose[stands.Name], given[stands.Name] = chosen, role
	}
	out.Refuse = func(role, input, advice, summary string) error {
		if name := given[role]; name != "" {
			role = name
		}
		return file.Refuse(role, input, advice, summary)
	}
	return out, nil
}

// thaw takes packs and artifacts from a frozen set, whatever else there is by now.
func (c compiler) thaw(ctx context.Context, name string, s *clusters.Source) error {
	set, ref, err := c.mirror.Ready(ctx, name)
	if err != nil {
		return err
	}
	s.Packs, s.Pins, s.Frozen = map[string][]byte{}, set.Pins(), ref.Digest
	for _, p := range set.Packs {
		if s.Packs[p.Name], err = c.mirror.Pack(p); err != nil {
			return err
		}
	}
	return nil
}
