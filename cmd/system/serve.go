package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"joist/cmd/system/restapi"
	"joist/dhcp-dns/holder"
	"joist/providers/qemu"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/boot/decide"
	"joist/services/boot/phase"
	"joist/services/site"
)

// Serve runs the engine until ctx ends, with its API on a listener.
func (s *System) Serve(ctx context.Context, version string, socket net.Listener) error {
	web, err := restapi.New(s.parts(version))
	if err != nil {
		return err
	}
	if err := s.keepPlace(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, serve := range []func(context.Context) error{
		s.dns.Serve, s.Boot.Serve, s.dhcp.Serve,
		func(ctx context.Context) error { return s.gateway.Serve(ctx, s.gate) },
		func(ctx context.Context) error { return web.Serve(ctx, socket) },
		func(ctx context.Context) error { s.Clusters.Settle(ctx); return nil },
		func(ctx context.Context) error { s.Clusters.Expire(ctx); return nil },
		func(ctx context.Context) error { return s.watchRivals(ctx, s.probeRivals) },
		s.awaitFailure,
	} {
		group.Go(func() error { return serve(ctx) })
	}
	if err = group.Wait(); errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// shownLog is how many lines of an instance's log the API shows.
const shownLog = 200

// listenAgents opens the agents' port.
func (s *System) listenAgents(ctx context.Context) error {
	at := netip.AddrPortFrom(s.cfg.Address, agentPort)
	var err error
	s.gate, err = (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("cannot listen for agents: TCP port %d is in use: %s: %w", agentPort, holder.Reason("tcp", at), err)
	}
	if err != nil {
		return fmt.Errorf("cannot listen for agents: %w", err)
	}
	return nil
}

// parts is what the API shows of the engine.
func (s *System) parts(version string) restapi.Parts {
	p := restapi.Parts{
		Info:     api.Info{Version: version, Data: s.cfg.Data, Address: s.cfg.Address.String(), Lab: s.cfg.Machines != nil, Started: s.now()},
		Clusters: s.Clusters, Site: s.Site, Store: s.db.Journals(),
		Power: s.Power.Machine, Wipe: s.WipeMachine, Phase: s.bootStatus, Served: s.served, Operator: s.Certs.Operator, Digests: s.digests, Artifacts: restapi.NewArtifacts(s.Artifacts, s.files, s.sets),
		Online: func(machine string) (string, bool) {
			_, online := s.live.get(machine)
			seen, _ := s.seen(machine)
			return seen.Address, online
		},
		Log: func(cluster, instance string) []string {
			text := strings.TrimRight(s.Log(cluster+"/"+instance), "\n")
			if text == "" {
				return nil
			}
			lines := strings.Split(text, "\n")
			return lines[max(0, len(lines)-shownLog):]
		},
		Notices: s.Notices, Logger: s.cfg.Log, Now: s.now,
	}
	p.Mirror = &restapi.Mirror{
		Mirror: s.Mirror, Clusters: s.Clusters, Files: s.files, Boots: s.sets, BootSet: s.bootSetOf, PackVersion: packVersion,
	}
	if s.Lab != nil {
		p.Lab, p.Console = apiLab{s}, s.console
	}
	return p
}

func (s *System) bootStatus(m site.Machine) phase.Report {
	mac, ok := bootMAC(m)
	if !ok {
		return phase.Report{}
	}
	return s.Boot.Status(mac)
}

// served counts what a machine was sent, over all its network interfaces.
func (s *System) served(m site.Machine) uint64 {
	var sum uint64
	for _, text := range m.MACs {
		if mac, err := decide.ParseMAC(text); err == nil {
			sum += s.Boot.Traffic(mac).Bytes
		}
	}
	return sum
}

func (s *System) console(ctx context.Context, machine string, w io.Writer, view api.ConsoleView) error {
	c, err := s.Lab.Console(machine)
	if err != nil {
		return err
	}
	return c.Copy(ctx, w, view.Tail, view.Follow)
}

// apiLab implements api.Lab.
type apiLab struct{ s *System }

func (l apiLab) Define(ctx context.Context, spec v1.MachineSpec) (*v1.Machine, error) {
	m, err := l.s.DefineMachine(ctx, qemu.Spec{
		Name: spec.Name, Memory: spec.Memory, CPUs: spec.CPUs, Firmware: qemu.Firmware(spec.Firmware), Disk: spec.Disk, Bare: spec.Bare,
	})
	if err != nil {
		return nil, api.Fail(v1.Refused, err, "")
	}
	return &v1.Machine{Name: m.Name, MACs: []string{m.MAC}, UUID: m.UUID, Provider: "qemu"}, nil
}

func (l apiLab) Undefine(ctx context.Context, machine string) error {
	return restapi.Refused(l.s.UndefineMachine(ctx, machine))
}
