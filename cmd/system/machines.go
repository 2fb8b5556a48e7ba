package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"joist/engine/agent/wire"
	"joist/engine/history"
	"joist/pki/enrol"
	"joist/providers/qemu"
	"joist/services/boot"
	"joist/services/boot/artifacts"
	"joist/services/boot/phase"
	"joist/services/clusters"
	"joist/services/power"
	"joist/services/site"
)

// connection is an agent that can be reached.
type connection struct {
	hello wire.Hello
	since time.Time
}

func newLive() *live { return &live{nodes: map[string]connection{}} }

func (l *live) set(node string, c connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[node] = c
}

// drop forgets a connection if it is still that of the same boot and stage.
func (l *live) drop(node string, hello wire.Hello) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.nodes[node]; !ok || c.hello.Boot != hello.Boot || c.hello.Stage != hello.Stage {
		return false
	}
	delete(l.nodes, node)
	return true
}

func (l *live) forget(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.nodes, node)
}

func (l *live) get(node string) (connection, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.nodes[node]
	return c, ok
}

// adoptMachines makes the provider's machines known to the site and to power control.
func (s *System) adoptMachines(ctx context.Context) error {
	list, err := s.Lab.Machines(ctx)
	if err != nil {
		return err
	}
	for _, m := range list {
		facts, err := json.Marshal(m.Facts)
		if err != nil {
			return fmt.Errorf("cannot encode the facts of %s: %w", m.Name, err)
		}
		if err := s.Site.Define(ctx, site.Defined{Name: m.Name, MACs: []string{m.MAC}, UUID: m.UUID, Provider: "qemu", Facts: facts}); err != nil {
			return err
		}
		p, err := s.Lab.Power(m.Name)
		if err != nil {
			return err
		}
		s.Power.Add(m.Name, p)
	}
	return nil
}

func (s *System) voucher(name string) []byte {
	if s.Lab == nil {
		return nil
	}
	secret, err := s.Lab.Voucher(name)
	if err != nil || secret == "" {
		return nil // a machine without one enrols by a person's word
	}
	return []byte(secret)
}

// seen gives what a cluster's journal is to say of a machine now.
func (s *System) seen(name string) (history.NodeSeen, bool) {
	m, ok := s.Site.Lookup(name)
	if !ok {
		return history.NodeSeen{}, false
	}
	n := history.NodeSeen{Node: name, Facts: m.Facts()}
	if len(m.MACs) > 0 {
		if mac, err := parseMAC(m.MACs[0]); err == nil {
			if addr, ok := s.Addresses.Lookup(mac); ok {
				n.Address = addr.String()
			}
		}
	}
	n.Machine = m.UUID
	c, ok := s.live.get(name)
	switch {
	case !ok:
	case c.hello.Stage == wire.Node:
		n.Incarnation, n.Boot, n.Online = c.hello.Incarnation, c.hello.Kernel, true
		n.Level = m.Enrol.Level().String()
	case m.Wipe == nil && !s.spent(m) && m.Enrol.Quarantine == "": // else it becomes no node on this boot
		n.Scout, n.Level = c.hello.Kernel, m.Enrol.Level().String()
	}
	return n, true
}

// machineChanged tells the machine's cluster, and its agent, what the site has learnt of it.
func (s *System) machineChanged(name string, m site.Machine) {
	if s.gateway != nil {
		s.gateway.Refresh(name)
	}
	if s.Boot != nil && askedSinceBoot(m.Enrol) {
		s.bootReached(m, phase.Enrol)
		if m.Enrol.Level() >= enrol.Approved {
			s.bootReached(m, phase.Trusted)
		}
	}
	if s.gateway != nil {
		s.tendWipe(name)
	}
	if m.Cluster == "" || s.Clusters == nil {
		return
	}
	s.tellCluster(name, m.Cluster)
}

// askedSinceBoot reports whether a key has asked with the machine's newest boot id.
func askedSinceBoot(m enrol.Machine) bool {
	var newest enrol.Boot
	for _, b := range m.Boots {
		if b.Issued.After(newest.Issued) {
			newest = b
		}
	}
	return newest.Key != ""
}

func (s *System) tellCluster(name, cluster string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if m, ok := s.Site.Lookup(name); ok && m.Disk && m.Cluster == cluster && m.Data != cluster {
		if c, online := s.live.get(name); online && c.hello.Stage == wire.Node {
			if err := s.Site.Store(ctx, name); err != nil { // no step is to write what nobody would erase
				s.cfg.Log.Warn("cannot note that a node may keep data; its cluster is not told that it is up", "cluster", cluster, "node", name, "error", err)
			}
			return // the book's change tells the cluster
		}
	}
	err := s.Clusters.Tell(ctx, cluster, name)
	var unknown *clusters.UnknownError
	if err != nil && !errors.As(err, &unknown) {
		s.cfg.Log.Warn("cannot tell a cluster of its node", "cluster", cluster, "node", name, "error", err)
	}
}

// machines implements drive.Site: what clusters ask of machines.
type machines struct{ s *System }

func (m machines) Raise(ctx context.Context, _, node string) error {
	p, err := m.s.Power.Machine(node)
	if errors.Is(err, power.ErrUnknown) {
		return nil // a machine without power control is switched on by a person
	}
	if err != nil {
		return err
	}
	order := func(ctx context.Context) error {
		if err := m.s.Site.Switch(ctx, node); err != nil {
			return err
		}
		return m.s.Site.Order(ctx, node, enrol.Wanted{Why: "power on"})
	}
	switched, err := p.KeepOn(ctx, order)
	var later *power.LaterError
	if errors.As(err, &later) {
		return nil
	}
	if err != nil {
		return err
	}
	known, ok := m.s.Site.Lookup(node)
	if !ok {
		return nil
	}
	if !switched && m.s.lost(known) {
		m.s.tell(fmt.Sprintf("machine %s: %s; it is switched off and on again", node, m.s.bootStatus(known).Sentence))
		if err := p.Cycle(ctx, order); err != nil {
			return err
		}
		switched = true
	}
	if switched {
		m.s.bootReached(known, phase.Power)
	}
	return nil
}

// lost reports whether a machine that the engine switched on will not come by itself any more, and may be switched off: nothing of
// its cluster runs there, and nobody is asked about its key.
func (s *System) lost(m site.Machine) bool {
	_, online := s.live.get(m.Name)
	mac, ok := bootMAC(m)
	return ok && !online && m.Enrol.Quarantine == "" && s.Boot != nil && s.Boot.Lost(mac)
}

// HandOver implements drive.Site. What it says is lost with the engine's process, and asked for again after that.
func (m machines) HandOver(_ context.Context, cluster, node, boot string) error {
	m.s.handed.set(node, cluster+" "+boot)
	m.s.gateway.Refresh(node)
	return nil
}

func (m machines) Fence(ctx context.Context, _, node, incarnation string) (string, error) {
	p, err := m.s.Power.Machine(node)
	if err != nil {
		return "", fmt.Errorf("cannot prove that %s is off: %w; switch it off and say so with joist node power %s off", node, err, node)
	}
	proof, err := p.Fence(ctx)
	if err != nil {
		return "", err
	}
	m.s.live.forget(node)
	m.s.gateway.Forget(node, incarnation)
	return fmt.Sprintf("fenced: power off was read back at %s", proof.At().UTC().Format(time.RFC3339)), nil
}

// Wipe implements drive.Site. A node whose root and data lie in memory is wiped by switching it off; one whose disks may
// hold data is booted once more for it.
func (m machines) Wipe(ctx context.Context, cluster, node, incarnation string) (string, error) {
	wiped := "nothing of it outlives its memory"
	if known, ok := m.s.Site.Lookup(node); ok && (known.Data != "" || known.Wipe != nil) {
		var err error
		if wiped, err = m.s.Wipe(ctx, node, "cluster "+cluster); err != nil {
			return "", err
		}
	}
	proof, err := m.Fence(ctx, cluster, node, incarnation)
	if err != nil {
		return "", err
	}
	return "wiped: " + wiped + "; " + proof, nil
}

// Release implements drive.Site. Whatever the node kept on its disks is erased first: nobody else is to find it.
func (m machines) Release(ctx context.Context, cluster, node string) error {
	if known, ok := m.s.Site.Lookup(node); ok && (known.Data != "" || known.Wipe != nil) {
		if _, err := m.s.Wipe(ctx, node, "cluster "+cluster); err != nil {
			return err
		}
	}
	p, err := m.s.Power.Machine(node)
	off := err == nil
	if off {
		if _, err = p.Fence(ctx); err != nil {
			return err
		}
		m.s.live.forget(node)
	} else if !errors.Is(err, power.ErrUnknown) {
		return err
	}
	if err := m.s.unreserve(ctx, node, off); err != nil {
		return err
	}
	return m.s.free(ctx, cluster, node)
}

// free makes a machine nobody's. One that is in scout still has leave to go of nobody then, also if a cluster of the same name claims it
// again: that has steps of its own to be done there first.
func (s *System) free(ctx context.Context, cluster, node string) error {
	s.handed.set(node, "")
	return s.Site.Free(ctx, cluster, node)
}

// siteOfClusters implements clusters.Site.
type siteOfClusters struct{ s *System }

func (c siteOfClusters) Seen(name string) (history.NodeSeen, bool) { return c.s.seen(name) }

func (c siteOfClusters) Claims() map[string][]string { return c.s.Site.Claims() }

func (c siteOfClusters) Free(ctx context.Context, cluster, name string) error {
	if err := c.s.unreserve(ctx, name, false); err != nil {
		return err
	}
	return c.s.free(ctx, cluster, name)
}

func (c siteOfClusters) Claim(ctx context.Context, claim clusters.Claim, choose func([]clusters.Candidate) ([]string, error)) error {
	var chosen []string
	err := c.s.Site.Claim(ctx, site.Claim{Cluster: claim.Cluster, Disk: claim.Disk, Trust: claim.Trust}, func(all []site.Machine) ([]string, error) {
		candidates := make([]clusters.Candidate, len(all))
		for i := range all {
			_, online := c.s.live.get(all[i].Name)
			candidates[i] = clusters.Candidate{Name: all[i].Name, Cluster: all[i].Cluster, Facts: all[i].Facts(), Online: online, Unwiped: all[i].Unwiped(claim.Cluster)}
		}
		var err error
		chosen, err = choose(candidates)
		return chosen, err
	})
	if err != nil {
		return err
	}
	for _, name := range chosen {
		if err := c.s.reserve(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// reserve ties a machine to an address, so that what is made of the address holds.
func (s *System) reserve(ctx context.Context, name string) error {
	m, ok := s.Site.Lookup(name)
	if !ok || len(m.MACs) == 0 {
		return nil
	}
	mac, err := parseMAC(m.MACs[0])
	if err != nil {
		return err
	}
	_, err = s.Addresses.Reserve(ctx, mac, noAddress)
	return err
}

// unreserve lets go of a machine's address, before it is nobody's. The lease of one that is off ends as well; another one may
// run on, and keeps its own as long as it renews it.
func (s *System) unreserve(ctx context.Context, name string, off bool) error {
	m, ok := s.Site.Lookup(name)
	if !ok {
		return nil
	}
	for _, text := range m.MACs {
		mac, err := parseMAC(text)
		if err == nil {
			err = s.Addresses.Unreserve(ctx, mac)
		}
		if err == nil && off {
			err = s.Addresses.Vacate(ctx, mac)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// siteOfAgents implements agents.Site.
type siteOfAgents struct {
	*site.Book
	s *System
}

// Target says what a machine shall become: a node if a cluster has claimed it, else nothing.
func (t siteOfAgents) Target(ctx context.Context, name string) (wire.Target, error) {
	m, ok := t.s.Site.Lookup(name)
	switch {
	case !ok:
		return wire.Target{}, &site.UnknownError{Name: name}
	case m.Enrol.Quarantine != "":
		return wire.Target{Kind: wire.Quarantined, Message: "this machine is in quarantine: " + string(m.Enrol.Quarantine)}, nil
	case m.Wipe != nil:
		return wire.Target{Kind: wire.Idle, Message: "this machine's data disks are to be wiped, as " + m.Wipe.By + " ordered"}, nil
	case t.s.spent(m):
		return wire.Target{Kind: wire.Idle, Message: "this machine's data disks were wiped: it has to be switched off and on before it is of use"}, nil
	case m.Cluster == "":
		return wire.Target{Kind: wire.Idle, Message: "waiting for a cluster to claim this machine"}, nil
	}
	set, err := t.s.bootSetOf(ctx, m.Cluster)
	if err != nil { // the connection is not to blame
		return wire.Target{Kind: wire.Idle, Message: "claimed by cluster " + m.Cluster + ", but its boot set cannot be told: " + err.Error()}, nil
	}
	if set == nil {
		return wire.Target{Kind: wire.Idle, Message: "claimed by cluster " + m.Cluster + ", but the engine has no boot set; build one with joist bootset build"}, nil
	}
	if booted := t.s.booted.get(name); booted != "" && booted != set.Digest { // its kernel is another one
		return wire.Target{Kind: wire.Idle, Message: "claimed by cluster " + m.Cluster + ", which is made for another boot set than this machine booted: switch it off and on with joist node power " + name + " cycle"}, nil
	}
	image := set.Image
	digest, err := artifacts.ParseDigest("sha256:" + image.SHA256)
	if err != nil {
		return wire.Target{}, err
	}
	target := wire.Target{
		Kind: wire.NodeImage, Message: "claimed by cluster " + m.Cluster,
		Image: &wire.Image{URL: t.s.httpURL() + boot.ArtifactPath(digest), Digest: "sha256:" + image.SHA256, Size: image.Size, Boot: set.Digest},
	}
	// A connection is known before it is told anything: one that is not known any more is of a machine that was switched off meanwhile.
	if c, online := t.s.live.get(name); !online || t.s.handed.get(name) != m.Cluster+" "+c.hello.Kernel {
		target.Kind, target.Message = wire.Idle, target.Message+", and kept here until its steps in scout are in place"
	}
	return target, nil
}

// DefineMachine makes a virtual machine, or changes one, and makes it known to the site. It is off until it is switched
// on, or until a cluster that claimed it wants it.
func (s *System) DefineMachine(ctx context.Context, spec qemu.Spec) (qemu.Machine, error) {
	if s.Lab == nil {
		return qemu.Machine{}, errors.New("cannot make a virtual machine: this engine runs in no lab; start one with joist lab up")
	}
	m, err := s.Lab.Define(ctx, spec)
	if err != nil {
		return qemu.Machine{}, err
	}
	return m, s.adoptMachines(ctx)
}

// UndefineMachine removes a virtual machine that no cluster has claimed, its disk included.
func (s *System) UndefineMachine(ctx context.Context, name string) error {
	if s.Lab == nil {
		return errors.New("cannot remove a virtual machine: this engine runs in no lab")
	}
	if err := s.Site.Forget(ctx, name); err != nil {
		return err
	}
	s.Power.Remove(name)
	return s.Lab.Undefine(ctx, name)
}
