// Command joist-agent is the program on a machine: init of the discovery image, the scout that enrols the machine, and
// the agent of the node it becomes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"joist/engine/agent"
	"joist/engine/agent/sandbox"
	"joist/engine/agent/scout"
	"joist/engine/agent/wire"
	"joist/pki/enrol"
)

// version is the release, set when it is built.
var version = "dev"

// voucherPrefix stands before a secret among the firmware's OEM strings (SMBIOS type 11).
const voucherPrefix = "joist.voucher="

func main() {
	os.Exit(scout.Main(os.Args, func(log *slog.Logger) (scout.Engine, error) { return &engine{log: log}, nil }))
}

// engine is the machine's side of the conversation with the engine.
type engine struct{ log *slog.Logger }

// Await implements scout.Engine: enrol, connect as a scout, and wait to be told what to become.
func (e *engine) Await(ctx context.Context, m scout.Machine) (scout.Image, error) {
	facts := func(context.Context) (json.RawMessage, error) { return json.Marshal(m.Facts) }
	identity, err := e.enrol(ctx, scout.RunDir, m.Session, m.Facts.SMBIOS.UUID, secretOf(m.OEM), facts)
	if err != nil {
		return scout.Image{}, err
	}
	var mu sync.Mutex
	var image scout.Image
	a, err := agent.New(agent.Config{
		Identity: identity, Stage: wire.Scout, Version: version, Log: e.log, Facts: facts, Console: console,
		Builtins: agent.Builtins(facts), GiveUp: time.Minute,
		Become: func(_ context.Context, t wire.Target) error {
			if t.Image == nil {
				return errors.New("the target has no image")
			}
			mu.Lock()
			defer mu.Unlock()
			image = scout.Image{URLs: []string{t.Image.URL}, SHA256: strings.TrimPrefix(t.Image.Digest, "sha256:"), Size: t.Image.Size}
			return nil
		},
	})
	if err != nil {
		return scout.Image{}, err
	}
	if err := a.Run(ctx); err != nil {
		return scout.Image{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	return image, nil
}

func (e *engine) enrol(ctx context.Context, dir string, s *scout.Session, uuid string, secret []byte, facts func(context.Context) (json.RawMessage, error)) (*agent.Identity, error) {
	pin, err := agent.ParsePin(s.Pin)
	if err != nil {
		return nil, fmt.Errorf("cannot trust the engine: the command line's joist.ca: %w", err)
	}
	boot, err := enrol.ParseBootID(s.Boot)
	if err != nil {
		return nil, fmt.Errorf("cannot enrol: the command line's joist.boot: %w", err)
	}
	return agent.Enrol(ctx, agent.EnrolConfig{
		Dir: dir, URLs: s.URLs, Pin: pin, Boot: boot, Incarnation: s.Incarnation, MAC: s.MAC, UUID: uuid, Secret: secret,
		Facts: facts, Agent: version, Console: console, GiveUp: time.Minute,
		SetClock: func(now time.Time) error {
			_, _, err := scout.SetClock(now)
			return err
		},
	})
}

// secretOf finds the voucher among the firmware's strings.
func secretOf(oem []string) []byte {
	for _, s := range oem {
		if secret, ok := strings.CutPrefix(s, voucherPrefix); ok {
			return []byte(secret)
		}
	}
	return nil
}

// Client implements scout.Engine. Images are verified by their digest, so that plain HTTP and caches between serve.
func (e *engine) Client() *http.Client { return http.DefaultClient }

// Carry implements scout.Engine: the identity was made where the node looks for it.
func (e *engine) Carry(string) error { return nil }

// Serve implements scout.Engine: the agent under the node's own system. A certificate that ran out while the engine was
// away is asked for again, with the key and the boot id that it was issued for.
func (e *engine) Serve(ctx context.Context, dir string, s *scout.Session) error {
	identity, err := agent.LoadIdentity(dir)
	if err != nil {
		return err
	}
	facts := func(context.Context) (json.RawMessage, error) { return json.Marshal(scout.GatherFacts("")) }
	if identity.Expired(time.Now()) {
		if identity, err = e.enrol(ctx, dir, s, "", nil, facts); err != nil {
			return err
		}
	}
	cgroup := sandbox.FindCgroup()
	if cgroup == "" {
		e.log.Warn("steps run without a control group of their own; what escapes them is found by its mark")
	}
	a, err := agent.New(agent.Config{
		Identity: identity, Stage: wire.Node, Version: version, Log: e.log, Builtins: agent.Builtins(facts), Cgroup: cgroup, Console: console,
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

func console(line string) { fmt.Fprintln(os.Stderr, line) }
