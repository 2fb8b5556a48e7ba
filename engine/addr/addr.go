// Package addr names what the engine acts on: instances of tasks.
package addr

import (
	"fmt"
	"strings"
	"unicode"
)

// Instance names one task for one target within a cluster: `cluster/task[node]`, or `cluster/task` for a single one. A
// task inside a workflow that was called as a task carries the caller's name: `demo/etcd.member[n1]`.
type Instance struct {
	Cluster string
	Task    string
	Node    string // empty for a single instance
}

// String gives the address as people write it.
func (i Instance) String() string {
	if i.Node == "" {
		return i.Cluster + "/" + i.Task
	}
	return i.Cluster + "/" + i.Task + "[" + i.Node + "]"
}

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
	task, node, each := strings.Cut(rest, "[")
	if each && !strings.HasSuffix(node, "]") {
		ok = false
	}
	node = strings.TrimSuffix(node, "]")
	if !ok || cluster == "" || task == "" || each && node == "" || strings.ContainsFunc(cluster+task+node, reserved) {
		return Instance{}, fmt.Errorf("cannot read %q as an instance: expected cluster/task[node] or cluster/task", s)
	}
	return Instance{Cluster: cluster, Task: task, Node: node}, nil
}

// reserved says which characters no name has: they separate names, here and in what is made of addresses.
func reserved(r rune) bool {
	return strings.ContainsRune("/[]#", r) || unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar
}
