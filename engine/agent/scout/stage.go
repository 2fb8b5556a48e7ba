package scout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"joist/engine/agent/disk"
	"joist/engine/agent/fetch"
	"joist/engine/agent/scout/cmdline"
	"joist/engine/agent/scout/kmod"
	"joist/engine/agent/scout/supervisor"
)

// Machine is what an engine is told of the machine in the scout stage.
type Machine struct {
	Session *Session
	Facts   Facts
	// OEM are the firmware's OEM strings (SMBIOS type 11). A voucher's secret may be among them: they are never sent or
	// logged.
	OEM []string
	// Told is the engine's clock when it wrote the boot script, which scout has set the machine's by; zero for none.
	Told time.Time
	// Tools is for scripts. It may be called several times at once, and not once the machine becomes a node.
	Tools Tools
	// Report reaches the machine's consoles and the supervisor.
	Report *Reporter
}

// Become makes the machine run a node image: it fetches it with client, verifies it, mounts it, and leaves everything to
// the node stage. It returns nil once the machine is ready for the hand-over; another call starts over.
type Become func(ctx context.Context, image Image, client *http.Client) error

// Tools makes a node image the root of scripts that run in scout, and gives its folder.
type Tools func(ctx context.Context, image Image, client *http.Client) (folder string, err error)

// Engine is the agent's conversation with the engine: enrolment, connection, steps. Its identity, key and spool lie in
// RunDir (mode 0700) in both stages: what it leaves there in the first is there in the second.
type Engine interface {
	// Scout enrols the machine and waits, however long trust takes, for what it shall become. It calls become for a node
	// image, again after a failure as it sees fit, and returns nil once become has succeeded. An error is shown, and
	// Scout is called again after a back-off.
	Scout(ctx context.Context, m Machine, become Become) error
	// Node goes on in the node stage until ctx ends. It returns earlier only with an error after which calling it again
	// makes sense.
	Node(ctx context.Context, s *Session) error
}

// Reporter tells the supervisor how scout fares.
type Reporter struct{ w io.Writer }

// NewReporter reports on the file descriptor that the supervisor opened.
func NewReporter() *Reporter {
	syscall.CloseOnExec(supervisor.ReportFD) // it is not for the agent's own children
	return &Reporter{os.NewFile(supervisor.ReportFD, "report")}
}

// OK reports progress: whatever failed before has passed.
func (r *Reporter) OK() { _, _ = io.WriteString(r.w, "ok\n") } // without a supervisor nobody listens

// Fail reports a failure, which the supervisor shows on every console.
func (r *Reporter) Fail(err error) {
	_, _ = io.WriteString(r.w, "fail "+strings.Join(strings.Fields(err.Error()), " ")+"\n") // likewise
}

// RunScout is the scout stage: from a bare machine to a new root. It returns nil once everything for the hand-over lies
// in RunDir: the caller exits with status 0, and the supervisor does the rest. Failures are reported and tried again
// with back-off; it returns an error only when ctx ends or the command line is of no use.
func RunScout(ctx context.Context, engine Engine, report *Reporter, log *slog.Logger) error {
	params, err := cmdline.Parse(readText("/proc/cmdline"))
	if err == nil && len(params.URLs) == 0 {
		err = errNoURL
	}
	if err != nil {
		return err
	}
	if from, to, err := SetClock(params.Time); err != nil {
		report.Fail(err)
	} else if !from.Equal(to) {
		log.Info("clock set", "from", from.UTC(), "to", to.UTC())
	}
	paced := make(chan struct{})
	go func() { defer close(paced); KeepPace(ctx, log) }()
	defer func() { <-paced }() // the node stage goes on with the clock source that it finds
	var lease *Lease
	err = retry(ctx, report, func() error {
		lease, err = Network(ctx, params.MAC, moreDrivers(log), log)
		return err
	})
	if err != nil {
		return err
	}
	report.OK()
	log.Info("network up", "mac", lease.MAC.String(), "address", lease.Address, "seconds", int(lease.Expire.Seconds()))
	ctx, cancel := context.WithCancel(ctx)
	keeper := NewKeeper(KeeperConfig{Lease: lease, Log: log})
	kept := make(chan struct{})
	go func() { defer close(kept); keeper.Run(ctx, false) }()
	defer func() { cancel(); <-kept }()

	session := &Session{URLs: params.URLs, Pin: params.Pin, Boot: params.Boot, MAC: lease.MAC.String(), Log: params.Log, Address: lease.Address.Addr().String()}
	err = retry(ctx, report, func() error {
		var device string
		session.Incarnation, device, err = Incarnation(disk.Place{})
		if err == nil && device != "" {
			log.Info("incarnation kept", "incarnation", session.Incarnation, "disk", device)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(RunDir, 0o700); err != nil {
		return fmt.Errorf("cannot make %s: %w", RunDir, err)
	}
	_ = os.Remove(filepath.Join(RunDir, handoverName)) // an earlier attempt's; there may be none
	machine := describe(session, lease, log)
	machine.Report, machine.Told = report, params.Time
	machine.Tools = oneByOne(func(ctx context.Context, image Image, client *http.Client) (string, error) {
		return BuildTools(ctx, RunDir, image, fetch.Config{Client: client, Trouble: report.Fail})
	})
	become := func(ctx context.Context, image Image, client *http.Client) error {
		report.OK()
		node := *session // the engine's side may be reading the session
		node.Image = image
		return handOver(ctx, &node, keeper, fetch.Config{Client: client, Trouble: report.Fail}, log)
	}
	return retry(ctx, report, func() error { return engine.Scout(ctx, machine, become) })
}

// oneByOne lets one call of f at a time run.
func oneByOne(f Tools) Tools {
	free := make(chan struct{}, 1)
	return func(ctx context.Context, image Image, client *http.Client) (string, error) {
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
			return f(ctx, image, client)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// describe gathers the facts and names what the operator may have to bring.
func describe(session *Session, lease *Lease, log *slog.Logger) Machine {
	m := Machine{Session: session, Facts: GatherFacts(BootInterface(lease.MAC.String()))}
	m.OEM, m.Facts.SMBIOS.OEM = m.Facts.SMBIOS.OEM, nil
	for _, file := range m.Facts.MissingFirmware {
		log.Warn("a device lacks its firmware; add the file to the boot set's firmware folder", "file", file)
	}
	return m
}

// handOver fetches the image and leaves everything to the node stage.
func handOver(ctx context.Context, s *Session, keeper *Keeper, how fetch.Config, log *slog.Logger) error {
	start := bootClock()
	root, err := BuildRoot(ctx, RunDir, s.Image, how)
	if err != nil {
		return err
	}
	log.Info("image fetched, verified and mounted", "sha256", s.Image.SHA256, "mib", s.Image.Size>>20, "took", (bootClock() - start).Round(time.Millisecond))
	return leave(RunDir, root, s, keeper.Lease())
}

// Say shows a line on every console, such as the fingerprint that a person is to approve.
func (r *Reporter) Say(line string) {
	_, _ = io.WriteString(r.w, "say "+strings.Join(strings.Fields(line), " ")+"\n") // likewise
}

// retry repeats until there is no error, with a back-off of 1 s doubling to 30 s. Each error is reported.
func retry(ctx context.Context, report *Reporter, do func() error) error {
	for n := 0; ; n++ {
		err := do()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		report.Fail(err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(30*time.Second, time.Second<<min(n, 5))):
		}
	}
}

// moreDrivers looks for devices that appeared since the supervisor did, such as network cards on USB.
func moreDrivers(log *slog.Logger) func() {
	loader, err := kmod.NewLoader()
	if err != nil {
		return func() {} // the supervisor has said so
	}
	return func() {
		if err := loader.Coldplug(); err != nil {
			log.Warn("a driver did not load", "error", err)
		}
	}
}

// RunNode is the node stage: the agent under the node image's systemd. It keeps the boot interface's lease and lets
// the engine's side serve, again after each error, until ctx ends.
func RunNode(ctx context.Context, engine Engine, log *slog.Logger) error {
	session, err := ReadSession(RunDir)
	if err != nil {
		return err
	}
	lease, err := ReadLease(RunDir)
	if err != nil {
		return err
	}
	log.Info("agent runs as node", "incarnation", session.Incarnation, "image", session.Image.SHA256)
	ctx, cancel := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() { defer close(kept); NewKeeper(KeeperConfig{Lease: lease, Dir: RunDir, Log: log}).Run(ctx, true) }()
	defer func() { cancel(); <-kept }()
	for n := 0; ; n++ {
		started := bootClock()
		err := engine.Node(ctx, session)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("it ended without a reason")
		}
		if bootClock()-started > time.Minute {
			n = 0
		}
		log.Error("the connection to the engine ended", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(30*time.Second, time.Second<<min(n, 5))):
		}
	}
}
