package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"joist/engine/agent"
	"joist/engine/agent/artifacts"
	"joist/engine/agent/disk"
	"joist/engine/agent/sandbox"
	"joist/engine/agent/scout"
	"joist/engine/agent/wire"
	"joist/pki/enrol"
)

// voucherPrefix stands before a secret among the firmware's OEM strings (SMBIOS type 11).
const voucherPrefix = "joist.voucher="

// giveUp is how long the engine may be out of reach before scout calls it a failure; then it is tried again.
const giveUp = time.Minute

// engine is the machine's side of the conversation with the engine.
type engine struct{ log *slog.Logger }

// Scout implements scout.Engine: enrol, connect as a scout, and become what the engine says.
func (e engine) Scout(ctx context.Context, m scout.Machine, become scout.Become) error {
	facts := func(context.Context) (json.RawMessage, error) { return json.Marshal(m.Facts) }
	say := func(line string) { m.Report.Say(line); e.log.Info(line) }
	id, err := e.enrol(ctx, m.Session, agent.EnrolConfig{UUID: m.Facts.SMBIOS.UUID, Secret: secretOf(m.OEM), Facts: facts, Console: say, Heard: m.Report.OK})
	if err != nil {
		return err
	}
	client, err := id.Client()
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Config{
		Identity: id, Stage: wire.Scout, Version: version, Log: e.log, Facts: facts, Console: say, Builtins: agent.Builtins(id.Incarnation, facts), GiveUp: giveUp,
		Become: func(ctx context.Context, target wire.Target) error {
			image, err := imageOf(target)
			if err != nil {
				return err
			}
			return become(ctx, image, client)
		},
		Tools: func(ctx context.Context, target wire.Target) (string, error) {
			image, err := imageOf(target)
			if err != nil {
				return "", err
			}
			return m.Tools(ctx, image, client)
		},
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// Node implements scout.Engine: the agent under the node's own system. A certificate that ran out while the engine was
// away is asked for again, with the key and the boot id that it was issued for.
func (e engine) Node(ctx context.Context, s *scout.Session) error {
	id, err := agent.LoadIdentity(scout.RunDir)
	if err != nil {
		return err
	}
	facts := func(context.Context) (json.RawMessage, error) {
		return json.Marshal(scout.GatherFacts(scout.BootInterface(s.MAC)))
	}
	say := func(line string) { e.log.Info(line) }
	if id.Expired(time.Now()) {
		if id, err = e.enrol(ctx, s, agent.EnrolConfig{Facts: facts, Console: say}); err != nil {
			return err
		}
	}
	cgroup := sandbox.FindCgroup()
	if cgroup == "" {
		e.log.Warn("steps run without a control group of their own; what escapes them is found by its mark")
	}
	client, err := id.Client()
	if err != nil {
		return err
	}
	kept, err := artifacts.Open(artifacts.Config{
		Dir: artifactsDir, Disk: filepath.Join(disk.Root, "artifacts"), Marks: filepath.Join(scout.RunDir, "artifacts"), Client: client,
	})
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Config{
		Artifacts: kept,
		Identity:  id, Stage: wire.Node, Version: version, Log: e.log, Builtins: agent.Builtins(id.Incarnation, facts), Facts: facts, Cgroup: cgroup, Console: say,
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// artifactsDir is where a node keeps what steps name by digest, in its root: in memory, until it has a data disk.
const artifactsDir = "/var/lib/joist/artifacts"

// enrol completes an enrolment's config from what this boot was told.
func (e engine) enrol(ctx context.Context, s *scout.Session, config agent.EnrolConfig) (*agent.Identity, error) {
	pin, pinErr := agent.ParsePin(s.Pin)
	boot, bootErr := enrol.ParseBootID(s.Boot)
	if err := errors.Join(pinErr, bootErr); err != nil {
		return nil, fmt.Errorf("cannot enrol with joist.ca and joist.boot of the command line: %w", err)
	}
	config.Dir, config.URLs, config.Pin, config.Boot = scout.RunDir, s.URLs, pin, boot
	config.Incarnation, config.MAC, config.Agent, config.GiveUp, config.SetClock = s.Incarnation, s.MAC, version, giveUp, scout.StepClock
	return agent.Enrol(ctx, config)
}

// secretOf finds the voucher among the firmware's strings; nil for none.
func secretOf(oem []string) []byte {
	for _, s := range oem {
		if secret, ok := strings.CutPrefix(s, voucherPrefix); ok {
			return []byte(secret)
		}
	}
	return nil
}

// imageOf reads the image that a target names.
func imageOf(target wire.Target) (scout.Image, error) {
	if target.Image == nil {
		return scout.Image{}, fmt.Errorf("the target %q names no node image", target.Kind)
	}
	digest, ok := strings.CutPrefix(target.Image.Digest, "sha256:")
	if _, err := hex.DecodeString(digest); !ok || err != nil {
		return scout.Image{}, fmt.Errorf("the node image's digest %.80q is not a SHA-256", target.Image.Digest)
	}
	return scout.Image{URLs: []string{target.Image.URL}, SHA256: digest, Size: target.Image.Size}, nil
}
