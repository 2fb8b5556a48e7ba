// Package api serves the engine to people and programs: REST over a Unix socket that only its owner may open. The form of
// what travels is in services/api/v1, the other end in services/api/client.
//
// The package decides nothing. What it serves it asks of the few small interfaces below, which the composition root
// builds from the engine's parts.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	v1 "joist/services/api/v1"
)

// Clusters gives what is known of clusters.
type Clusters interface {
	// List gives every cluster, by name.
	List(ctx context.Context) ([]v1.Cluster, error)
	// Get gives one.
	Get(ctx context.Context, cluster string) (*v1.ClusterDetail, error)
	// Plan gives the plan of the goal that a cluster pursues, or of its destruction with policies overridden, the dangerous first.
	Plan(ctx context.Context, cluster string, destroy bool, overrides []v1.Override) (*v1.Plan, error)
	// Preview plans what would be applied and changes nothing. Of a plan in it nothing is looked at.
	Preview(ctx context.Context, a v1.Apply) (*v1.Plan, error)
	// Outputs gives what a cluster's workflow yields now, secrets left out.
	Outputs(ctx context.Context, cluster string) (*v1.Outputs, error)
}

// Instances explains how a cluster came to be what it is; single instances are named task[node] or task.
type Instances interface {
	Why(ctx context.Context, cluster, instance string) (*v1.Why, error)
	// Replay runs the core again over a cluster's journal and compares.
	Replay(ctx context.Context, cluster string, q v1.ReplayQuery) (*v1.Replay, error)
	Instance(ctx context.Context, cluster, instance string) (*v1.Instance, error)
	// Verify has instances verified as soon as the budget for that lets them.
	Verify(ctx context.Context, cluster string, v v1.Verify) (*v1.Verification, error)
	// Verified says how far that is, without the first skip of what has ended.
	Verified(ctx context.Context, cluster string, id uint64, skip int) (*v1.Verification, error)
}

// Changes takes a person's word about clusters, and what cannot be taken back about machines. Each method returns once what it did is durable.
type Changes interface {
	Apply(ctx context.Context, a v1.Apply) (*v1.Accepted, error)
	// Destroy makes nothing the goal; d.Run, unless empty, says whose goal it must be that ends.
	Destroy(ctx context.Context, cluster string, d v1.Destroy) (*v1.Accepted, error)
	Act(ctx context.Context, cluster string, a v1.Action) (*v1.Accepted, error)
	// Certify certifies an operator's key for a cluster. A zero ttl means the default; the request's own TTL is its text.
	Certify(ctx context.Context, cluster string, r v1.CertificateRequest, ttl time.Duration) (*v1.Certificate, error)
	// Wipe erases the data disks of a machine that no cluster has, and returns once that was read back, with the proof.
	Wipe(ctx context.Context, machine, by string) (*v1.Wiped, error)
}

// Machines looks after the site's machines.
type Machines interface {
	List(ctx context.Context) ([]v1.Machine, error)
	Get(ctx context.Context, machine string) (*v1.Machine, error)
	Approve(ctx context.Context, machine string, a v1.Approve) error
	// Power does one of v1's power actions and returns once its effect was read back.
	Power(ctx context.Context, machine, action string) error
	// Console copies the last tail bytes of a machine's console (all of it if tail is negative), and with follow what
	// comes after, until ctx ends; that is no error.
	Console(ctx context.Context, machine string, w io.Writer, c ConsoleView) error
}

// ConsoleView says what of a console is wanted.
type ConsoleView struct {
	Tail   int64 // last bytes; negative for all
	Follow bool
}

// Lab makes virtual machines.
type Lab interface {
	// Define makes a machine, off, or changes one; the change takes effect when it is switched on next.
	Define(ctx context.Context, spec v1.MachineSpec) (*v1.Machine, error)
	// Undefine removes a machine that no cluster has claimed, its disk included.
	Undefine(ctx context.Context, machine string) error
}

// Journals gives the engine's journals.
type Journals interface {
	// Names lists the journals that there are: "site", "cluster/demo".
	Names(ctx context.Context) ([]string, error)
	// Last gives the sequence of a journal's last event, 0 for none.
	Last(ctx context.Context, journal string) (uint64, error)
	// Read calls f for each event after a sequence that is durable now. An error of f ends it and is returned as it is.
	Read(ctx context.Context, journal string, after uint64, f func(v1.Event) error) error
	// Follow is Read that goes on with each further event, until ctx ends.
	Follow(ctx context.Context, journal string, after uint64, f func(v1.Event) error) error
}

// Artifacts keeps files by digest and the boot sets made of them.
type Artifacts interface {
	// Put stores what r yields, durably, if its digest is the given one ("sha256-" and 64 digits).
	Put(ctx context.Context, digest string, r io.Reader) (*v1.Artifact, error)
	// Whole gives the size in bytes of an artifact that is there and is what its digest says. One that is missing or damaged
	// is not found: it may be put again.
	Whole(ctx context.Context, digest string) (int64, error)
	// Open gives a stored artifact for reading, and its size in bytes.
	Open(ctx context.Context, digest string) (io.ReadSeekCloser, int64, error)
	// Register makes a boot set known whose files were put before.
	Register(ctx context.Context, manifest json.RawMessage) (*v1.BootSet, error)
	// BootSets lists those that are known.
	BootSets(ctx context.Context) ([]v1.BootSet, error)
}

// Mirror is the catalogue of what clusters can use.
type Mirror interface {
	List(ctx context.Context) ([]v1.MirrorEntry, error)
	// Add enters files that were put before: all of them or none.
	Add(ctx context.Context, a v1.MirrorAdd) error
	// Verify reads every file again that the catalogue or a frozen set names.
	Verify(ctx context.Context) ([]v1.MirrorFinding, error)
	// Collect removes what nothing names.
	Collect(ctx context.Context, c v1.MirrorCollect) (*v1.MirrorCollected, error)
}

// Frozen keeps immutable sets of everything that clusters used.
type Frozen interface {
	List(ctx context.Context) ([]v1.FrozenSet, error)
	Get(ctx context.Context, name string) (*v1.FrozenSet, error)
	Freeze(ctx context.Context, f v1.Freeze) (*v1.FrozenSet, error)
	// Thaw forgets a set.
	Thaw(ctx context.Context, name string) error
}

// Info says what engine this is.
type Info struct {
	Version string
	Data    string // folder or database, for people
	Address string // the engine's own in the machines' network; empty if unknown
	Lab     bool   // whether it runs in a lab
	Started time.Time
}

// Config is what a server works with. All interfaces are required but those that say what nil means; zero numbers have the defaults named.
type Config struct {
	Info      Info
	Clusters  Clusters
	Instances Instances
	Changes   Changes
	Machines  Machines
	Journals  Journals
	Artifacts Artifacts // nil: uploads are refused
	Mirror    Mirror    // nil: there is no catalogue
	Frozen    Frozen    // nil: nothing can be frozen
	Lab       Lab       // nil: there are no virtual machines

	Notices func() []string  // what a person should know of, newest first; nil for none
	Now     func() time.Time // nil for time.Now
	Log     *slog.Logger     // nil for nowhere

	MaxBody     int64         // bytes of a declaration with its packs; 0 for 96 MiB
	MaxBodies   int64         // bytes of all such bodies that are held at once, others wait; at least MaxBody, which is the default
	MaxArtifact int64         // bytes of an artifact; 0 for 8 GiB
	Heartbeat   time.Duration // between signs of life on a quiet stream of events; 0 for 10 s
	Rescan      time.Duration // how soon a stream of all journals finds a new one; 0 for 500 ms
}

// maxSmall bounds the bodies of all other requests, in bytes.
const maxSmall = 256 << 10

func (c Config) validate() (Config, error) {
	if c.Clusters == nil || c.Instances == nil || c.Changes == nil || c.Machines == nil || c.Journals == nil {
		return c, errors.New("cannot make the API: clusters, instances, changes, machines and journals are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Notices == nil {
		c.Notices = func() []string { return nil }
	}
	if c.MaxBody == 0 {
		c.MaxBody = 96 << 20
	}
	if c.MaxBodies == 0 {
		c.MaxBodies = c.MaxBody
	}
	if c.MaxBodies < c.MaxBody {
		return c, errors.New("cannot make the API: MaxBodies has no room for one body")
	}
	if c.MaxArtifact == 0 {
		c.MaxArtifact = 8 << 30
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.Rescan == 0 {
		c.Rescan = 500 * time.Millisecond
	}
	return c, nil
}

// Server is the API. Make it with New.
type Server struct {
	cfg     Config
	bodies  *bodies
	handler http.Handler
}

// New checks the configuration.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, bodies: newBodies(cfg.MaxBodies, cfg.MaxBody)}
	s.handler = s.router()
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }
