package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"joist/engine/history"
	"joist/engine/run"
)

// request is what an agent knows an order by.
type request struct {
	history.Target
	id uint64
}

func (r request) compare(o request) int {
	return cmp.Or(cmp.Compare(r.id, o.id), cmp.Compare(r.Task, o.Task), cmp.Compare(r.Node, o.Node))
}

// Node is a simulated machine with its agent.
type Node struct {
	Name        string
	Incarnation string
	Boot        string
	Level       string
	Facts       json.RawMessage
	On          bool
	Silent      bool // cut off from the engine, and working on
	Dead        bool // does not power on any more

	Effects map[history.Target]json.RawMessage // of node-scope steps, on its root: gone with the boot
	spool   map[request]run.Report             // results not acknowledged yet, or kept to answer from
	running map[request]bool
	newest  map[history.Target]uint64 // the last order for each that came: orders of one connection never overtake each other
	waiting []func()                  // orders that could not be delivered yet
	nth     int                       // in the order of coming
	boots   int
	lives   int
	disk    bool
	keeps   bool                               // its next boot is one that was ordered, and keeps the incarnation
	lasting map[history.Target]json.RawMessage // effects that outlast a boot: of steps that reboot
	told    bool                               // the engine was told of this boot
	scout   bool                               // it waits in the discovery image for the hand-over

	Firmware map[history.Target]json.RawMessage // effects that outlast everything: of steps in the discovery image
}

// Add gives the world a machine that is off.
func (w *World) Add(name string) *Node {
	n := &Node{Name: name, nth: len(w.nodes), Level: "vouched", Firmware: map[history.Target]json.RawMessage{}, Facts: json.RawMessage(`{"size":"small"}`), disk: w.cfg.Disk != nil && w.cfg.Disk(name)}
	w.nodes[name] = n
	return n
}

// Node gives a machine by name, or nil.
func (w *World) Node(name string) *Node { return w.nodes[name] }

// Nodes lists the machines by name.
func (w *World) Nodes() []*Node {
	var list []*Node
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		list = append(list, w.nodes[name])
	}
	return list
}

// PowerOn boots a machine that is off.
func (w *World) PowerOn(name string) {
	n := w.nodes[name]
	if n.On || n.Dead {
		return
	}
	n.On, n.told, n.scout = true, false, false
	n.boots++
	n.Boot = fmt.Sprintf("%s-boot%d", name, n.boots)
	if !n.disk && !n.keeps || n.Incarnation == "" {
		w.rebirth(n)
	}
	n.keeps = false
	n.Effects, n.spool, n.running, n.newest = map[history.Target]json.RawMessage{}, map[request]run.Report{}, map[request]bool{}, map[history.Target]uint64{}
	n.waiting = nil
	maps.Copy(n.Effects, n.lasting)
	boot := n.Boot
	w.after(w.delay(5*time.Second, 40*time.Second), func() {
		if n.Boot == boot && n.On {
			n.scout, n.told = w.cfg.Scout, !w.cfg.Scout
			w.Reconnect(name)
		}
	})
}

// handOver has a machine leave the discovery image for its node image.
func (w *World) handOver(name, boot string) {
	if n := w.nodes[name]; n.On && n.scout && n.Boot == boot && !n.Silent { // else it is asked again
		n.scout, n.told = false, true
		w.Reconnect(name)
	}
}

func (w *World) rebirth(n *Node) {
	n.lives++
	n.lasting = nil
	n.Incarnation = fmt.Sprintf("%s-life%d", n.Name, n.lives)
}

// PowerOff takes a machine's power: whatever its root held is gone. The engine notices after a while.
func (w *World) PowerOff(name string) {
	n := w.nodes[name]
	if !n.On {
		return
	}
	n.On = false
	n.Effects, n.spool, n.running, n.waiting = nil, nil, nil, nil
	w.lost(n)
}

// last has an effect outlast boots, as that of a step that reboots.
func (n *Node) last(t history.Target, inputs json.RawMessage) {
	if n.lasting == nil {
		n.lasting = map[history.Target]json.RawMessage{}
	}
	n.lasting[t] = inputs
}

// reboot has a machine come up again after a while, with what its disk keeps. The order itself answers nobody.
func (w *World) reboot(n *Node, id uint64) {
	w.Runs = append(w.Runs, Run{Target: history.Target{Node: n.Name}, ID: id, Action: Reboot, Agent: n.Name, Boot: n.Boot, Good: true})
	w.PowerOff(n.Name)
	n.keeps = true
	w.after(w.delay(20*time.Second, 2*time.Minute), func() { w.PowerOn(n.Name) })
}

// Kill is PowerOff for good.
func (w *World) Kill(name string) {
	w.nodes[name].Dead = true
	w.PowerOff(name)
}

// Lose takes an effect of a step away behind the engine's back, wherever it is, and reports whether it was there.
func (w *World) Lose(t history.Target) bool {
	places := []map[history.Target]json.RawMessage{w.tables, w.fabric}
	if n := w.nodes[t.Node]; n != nil && n.On {
		places = append(places, n.Effects, n.Firmware)
	}
	for _, effects := range places {
		if effects[t] != nil {
			delete(effects, t)
			return true
		}
	}
	return false
}

// Cut separates a machine from the engine; it works on.
func (w *World) Cut(name string) {
	n := w.nodes[name]
	n.Silent = true
	w.lost(n)
}

func (w *World) lost(n *Node) {
	boot := n.Boot
	w.after(w.delay(time.Second, 20*time.Second), func() {
		if n.Boot == boot && (!n.On || n.Silent) {
			w.notice(Notice{Event: history.NodeSeen{Node: n.Name, Online: false}})
		}
	})
}

// Reconnect lets a machine that is on speak to the engine: it says who it is, sends the results it kept, and receives
// what it was sent.
func (w *World) Reconnect(name string) {
	n := w.nodes[name]
	n.Silent = false
	if !n.On || !n.told && !n.scout {
		return
	}
	w.notice(Notice{Event: w.seen(n)})
	for _, id := range slices.SortedFunc(maps.Keys(n.spool), request.compare) {
		w.send(n, id)
	}
	waiting := n.waiting
	n.waiting = nil
	for _, deliver := range waiting {
		deliver()
	}
}

// Announce tells the engine again of every machine that is on, as after a start of the engine.
func (w *World) Announce() {
	for _, n := range w.Nodes() {
		switch {
		case n.On && (n.told || n.scout) && !n.Silent:
			w.Reconnect(n.Name)
		case n.boots > 0: // even if its incarnation was wiped since
			w.notice(Notice{Event: history.NodeSeen{Node: n.Name, Online: false}})
		}
	}
}

// Seen gives what the engine can know of a machine that speaks to it.
func (w *World) Seen(name string) (history.NodeSeen, bool) {
	n := w.nodes[name]
	return w.seen(n), n.On && n.told && !n.Silent
}

func (w *World) seen(n *Node) history.NodeSeen {
	if n.scout {
		return history.NodeSeen{Node: n.Name, Scout: n.Boot, Address: address(n.nth), Facts: n.Facts, Level: n.Level}
	}
	return history.NodeSeen{Node: n.Name, Incarnation: n.Incarnation, Boot: n.Boot, Address: address(n.nth), Facts: n.Facts, Level: n.Level, Online: true}
}

// address is that of the nth machine, from 10.0.0.1 on.
func address(nth int) string {
	return fmt.Sprintf("10.%d.%d.%d", nth/(250*250), nth/250%250, nth%250+1)
}

// send sends a result from the spool, now and then again until the boot ends: at least once.
func (w *World) send(n *Node, id request) {
	boot := n.Boot
	r, ok := n.spool[id]
	if !ok {
		return
	}
	deliver := func() {
		if n.Boot == boot && n.On && !n.Silent {
			w.notice(Notice{Target: id.Target, Report: r, Agent: n.Name})
		}
	}
	d := w.delay(time.Millisecond, 2*time.Second)
	if w.chance(w.Faults.Lose) {
		d += time.Minute
	}
	w.after(d, deliver)
	if w.chance(w.Faults.Duplicate) {
		w.after(d+w.delay(0, 30*time.Second), deliver)
	}
}
