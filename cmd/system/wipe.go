package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"joist/engine/agent/disk"
	"joist/engine/agent/wire"
	"joist/pki/enrol"
	"joist/services/agents"
	"joist/services/boot/phase"
	"joist/services/power"
	"joist/services/site"
)

// wipePrefix begins the ids of requests to wipe a machine; the name and the boot follow.
const wipePrefix = "wipe/"

// wipeTime is how long a machine may take to boot and to be wiped before whoever waits is told why it is not.
const wipeTime = 20 * time.Minute

// wipes lets those wait who ordered that a machine be wiped.
type wipes struct {
	mu      sync.Mutex
	waiting map[string][]chan wipeEnd // by machine
}

// wipeEnd is how an attempt to wipe a machine ended.
type wipeEnd struct {
	proof string
	err   error
}

func (w *wipes) wait(name string) chan wipeEnd {
	c := make(chan wipeEnd, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = map[string][]chan wipeEnd{}
	}
	w.waiting[name] = append(w.waiting[name], c)
	return c
}

func (w *wipes) end(name string, how wipeEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.waiting[name] {
		select {
		case c <- how:
		default: // it has its answer
		}
	}
	delete(w.waiting, name)
}

// Wipe erases a machine's data disks: all of ours, and no other. The machine is booted once more, with the order in the
// journal first, and scout does it. It returns once the erasing was read back and that is durable; what it gives is the
// proof, for people. If ctx ends before, the order stands.
func (s *System) Wipe(ctx context.Context, name, by string) (proof string, err error) {
	ended := s.wipes.wait(name)
	fresh, err := s.Site.OrderWipe(ctx, name, by)
	if err != nil {
		return "", err
	}
	if err := s.bootToWipe(ctx, name, fresh); err != nil {
		return "", err
	}
	s.tendWipe(name)
	timer := time.NewTimer(wipeTime)
	defer timer.Stop()
	select {
	case how := <-ended:
		return how.proof, how.err
	case <-timer.C:
		sentence := "it was not heard of"
		if m, ok := s.Site.Lookup(name); ok && m.Enrol.Level() < enrol.Approved {
			sentence = "it is not trusted yet: approve it with joist node approve"
		}
		return "", fmt.Errorf("machine %s did not come up to be wiped within %s: %s; the order stands", name, wipeTime, sentence)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// bootToWipe starts a machine anew, unless it waits in scout for the same order already.
func (s *System) bootToWipe(ctx context.Context, name string, fresh bool) error {
	was, online := s.live.get(name)
	if online && was.hello.Stage == wire.Scout && !fresh {
		return nil
	}
	p, err := s.Power.Machine(name)
	if errors.Is(err, power.ErrUnknown) {
		s.tell("machine " + name + " is to be wiped, and this engine cannot switch it: boot it from the network")
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := p.Fence(ctx); err != nil {
		return err
	}
	s.live.forget(name)
	if online {
		s.gateway.Forget(name, was.hello.Incarnation)
	}
	if err := p.On(ctx); err != nil {
		return err
	}
	if m, ok := s.Site.Lookup(name); ok {
		s.bootReached(m, phase.Power)
	}
	return nil
}

// tendWipe gives a machine that is to be wiped, and has come up in scout for it, the request.
func (s *System) tendWipe(name string) {
	m, ok := s.Site.Lookup(name)
	c, online := s.live.get(name)
	if !ok || m.Wipe == nil || !online || c.hello.Stage != wire.Scout || m.Enrol.Level() < enrol.Approved {
		return
	}
	if !c.since.After(m.Wipe.At) {
		return // it may be about to become a node; it is started anew
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := s.gateway.Dispatch(ctx, agents.Order{Node: name, Level: enrol.Approved, Request: wire.Request{
		ID: wipePrefix + name + "#" + c.hello.Kernel, Cluster: site.JournalName, Instance: wipePrefix + name, Incarnation: c.hello.Incarnation, Kernel: c.hello.Kernel,
		Attempt: 1, Epoch: s.Site.Journal().Epoch(), Action: wire.Apply, Step: "wipe", Builtin: "wipe", Stage: wire.Scout,
		Outputs: map[string]string{"disks": "any"}, Timeout: wipeTime,
	}})
	if err != nil {
		s.cfg.Log.Warn("cannot ask a machine to wipe its disks", "machine", name, "error", err)
	}
}

// wipeResult takes in what became of a wipe; the agent keeps it until it is durable.
func (s *System) wipeResult(ctx context.Context, node string, res wire.Result) error {
	m, ok := s.Site.Lookup(node)
	if !ok || !strings.HasPrefix(res.ID, wipePrefix+node+"#") {
		return agents.ErrNotDispatched
	}
	if m.Wipe == nil {
		return nil // told before
	}
	c, _ := s.live.get(node)
	if !res.OK || res.ID != wipePrefix+node+"#"+c.hello.Kernel {
		err := fmt.Errorf("cannot wipe %s: %s; the order stands", node, res.Error)
		s.tell(err.Error())
		s.wipes.end(node, wipeEnd{err: err})
		return nil
	}
	var out struct {
		Disks []disk.Wiped `json:"disks"`
	}
	if err := json.Unmarshal(res.Outputs, &out); err != nil {
		return fmt.Errorf("cannot read what %s wiped: %w", node, err)
	}
	proof := "no data disk was found"
	if len(out.Disks) > 0 {
		texts := make([]string, len(out.Disks))
		for i, d := range out.Disks {
			texts[i] = d.String()
		}
		proof = strings.Join(texts, ", ")
	}
	if _, err := s.Site.Wiped(ctx, site.Wiped{Machine: node, Incarnation: c.hello.Incarnation, Proof: proof}); err != nil {
		return err
	}
	s.wipes.end(node, wipeEnd{proof: proof})
	return nil
}

// spent reports whether a machine runs with an incarnation that a wipe has ended.
func (s *System) spent(m site.Machine) bool {
	c, ok := s.live.get(m.Name)
	return ok && m.Spent != "" && c.hello.Incarnation == m.Spent
}

// WipeMachine wipes a machine that no cluster has, and switches it off.
func (s *System) WipeMachine(ctx context.Context, name, by string) (proof string, err error) {
	m, ok := s.Site.Lookup(name)
	switch {
	case !ok:
		return "", &site.UnknownError{Name: name}
	case m.Cluster != "":
		return "", fmt.Errorf("cannot wipe %s: cluster %s has it; joist redeploy %s wipes the cluster's machines and builds it anew, joist destroy %s gives them back", name, m.Cluster, m.Cluster, m.Cluster)
	}
	if proof, err = s.Wipe(ctx, name, by); err != nil {
		return "", err
	}
	p, err := s.Power.Machine(name)
	if errors.Is(err, power.ErrUnknown) {
		return proof, nil
	}
	if err == nil {
		err = p.Off(ctx, power.Force)
	}
	return proof, err
}
