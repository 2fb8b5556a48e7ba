package plan

import "joist/engine/history"

// Scouting reports whether something has to be done in a node's discovery image before the node is handed over, and whether
// that comes to nothing by itself: it failed, or waits for a person.
func (p *Planner) Scouting(name string) (holds, stuck bool) {
	node, _ := p.state.Find(name)
	for _, c := range p.scouts {
		k := c.at(node)
		if k < 0 {
			continue
		}
		if cell := &c.cells[k]; cell.Open() || cell.Verdict == Aside {
			holds = true
			stuck = stuck || cell.Verdict == Aside || cell.Verdict == Blocked || cell.Wait.Kind == history.AskedFor
		}
	}
	return holds, stuck
}
