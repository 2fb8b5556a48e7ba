package system

import (
	"context"
	"encoding/json"

	"joist/content"
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
type compiler struct{}

func (compiler) Compile(_ context.Context, s clusters.Source) (*clusters.Compiled, error) {
	packs, diags, err := content.Unpack(s.Packs, Catalogue())
	if err != nil {
		return nil, err
	}
	file, more := lang.LoadCluster(s.FileName, s.File)
	diags = append(diags, more...)
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	m, more := lang.Compile(lang.Source{Packs: packs, Cluster: file})
	diags = append(diags, more...)
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	c := &clusters.Compiled{Model: m, Choose: map[string]clusters.Selection{}, Warnings: diags.Text()}
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
		c.Choose[role] = chosen
	}
	return c, nil
}
