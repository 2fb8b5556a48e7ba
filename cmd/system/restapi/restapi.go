// Package restapi joins the API with the parts of an engine: the forms that programs and people see, made of what the
// engine knows.
package restapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"joist/cmd/system/findings"
	"joist/engine/journal"
	"joist/pki/authority"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/boot/phase"
	"joist/services/certs"
	"joist/services/clusters"
	"joist/services/power"
	"joist/services/site"
)

// Parts is what the API is made of. Clusters, Site and Store are required; a part that is nil is answered with "not
// here".
type Parts struct {
	Info     api.Info
	Clusters *clusters.Clusters
	Site     *site.Book
	Store    journal.Store

	// Power gives a machine's power control (power.Controller's Machine).
	Power func(machine string) (*power.Machine, error)
	// Wipe erases a machine's data disks and gives the proof.
	Wipe func(ctx context.Context, machine, by string) (proof string, err error)
	// Phase says how far a machine's boot came (boot.Server's Status).
	Phase func(m site.Machine) phase.Report
	// Served counts the bytes that a machine was sent over HTTP since the engine started (boot.Server's Traffic); nil for none.
	Served func(m site.Machine) uint64
	// Online says whether a machine's agent is connected, and from which address.
	Online func(machine string) (address string, online bool)
	// Console copies a machine's console; it ends without error when ctx does.
	Console func(ctx context.Context, machine string, w io.Writer, view api.ConsoleView) error
	// Operator certifies an operator's key for a cluster (certs.Service's Operator).
	Operator func(ctx context.Context, cluster string, who certs.Person) (authority.Certificate, error)
	// Digests gives the digests of a cluster's live entries by service.
	Digests func(ctx context.Context, cluster string) (map[string]string, error)
	// Log gives the last lines of an instance's last attempt; the instance is named task[node].
	Log func(cluster, instance string) []string
	// Notices lists what a person should know of, newest first.
	Notices func() []string
	// Artifacts keeps uploads; see NewArtifacts.
	Artifacts api.Artifacts
	// Mirror is the catalogue of what clusters can use; nil for none.
	Mirror *Mirror

	// Lab makes virtual machines; nil for an engine without any.
	Lab api.Lab

	Now    func() time.Time // nil for time.Now
	Logger *slog.Logger     // nil for nowhere
}

// New joins the API with the engine's parts.
func New(p Parts) (*api.Server, error) {
	if p.Clusters == nil || p.Site == nil || p.Store == nil {
		return nil, errors.New("cannot make the API: clusters, site and store are required")
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Phase == nil {
		p.Phase = func(site.Machine) phase.Report { return phase.Report{} }
	}
	if p.Served == nil {
		p.Served = func(site.Machine) uint64 { return 0 }
	}
	if p.Online == nil {
		p.Online = func(string) (string, bool) { return "", false }
	}
	if p.Log == nil {
		p.Log = func(string, string) []string { return nil }
	}
	if p.Digests == nil {
		p.Digests = func(context.Context, string) (map[string]string, error) { return nil, nil }
	}
	c := &apiClusters{Parts: p}
	var listed api.Mirror
	var frozen api.Frozen
	if p.Mirror != nil {
		listed, frozen = apiMirror{p.Mirror}, apiFrozen{p.Mirror}
	}
	return api.New(api.Config{
		Mirror: listed, Frozen: frozen,
		Info: p.Info, Clusters: c, Instances: c, Changes: &apiChanges{c}, Machines: &apiMachines{p}, Journals: &apiJournals{p},
		Artifacts: p.Artifacts, Lab: p.Lab, Notices: p.Notices, Now: p.Now, Log: p.Logger,
	})
}

// told gives an error of the engine's parts the kind that the API answers with.
func told(err error) error {
	var known *api.Error
	var noCluster *clusters.UnknownError
	var noMachine *site.UnknownError
	var aimless *clusters.AimlessError
	var taken *clusters.TakenError
	var living *clusters.LivingError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.As(err, &noCluster):
		return api.Fail(v1.NotFound, err, "joist status lists them all")
	case errors.As(err, &aimless):
		return api.Fail(v1.Conflict, err, "joist apply FILE gives it one")
	case errors.As(err, &living):
		return api.Fail(v1.Conflict, err, "joist destroy CLUSTER takes it away first")
	case errors.As(err, &taken):
		return api.Fail(v1.Conflict, err, "choose another name")
	case errors.As(err, &noMachine):
		return api.Fail(v1.NotFound, err, "")
	case errors.Is(err, power.ErrUnknown):
		return api.Fail(v1.Unsupported, err, "this machine has no power control; switch it by hand")
	case errors.Is(err, power.ErrUnsupported):
		return api.Fail(v1.Unsupported, err, "")
	case errors.Is(err, power.ErrOff):
		return api.Fail(v1.Conflict, err, "switch it on first")
	case errors.Is(err, power.ErrUnreachable):
		return api.Fail(v1.Unavailable, err, "look at its management controller, then try again")
	}
	return err
}

// Refused is told for what was read and judged: unless something better is known, the declaration is at fault.
func Refused(err error) error {
	if err = told(err); err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	var full *journal.DiskFullError
	var fenced *journal.FencedError
	if errors.As(err, &full) || errors.As(err, &fenced) {
		return err
	}
	// Diagnostics have a longer form with the place, the source and advice.
	var long interface {
		error
		Text() string
	}
	if errors.As(err, &long) {
		return &api.Error{Kind: v1.Refused, Err: errors.New(long.Text()), Findings: findings.Of(err)}
	}
	return api.Fail(v1.Refused, err, "")
}
