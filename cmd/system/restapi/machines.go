package restapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"joist/pki/enrol"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/boot/phase"
	"joist/services/power"
	"joist/services/site"
)

// apiMachines implements api.Machines.
type apiMachines struct{ Parts }

func (a *apiMachines) List(context.Context) ([]v1.Machine, error) {
	list := []v1.Machine{}
	for _, m := range a.Site.Machines() {
		list = append(list, a.form(&m))
	}
	return list, nil
}

func (a *apiMachines) form(m *site.Machine) v1.Machine {
	out := v1.Machine{Name: m.Name, MACs: m.MACs, UUID: m.UUID, Provider: m.Provider, Cluster: m.Cluster, Quarantine: string(m.Enrol.Quarantine)}
	if level := m.Enrol.Level(); level != 0 {
		out.Level = level.String()
	}
	if key, ok := m.Enrol.Keys[m.Enrol.Current]; ok {
		out.Fingerprint = key.Fingerprint
	}
	for _, key := range m.Enrol.Keys {
		waits := key.State == enrol.StatePending && key.Level < enrol.Approved
		if waits || m.Enrol.Quarantine != "" && key.State == enrol.StateQuarantined {
			out.Pending, out.Fingerprint = out.Pending || waits, key.Fingerprint
		}
	}
	out.TrustBoot = m.Enrol.TrustBoot
	report := a.Phase(*m)
	out.Served = a.Served(*m)
	out.Address, out.Online = a.Online(m.Name)
	out.Boot, out.Advice, out.Stuck = report.Sentence, report.Advice, report.Stuck
	if out.Online && report == (phase.Report{}) {
		out.Boot = "agent connected"
	}
	return out
}

func (a *apiMachines) Get(ctx context.Context, name string) (*v1.Machine, error) {
	m, ok := a.Site.Lookup(name)
	if !ok {
		return nil, a.told(&site.UnknownError{Name: name})
	}
	out := a.form(&m)
	if facts := m.Facts(); json.Valid(facts) {
		out.Facts = facts
	}
	if a.Parts.Power != nil {
		if p, err := a.Parts.Power(name); err == nil {
			if st, err := p.State(ctx); err == nil { // a silent controller: its power is not known
				out.Power = string(st.Power)
			}
		}
	}
	return &out, nil
}

func (a *apiMachines) Approve(ctx context.Context, name string, in v1.Approve) error {
	return a.refused(a.Site.Approve(ctx, name, enrol.Word{Fingerprint: in.Fingerprint, By: in.By, At: a.Now().UTC()}))
}

func (a *apiMachines) Power(ctx context.Context, name, action string) error {
	if _, ok := a.Site.Lookup(name); !ok {
		return a.told(&site.UnknownError{Name: name})
	}
	if a.Parts.Power == nil {
		return api.Fail(v1.Unsupported, errors.New("this engine switches no machines"), "")
	}
	m, err := a.Parts.Power(name)
	if err != nil {
		return a.told(err)
	}
	order := func(ctx context.Context) error { return a.Site.Order(ctx, name, enrol.Wanted{Why: "power " + action}) }
	switch action {
	case v1.PowerOn: // of a machine that is on, no boot is ordered that anybody could take for his own
		err = m.Start(ctx, order)
	case v1.PowerOff:
		err = m.Off(ctx, power.Force)
	case v1.PowerReset:
		if err = order(ctx); err == nil {
			err = m.Reset(ctx)
		}
	case v1.PowerCycle:
		err = m.Cycle(ctx, order)
	}
	return a.told(err)
}

func (a *apiMachines) Console(ctx context.Context, name string, w io.Writer, view api.ConsoleView) error {
	if a.Parts.Console == nil {
		return api.Fail(v1.Unsupported, errors.New("the provider of this machine keeps no console"), "")
	}
	return a.told(a.Parts.Console(ctx, name, w, view))
}
