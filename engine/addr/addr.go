// Package addr names what the engine acts on: instances of tasks.
package addr

import (
	"fmt"
	"strings"
	"unicode"
)

// Instance names one task for one target within a cluster: `cluster/task[node]`, or `cluster/task` for a single one. A
// task inside a workflow that was called as a task carries the caller's name: `demo/etcd.member[n1]`. A task that stands
// for one item of several carries the item (WithItem): `demo/volume[n1][data]`, or `demo/zone["lab"]` for a single one.
type Instance struct {
	Cluster string
	Task    string
	Node    string // empty for a single instance
}

// String gives the address as people write it.
func (i Instance) String() string { return i.Cluster + "/" + Path(i.Task, i.Node) }

// MarshalText implements encoding.TextMarshaler.
func (i Instance) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *Instance) UnmarshalText(text []byte) error {
	p, err := Parse(string(text))
	if err != nil {
		return err
	}
	*i = p
	return nil
}

// Parse reads an address as String gives it.
func Parse(s string) (Instance, error) {
	cluster, rest, ok := strings.Cut(s, "/")
	task, node, good := ParsePath(rest)
	if !ok || !good || !named(cluster) {
		return Instance{}, fmt.Errorf("cannot read %q as an instance: expected cluster/task[node] or cluster/task, and for one item of several cluster/task[node][item] or cluster/task[\"item\"]", s)
	}
	return Instance{Cluster: cluster, Task: task, Node: node}, nil
}

// mark parts a task from its item. No name of a task has it.
const mark = ":"

// WithItem names the task that stands for one item of a task.
func WithItem(task, item string) string { return task + mark + item }

// CutItem parts what WithItem joined. It reports false for a task without an item.
func CutItem(task string) (of, item string, ok bool) { return strings.Cut(task, mark) }

// Named reports whether something can be the key of an item, or the name of a node.
func Named(s string) bool { return named(s) }

// Path writes an instance within its cluster: `task`, `task[node]`, `task[node][item]`, or `task["item"]`, which no node
// can be mistaken for.
func Path(task, node string) string {
	of, item, some := CutItem(task)
	switch {
	case some && node == "":
		return of + `["` + item + `"]`
	case some:
		return of + "[" + node + "][" + item + "]"
	case node == "":
		return task
	}
	return task + "[" + node + "]"
}

// ParsePath reads what Path writes.
func ParsePath(s string) (task, node string, ok bool) {
	task, rest, each := strings.Cut(s, "[")
	if !named(task) || strings.Contains(task, mark) {
		return "", "", false
	}
	if !each {
		return task, "", true
	}
	rest, closed := strings.CutSuffix(rest, "]")
	node, item, some := strings.Cut(rest, "][")
	if quoted, alone := strings.CutPrefix(node, `"`); alone && !some {
		item, quoted := strings.CutSuffix(quoted, `"`)
		return WithItem(task, item), "", closed && quoted && named(item)
	}
	if some {
		task = WithItem(task, item)
	}
	return task, node, closed && named(node) && (!some || named(item))
}

// Bare writes the path of a single item without its quotes, as a shell leaves it: `task[item]`. Other paths stay as they are. It
// means the item only where no node has that name.
func Bare(path string) string {
	task, node, ok := ParsePath(path)
	if of, item, some := CutItem(task); ok && some && node == "" {
		return of + "[" + item + "]"
	}
	return path
}

// BareItem reads what Bare wrote: the task of the item, if the path could stand for one.
func BareItem(task, node string) (item string, ok bool) {
	if _, _, some := CutItem(task); some || node == "" {
		return "", false
	}
	return WithItem(task, node), true
}

func named(s string) bool { return s != "" && !strings.ContainsFunc(s, reserved) }

// reserved says which characters no name has: they separate names, here and in what is made of addresses.
func reserved(r rune) bool {
	return strings.ContainsRune(`/[]#"`, r) || unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar
}
