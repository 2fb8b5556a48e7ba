package system

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"joist/engine/addr"
	"joist/engine/agent/wire"
	"joist/engine/drive"
	"joist/engine/model"
	"joist/engine/run"
	"joist/engine/step"
	"joist/engine/value"
	"joist/pki/enrol"
	"joist/services/agents"
	"joist/services/boot"
	"joist/services/boot/phase"
	"joist/services/clusters"
	"joist/services/site"
)

// nodes implements drive.Nodes with the gateway.
type nodes struct{ s *System }

// requestID names an attempt for good, by the event that started it. The numbers of events begin anew when a cluster was forgotten
// (site.Book.Life), while an agent that outlasted it answers from its spool what it was asked before: so a life but the first is named, too.
func requestID(o drive.Order, life int) string {
	id := addressOf(o).String() + "#" + strconv.FormatUint(o.ID, 10)
	if life > 0 {
		id += "." + strconv.Itoa(life)
	}
	return id
}

func addressOf(o drive.Order) addr.Instance {
	return addr.Instance{Cluster: o.Cluster, Task: o.Task, Node: o.Node}
}

func parseID(id string) (i addr.Instance, seq uint64, life int, err error) {
	text, number, _ := strings.Cut(id, "#")
	if i, err = addr.Parse(text); err != nil {
		return i, 0, 0, err
	}
	event, later, again := strings.Cut(number, ".")
	if again {
		if life, err = strconv.Atoi(later); err != nil || life < 1 || strconv.Itoa(life) != later { // one attempt has one id
			return i, 0, 0, fmt.Errorf("cannot read %q as a request's id: %q is not how often a cluster was forgotten", id, later)
		}
	}
	seq, err = strconv.ParseUint(event, 10, 64)
	if err != nil || strconv.FormatUint(seq, 10) != event { // likewise
		return i, 0, 0, fmt.Errorf("cannot read %q as a request's id: %q is not the number of an event", id, event)
	}
	return i, seq, life, nil
}

func (n nodes) Perform(ctx context.Context, o drive.Order) error {
	level, err := enrol.ParseLevel(o.Trust)
	if err != nil {
		return err
	}
	if o.Step.Apply.Builtin == "reboot" && o.Action == step.Apply {
		w := enrol.Wanted{Why: "reboot for " + o.Target.String(), Request: requestID(o, n.s.Site.Life(o.Cluster))}
		if err := n.s.Site.Order(ctx, o.Agent, w); err != nil {
			return err
		}
	}
	r, err := request(o, n.s.Site.Life(o.Cluster))
	if err != nil {
		return err
	}
	if r.Artifacts, err = n.artifacts(o.Step); err != nil {
		return err
	}
	return n.s.gateway.Dispatch(ctx, agents.Order{Node: o.Agent, Level: level, Request: r})
}

func (n nodes) Abort(ctx context.Context, o drive.Order) error {
	if o.Agent == "" {
		return nil
	}
	return n.s.gateway.Cancel(ctx, o.Agent, wire.Cancel{ID: requestID(o, n.s.Site.Life(o.Cluster)), Instance: addressOf(o).String(), Attempt: 1, Cluster: o.Cluster, Epoch: o.Epoch})
}

// request puts an order of a cluster's life in the form that agents understand.
func request(o drive.Order, life int) (wire.Request, error) {
	inputs := o.Clear
	if o.Action == step.Remove && len(o.Outputs) > 0 {
		var err error
		if inputs, err = withOutputs(o); err != nil {
			return wire.Request{}, err
		}
	}
	data, err := json.Marshal(inputs)
	if err != nil {
		return wire.Request{}, fmt.Errorf("cannot encode the inputs of %s: %w", addressOf(o), err)
	}
	r := wire.Request{
		ID: requestID(o, life), Cluster: o.Cluster, Instance: addressOf(o).String(), Incarnation: o.Incarnation, Kernel: o.Boot, Attempt: 1, Epoch: o.Epoch,
		Action: wire.Action(o.Action), Step: o.Step.Digest.String(), Inputs: data, Outputs: map[string]string{},
		Secret: o.Secret,
	}
	if o.Step.Scout {
		r.Stage = wire.Scout
	}
	action := &o.Step.Apply
	switch o.Action {
	case step.Remove:
		if action = o.Step.Remove; action == nil {
			return wire.Request{}, fmt.Errorf("internal error: step %s of %s has no remove", o.Step.Name, addressOf(o))
		}
	case step.Verify:
		if action = o.Step.Verify; action == nil {
			return wire.Request{}, fmt.Errorf("internal error: step %s of %s has no verify", o.Step.Name, addressOf(o))
		}
	case step.Apply:
		for _, f := range o.Step.Outputs {
			r.Outputs[f.Name] = f.Type.String()
		}
		if o.Step.Verify != nil && !o.Step.Reboots { // that is verified once its node is back
			check := body(o.Step.Verify)
			r.Verify = &check
		}
	}
	b := body(action)
	r.Builtin, r.Script, r.Files, r.Timeout = b.Builtin, b.Script, b.Files, b.Timeout
	if o.Action == step.Remove {
		for _, f := range o.Step.Outputs {
			if _, taken := o.Clear[f.Name]; !taken && f.Type.Holds(value.Secret) {
				r.Secret = append(slices.Clone(r.Secret), f.Name)
			}
		}
	}
	return r, nil
}

// artifacts tells an agent where to find what a step's scripts need.
func (n nodes) artifacts(s *model.Step) ([]wire.Artifact, error) {
	var list []wire.Artifact
	for i := range s.Artifacts {
		a := &s.Artifacts[i]
		if a.Digest == (value.Digest{}) || a.Size == 0 {
			return nil, fmt.Errorf("internal error: nobody decided which file artifact %s of step %s is", a.PinName(), s.Name)
		}
		list = append(list, wire.Artifact{
			Name: a.Name, Digest: "sha256:" + a.Digest.String(), Size: a.Size, Bundle: a.Kind == model.Bundle,
			URLs: []string{n.s.httpURL() + boot.ArtifactPath(digestOf(a.Digest))},
		})
	}
	return list, nil
}

// withOutputs adds the last outputs to a remove's inputs, under their own names where no input has that name.
func withOutputs(o drive.Order) (map[string]json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(o.Outputs, &all); err != nil {
		return nil, fmt.Errorf("cannot read the last outputs of %s: %w", addressOf(o), err)
	}
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	maps.Copy(all, o.Clear)
	return all, nil
}

func body(a *model.Action) wire.Check {
	c := wire.Check{Builtin: a.Builtin, Timeout: a.Timeout}
	if a.Script == nil {
		return c
	}
	c.Script = a.Script.Body
	for name, data := range a.Script.Files {
		c.Files = append(c.Files, wire.File{Name: path.Base(name), Data: data})
	}
	slices.SortFunc(c.Files, func(a, b wire.File) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// engineOfAgents implements agents.Engine: what agents say reaches clusters.
type engineOfAgents struct{ s *System }

func (e engineOfAgents) Result(ctx context.Context, node string, res wire.Result) error {
	if strings.HasPrefix(res.ID, wipePrefix) {
		return e.s.wipeResult(ctx, node, res)
	}
	i, seq, life, err := parseID(res.ID)
	if now := e.s.Site.Life(i.Cluster); err != nil || life > now {
		return agents.ErrNotDispatched
	} else if life < now {
		return agents.ErrEnded // of a cluster that was forgotten
	}
	r := run.Report{ID: seq, Outputs: res.Outputs, Error: res.Error}
	if !res.OK {
		if r.Error == "" {
			r.Error = string(res.Reason)
		}
		if res.Reason == wire.Failed && res.Tail != "" {
			r.Error += "\n" + res.Tail
		}
		r.Excused = res.Reason == wire.Cancelled || res.Reason == wire.Interrupted
		r.Refused = res.Reason == wire.Refused
		if res.Reason == wire.Later {
			if later, err := step.ParseLater(res.Later); err == nil { // else it counts as a failure
				r.Later = later
			}
		}
	}
	if res.ValidUntil != nil {
		r.ValidUntil = *res.ValidUntil
	}
	is, err := e.s.Clusters.Result(ctx, i, node, r)
	switch {
	case err != nil:
		return err
	case is == clusters.Stranger:
		return agents.ErrNotDispatched
	case is == clusters.Late:
		return agents.ErrEnded
	}
	return nil
}

func (e engineOfAgents) Log(node string, chunk wire.LogChunk) { e.s.logs.add(node, chunk) }

func (e engineOfAgents) Connected(node string, hello wire.Hello) {
	if was, ok := e.s.live.get(node); ok && was.hello.Incarnation != hello.Incarnation {
		e.s.gateway.Forget(node, was.hello.Incarnation)
	}
	e.s.live.set(node, connection{hello, e.s.now()})
	m, ok := e.s.Site.Lookup(node)
	if !ok {
		return
	}
	if hello.Stage == wire.Node {
		e.s.bootReached(m, phase.Agent)
	}
	e.s.tendWipe(node)
	if m.Cluster != "" {
		e.s.tellCluster(node, m.Cluster)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.s.Clusters.Cramped(ctx, m.Cluster, node); err != nil {
			e.s.tell(fmt.Sprintf("cluster %s: %v", m.Cluster, err))
		}
	}
}

func (e engineOfAgents) Disconnected(node string, hello wire.Hello) {
	if !e.s.live.drop(node, hello) {
		return
	}
	if m, ok := e.s.Site.Lookup(node); ok && m.Cluster != "" {
		e.s.tellCluster(node, m.Cluster)
	}
}

func (e engineOfAgents) Noticed(n agents.Notice) {
	e.s.cfg.Log.Warn(n.Text, "kind", string(n.Kind), "node", n.Node, "remote", n.Remote)
	noticed := site.Noticed{Kind: string(n.Kind), Machine: n.Node, Remote: n.Remote, Text: n.Text}
	e.s.notices.add(n.At, noticeText(noticed))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.s.Site.Note(ctx, noticed); err != nil {
		e.s.cfg.Log.Error("cannot journal a notice", "error", err)
	}
}

// logs keeps the last lines of what steps wrote, for people who look.
type logs struct {
	life func(cluster string) int // how often a cluster of this name was forgotten

	mu   sync.Mutex
	text map[string][]byte // by instance
}

// logKept is how much of one instance's log is kept, in bytes.
const logKept = 64 << 10

func newLogs(life func(cluster string) int) *logs {
	return &logs{life: life, text: map[string][]byte{}}
}

func (l *logs) add(_ string, chunk wire.LogChunk) {
	i, seq, life, err := parseID(chunk.ID)
	if err != nil || run.IsLook(seq) { // what a verify wrote would push out what the attempts did
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if life != l.life(i.Cluster) { // of a cluster that was forgotten, told late
		return
	}
	text := append(l.text[i.String()], chunk.Text...)
	if len(text) > logKept {
		text = text[len(text)-logKept:]
	}
	l.text[i.String()] = text
}

// drop lets go of what a cluster's steps wrote, once it is forgotten: it is none of what a cluster of the same name does.
func (l *logs) drop(cluster string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.text, func(instance string, _ []byte) bool { return strings.HasPrefix(instance, cluster+"/") })
}

// Log gives the last lines that an instance wrote since the engine started.
func (s *System) Log(instance string) string {
	s.logs.mu.Lock()
	defer s.logs.mu.Unlock()
	return string(s.logs.text[instance])
}
