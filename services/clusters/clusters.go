// Package clusters looks after every cluster of an engine: it compiles what operators declare, claims machines for it,
// keeps one loop for each cluster, and tells each loop what its nodes say.
package clusters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/engine/step"
	"joist/engine/value"
)

// Source is what an operator hands in: a cluster file and the packs it names, as archives.
type Source struct {
	FileName string            `json:"file_name"`
	File     []byte            `json:"file"`
	Packs    map[string][]byte `json:"packs"` // archives by the name under which the file uses them

	// Pins are the files decided on for the packs' artifacts, by their PinName; nil to have the compiler decide. A goal's
	// source has them, so that its model is always compiled to the same.
	Pins   map[string]model.Pin `json:"pins"`
	Frozen value.Digest         `json:"frozen"` // of the frozen set that packs and pins come from; zero for none

	// Names are those by which things stand that were renamed since the cluster first had them. They are decided when a goal is
	// set, and its source keeps them.
	Names model.Names `json:"names,omitzero"`

	// Tentative leaves open what policies name and nothing has, until it is known what the cluster has still.
	Tentative bool `json:"-"`
}

// Compiled is a checked source.
type Compiled struct {
	Model    *model.Model
	Source   *Source              // with everything decided; nil if there was nothing to decide
	Choose   map[string]Selection // by role
	Warnings string               // diagnostics that stop nothing, as text

	// Refuse makes an error about a role or an input of the cluster file, with its place there; both may be empty. Nil for
	// an error without a place.
	Refuse func(role, input, advice, summary string) error
}

// Selection says which machines play a role: those named, or Count that match.
type Selection struct {
	Names []string
	Match func(name string, facts json.RawMessage) (bool, error)
	Count int
}

// Compiler checks sources. Its errors are diagnostics for people.
type Compiler interface {
	Compile(ctx context.Context, s Source) (*Compiled, error)
}

// Candidate is a machine that a cluster may claim.
type Candidate struct {
	Name    string
	Cluster string // that has it
	Facts   json.RawMessage
	Online  bool
	Unwiped string // why no other cluster may have it yet, because of what is on its disks; empty if one may
}

// Claim is for whom machines are claimed.
type Claim struct {
	Cluster string
	Disk    bool // whether it keeps its data on their disks
	Trust   bool // whether it trusts the boot network
}

// Site is what the clusters need of the site's owner.
type Site interface {
	// Claim shows choose every machine and gives the cluster those it names, all or none.
	Claim(ctx context.Context, c Claim, choose func([]Candidate) ([]string, error)) error
	// Seen gives what is known of a machine now: what a cluster's journal is to say of it.
	Seen(machine string) (history.NodeSeen, bool)
	// Claims gives the machines that each cluster has.
	Claims() map[string][]string
	// Free gives back a machine that never became a node of its cluster.
	Free(ctx context.Context, cluster, machine string) error
}

// Config says what the clusters work with. Drive is the template of each loop's configuration.
type Config struct {
	Drive    drive.Config
	Compiler Compiler
	Site     Site
	// Forget destroys the secrets of a cluster that is destroyed, its authorities' keys among them. It may be called again. Nil
	// where none are kept.
	Forget  func(cluster string) error
	Foresee []step.Foresee // of services: asked before anything is begun
	// Drop notes in the site's book that a destroyed cluster is forgotten, and then empties its journal. Nil where none can be.
	Drop     func(ctx context.Context, d Dropped) error
	Networks []netip.Prefix // on which machines and the engine's balancer are
	Grace    time.Duration  // how long nodes may take to come back after a start of the engine; 0 for 1 minute
}

// Clusters holds the loops. It is safe for concurrent use.
type Clusters struct {
	cfg Config
	log *slog.Logger

	busy    keyed // by cluster: one change of its goal at a time
	telling keyed // by machine: one at a time of those who tell of it

	mu     sync.Mutex
	loops  map[string]*drive.Cluster
	broken map[string]error // clusters that could not be taken up, and why
}

// New makes an empty Clusters, for Start.
func New(cfg Config) *Clusters {
	if cfg.Grace == 0 {
		cfg.Grace = time.Minute
	}
	if cfg.Drive.Log == nil {
		cfg.Drive.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Drive.Now == nil {
		cfg.Drive.Now = time.Now
	}
	c := &Clusters{cfg: cfg, log: cfg.Drive.Log, loops: map[string]*drive.Cluster{}, broken: map[string]error{}}
	c.cfg.Drive.Library = c
	return c
}

// Open is New and Start in one.
func Open(ctx context.Context, cfg Config) (*Clusters, error) {
	c := New(cfg)
	if err := c.Start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Start takes up every cluster that has a journal; their effects begin at once, so that everything they need must be
// there. A cluster that cannot be taken up does not keep the others from it: Get says why. What a crash left without a goal
// is no cluster, and machines that it left claimed are given back.
func (c *Clusters) Start(ctx context.Context) error {
	infos, err := c.cfg.Drive.Store.List(ctx)
	if err != nil {
		return fmt.Errorf("cannot list the journals: %w", err)
	}
	known := map[string]bool{}
	for _, info := range infos {
		if name, ok := strings.CutPrefix(info.Journal, drive.JournalOf("")); ok && info.Last > 0 { // an empty one was never used, or dropped
			known[name] = true
			if _, err := c.open(ctx, name); err != nil {
				c.log.Error("cannot take up a cluster; the others go on", "cluster", name, "error", err)
			}
		}
	}
	for name := range c.cfg.Site.Claims() {
		known[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		unlock := c.busy.lock(name)
		err := errors.Join(c.forget(ctx, name), c.reconcile(ctx, name), c.reclaim(ctx, name))
		unlock()
		if err != nil {
			c.log.Warn("cannot set right which machines a cluster has claimed", "cluster", name, "error", err)
		}
	}
	return nil
}

// Close ends every loop.
func (c *Clusters) Close() {
	c.mu.Lock()
	loops := maps.Clone(c.loops)
	clear(c.loops)
	c.mu.Unlock()
	for _, loop := range loops { // what they report meanwhile finds no cluster any more, and is repeated after the next start
		loop.Close()
	}
}

// open takes a cluster up, again if its loop has ended. The caller holds the cluster's lock, or is the only one yet.
func (c *Clusters) open(ctx context.Context, name string) (*drive.Cluster, error) {
	c.mu.Lock()
	loop := c.loops[name]
	c.mu.Unlock()
	if loop != nil {
		if loop.Err() == nil {
			return loop, nil
		}
		loop.Close() // its effects have been told to end
	}
	cfg := c.cfg.Drive
	cfg.Cluster = name
	loop, err := drive.Open(ctx, cfg)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("cannot take up cluster %s: %w", name, err)
		c.broken[name] = err
		delete(c.loops, name)
		return nil, err
	}
	delete(c.broken, name)
	c.loops[name] = loop
	return loop, nil
}

// forget lets go of the loop of a cluster that was never given a goal, since what was to be its first could not be planned
// or written: that is no cluster, and none that a person could destroy. The caller holds the cluster's lock.
func (c *Clusters) forget(ctx context.Context, name string) error {
	loop, err := c.Get(name)
	if err != nil || loop.Err() != nil {
		return nil
	}
	if g, err := goalOf(ctx, loop); err != nil || g != nil {
		return err
	}
	c.mu.Lock()
	delete(c.loops, name)
	c.mu.Unlock()
	loop.Close()
	return nil
}

// have gives the loop of a cluster that has a journal, taken up again if it ended; nil for a cluster that has none.
func (c *Clusters) have(ctx context.Context, name string) (*drive.Cluster, error) {
	_, err := c.Get(name)
	var unknown *UnknownError
	if errors.As(err, &unknown) {
		return nil, nil
	}
	return c.open(ctx, name)
}

// UnknownError reports a cluster that the engine does not have.
type UnknownError struct{ Name string }

// Error implements error.
func (e *UnknownError) Error() string { return fmt.Sprintf("there is no cluster %q", e.Name) }

// Get gives a cluster's loop, or why there is none.
func (c *Clusters) Get(name string) (*drive.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if loop, ok := c.loops[name]; ok {
		return loop, nil
	}
	if err := c.broken[name]; err != nil {
		return nil, err
	}
	return nil, &UnknownError{name}
}

// Names lists the clusters, sorted, those that could not be taken up included.
func (c *Clusters) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := slices.AppendSeq(slices.Collect(maps.Keys(c.loops)), maps.Keys(c.broken))
	slices.Sort(names)
	return slices.Compact(names)
}

// archived is how a source is kept: packs by the digests of their archives.
type archived struct {
	FileName string            `json:"file_name"`
	File     string            `json:"file"`
	Packs    map[string]string `json:"packs"`

	Pins   map[string]model.Pin `json:"pins,omitempty"`
	Frozen value.Digest         `json:"frozen,omitzero"`
	Names  model.Names          `json:"names,omitzero"`
}

func (c *Clusters) archive(ctx context.Context, s Source) (value.Digest, error) {
	var digest value.Digest
	a := archived{FileName: s.FileName, File: string(s.File), Packs: map[string]string{}, Pins: s.Pins, Frozen: s.Frozen, Names: s.Names}
	for name, data := range s.Packs {
		d, err := c.cfg.Drive.Blobs.Put(ctx, data)
		if err != nil {
			return digest, fmt.Errorf("cannot archive pack %s: %w", name, err)
		}
		a.Packs[name] = d
	}
	data, err := json.Marshal(a)
	if err != nil {
		return digest, fmt.Errorf("cannot archive the cluster file: %w", err)
	}
	text, err := c.cfg.Drive.Blobs.Put(ctx, data)
	if err != nil {
		return digest, fmt.Errorf("cannot archive the cluster file: %w", err)
	}
	return digest, digest.UnmarshalText([]byte(text))
}

// Model implements drive.Library: it compiles a goal's archived source again.
func (c *Clusters) Model(ctx context.Context, g history.Goal) (*model.Model, error) {
	s, err := c.source(ctx, g.Source)
	if err != nil {
		return nil, err
	}
	compiled, err := c.cfg.Compiler.Compile(ctx, s)
	if err != nil {
		return nil, err
	}
	return compiled.Model, nil
}

func (c *Clusters) archived(ctx context.Context, digest value.Digest) (*archived, error) {
	data, err := c.cfg.Drive.Blobs.Get(ctx, digest.String())
	if err != nil {
		return nil, fmt.Errorf("cannot find the archived source: %w", err)
	}
	var a archived
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("cannot read the archived source: %w", err)
	}
	return &a, nil
}

// source reads an archived source with its packs.
func (c *Clusters) source(ctx context.Context, digest value.Digest) (Source, error) {
	a, err := c.archived(ctx, digest)
	if err != nil {
		return Source{}, err
	}
	s := Source{FileName: a.FileName, File: []byte(a.File), Packs: map[string][]byte{}, Pins: a.Pins, Frozen: a.Frozen, Names: a.Names}
	if s.Pins == nil {
		s.Pins = map[string]model.Pin{} // nothing is decided anew
	}
	for name, d := range a.Packs {
		if s.Packs[name], err = c.cfg.Drive.Blobs.Get(ctx, d); err != nil {
			return Source{}, fmt.Errorf("cannot find the archive of pack %s: %w", name, err)
		}
	}
	return s, nil
}

// Accepted is what became of a declaration.
type Accepted struct {
	Cluster  string              `json:"cluster"`
	Goal     string              `json:"goal"` // digest of the model
	Seq      uint64              `json:"seq"`  // event that set it
	Roles    map[string][]string `json:"roles"`
	Warnings string              `json:"warnings,omitempty"`
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Apply makes a declaration the cluster's goal: it is compiled, machines are claimed, and the goal is durable before
// Apply returns. The same declaration again means "try again". After an error nothing has changed but what the journal
// of the goal before says.
func (c *Clusters) Apply(ctx context.Context, s Source, by string) (*Accepted, error) {
	return c.ApplyAs(ctx, s, Said{By: by})
}

// ApplyAs is Apply on a person's word.
func (c *Clusters) ApplyAs(ctx context.Context, s Source, said Said) (*Accepted, error) {
	goal := history.Goal{By: said.By, Overrides: said.Overrides, Run: said.Run}
	if said.Life > 0 {
		goal.Expires = c.cfg.Drive.Now().Add(said.Life).UTC()
	}
	return c.apply(ctx, s, goal, nil)
}

// apply is Apply of exactly what was planned; nil for whatever there is to do. Of the goal it is given who asks, and until when
// the cluster is wanted.
func (c *Clusters) apply(ctx context.Context, s Source, goal history.Goal, want *Planned) (*Accepted, error) {
	s.Tentative = true
	compiled, err := c.compile(ctx, s)
	if err != nil {
		return nil, err
	}
	name := compiled.Model.Cluster
	unlock := c.busy.lock(name)
	defer unlock()
	loop, err := c.have(ctx, name)
	if err != nil {
		return nil, err
	}
	if goal.Run != "" {
		if err := untaken(ctx, loop, name); err != nil {
			return nil, err
		}
	}
	if compiled, err = c.stand(ctx, loop, compiled); err != nil {
		return nil, err
	}
	if err := c.refuse(ctx, loop, compiled); err != nil {
		return nil, err
	}
	var before *history.Goal
	if loop != nil {
		if before, err = goalOf(ctx, loop); err != nil {
			return nil, err
		}
	}
	if want != nil { // before anything is claimed
		p, err := c.preview(ctx, compiled, loop, history.Goal{})
		if err != nil {
			return nil, err
		}
		if err := p.lacks(); err != nil {
			return nil, err
		}
		if err := want.Compare(p); err != nil {
			return nil, err
		}
	}
	if err := c.policed(ctx, compiled, loop, goal); err != nil {
		return nil, err
	}
	if compiled.Source != nil {
		s = *compiled.Source
	}
	if goal.Source, err = c.archive(ctx, s); err != nil {
		return nil, err
	}
	g, err := c.claimAndPursue(ctx, claiming{compiled, before, want}, goal)
	// Machines claimed for a goal that did not come to be, and machines that an earlier crash left over, are given back;
	// if that fails, the next start does it.
	if after := context.WithoutCancel(ctx); err != nil {
		err = errors.Join(err, c.forget(after, name), c.reconcile(after, name), c.reclaim(after, name))
	} else {
		err = c.reconcile(after, name)
	}
	if err != nil {
		return nil, err
	}
	return &Accepted{Cluster: name, Goal: g.Model.String(), Seq: g.Seq, Roles: g.Roles, Warnings: compiled.Warnings}, nil
}

func (c *Clusters) compile(ctx context.Context, s Source) (*Compiled, error) {
	compiled, err := c.cfg.Compiler.Compile(ctx, s)
	if err != nil {
		return nil, err
	}
	if name := compiled.Model.Cluster; !clusterName.MatchString(name) {
		return nil, fmt.Errorf("cannot use %q as a cluster's name: use lower-case letters, digits and hyphens", name)
	}
	return compiled, nil
}

// claiming is what a cluster is to become: from the goal it had, exactly as planned if want is given.
type claiming struct {
	compiled *Compiled
	before   *history.Goal
	want     *Planned
}

func (c *Clusters) claimAndPursue(ctx context.Context, what claiming, g history.Goal) (*history.Goal, error) {
	roles, err := c.claim(ctx, what.compiled, what.before)
	if err != nil {
		return nil, err
	}
	loop, err := c.open(ctx, what.compiled.Model.Cluster)
	if err != nil {
		return nil, err
	}
	g.Model, g.Roles, g.Changed = what.compiled.Model.Digest, roles, changed(what.before, what.compiled.Model.Digest, roles)
	for _, name := range nodesOf(g.Roles) {
		if err := c.tell(ctx, loop, name); err != nil {
			return nil, err
		}
	}
	if what.want != nil {
		err = c.pursueExactly(ctx, loop, what, g)
	} else {
		err = loop.Pursue(ctx, g)
	}
	if err != nil {
		return nil, err
	}
	return goalOf(ctx, loop)
}

// changed reports whether a goal is another one than the one before it, by a person's word.
func changed(before *history.Goal, digest value.Digest, roles map[string][]string) bool {
	return before == nil || before.Destroy || before.Model != digest || !maps.EqualFunc(before.Roles, roles, slices.Equal)
}

func nodesOf(roles map[string][]string) []string {
	var all []string
	for _, nodes := range roles {
		all = append(all, nodes...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func goalOf(ctx context.Context, loop *drive.Cluster) (*history.Goal, error) {
	var goal *history.Goal
	err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		if g := s.Goal(); g != nil {
			copied := *g
			goal = &copied
		}
	})
	return goal, err
}

// Destroy makes "nothing" the cluster's goal. A *policy.RefusedError says which policies refuse that.
func (c *Clusters) Destroy(ctx context.Context, name, by string, overrides ...history.Override) error {
	return c.DestroyAs(ctx, name, Said{By: by, Overrides: overrides})
}

// DestroyAs is Destroy on a person's word.
func (c *Clusters) DestroyAs(ctx context.Context, name string, said Said) error {
	unlock := c.busy.lock(name)
	defer unlock()
	loop, err := c.have(ctx, name)
	if err != nil {
		return err
	}
	if loop == nil {
		return &UnknownError{name}
	}
	return c.destroy(ctx, name, loop, said)
}

// destroy is DestroyAs of a cluster whose lock the caller holds.
func (c *Clusters) destroy(ctx context.Context, name string, loop *drive.Cluster, said Said) error {
	g, err := goalOf(ctx, loop)
	switch {
	case err != nil:
		return err
	case g == nil:
		return fmt.Errorf("cannot destroy cluster %s: it was never given a goal", name)
	case said.Run != "" && g.Run != said.Run:
		return &TakenError{name, g.By}
	}
	if err := c.policedDestroy(ctx, name, loop, said.Overrides); err != nil {
		return err
	}
	return loop.Pursue(ctx, history.Goal{
		Model: g.Model, Source: g.Source, Destroy: true, By: said.By, Changed: true, Expires: g.Expires, Overrides: said.Overrides, Run: g.Run,
	})
}
