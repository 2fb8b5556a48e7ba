package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"joist/cmd/joist/cli"
	labs "joist/cmd/joist/lab"
	"joist/cmd/joist/supply"
	"joist/providers/qemu/lab"
	"joist/services/boot/bootset"
)

// local wires what works on this machine alone.
func local() cli.Local {
	return cli.Local{Serve: serve, Source: source, Adapted: adapted, Wanted: wanted, Replay: replay, Simulate: simulated, TestPack: testPack, LockPacks: lockPacks, Check: check, CheckCluster: checkCluster, Format: canonical, Build: build, Lab: openLab}
}

func build(ctx context.Context, o supply.BuildOptions, progress func(stage, detail string)) (string, error) {
	profile, err := bootset.ParseProfile(o.Profile)
	if err != nil {
		return "", err
	}
	if o.Cache == "" {
		o.Cache = filepath.Join(o.Out, ".cache")
	}
	set, err := bootset.Build(ctx, bootset.Config{Profile: profile, Out: o.Out, Cache: o.Cache, Agent: o.Agent, Firmware: o.Firmware}, progress)
	if err != nil {
		return "", err
	}
	return set.Folder, nil
}

func openLab(data, subnet string) (*labs.Lab, error) {
	cfg := lab.Config{Data: data}
	if subnet != "" {
		var err error
		if cfg.Subnet, err = netip.ParsePrefix(subnet); err != nil {
			return nil, fmt.Errorf("cannot read --subnet: %w", err)
		}
	}
	l, err := lab.Open(cfg)
	if err != nil {
		return nil, err
	}
	return &labs.Lab{Namespace: l.Name(), Socket: socket(l), Room: room{l}}, nil
}

// Start implements labs.Room.
func (l room) Start(ctx context.Context, o labs.Engine) (ended func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find this program: %w", err)
	}
	argv := []string{
		self, "serve", "--socket", socket(l.Lab), "--data", o.Data, "--bootsets", o.BootSets, "--log-level", o.LogLevel,
		"--interface", lab.Bridge, "--subnet", l.Subnet().String(), "--address", l.Address().String(), "--run-dir", l.RunDir(), "--bridge", lab.Bridge,
	}
	if err := os.MkdirAll(o.Data, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	log := filepath.Join(o.Data, "engine.log")
	_, id, err := l.Lab.Start(ctx, lab.Service{Name: "engine", Argv: argv, Log: log})
	return func() error {
		if id.Alive() {
			return nil
		}
		return fmt.Errorf("the engine has ended: %s; more is in %s", lastLine(log), log)
	}, err
}

// lastLine is what a program said last, as far as its log can be read.
func lastLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "joist: ")
}

func socket(l *lab.Lab) string { return filepath.Join(l.RunDir(), "api.sock") }

// room runs commands in a lab with this program's input and outputs.
type room struct{ *lab.Lab }

// Exec implements labs.Room.
func (l room) Exec(ctx context.Context, argv []string) (int, error) {
	cmd, err := l.Command(context.WithoutCancel(ctx), argv...) // a terminal's Ctrl-C reaches the command itself
	if err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.ExitCode() < 0 {
			return cli.Failed, nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}
