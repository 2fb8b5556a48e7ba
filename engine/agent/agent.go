// Package agent is the program on a node: it holds one mutually authenticated connection to the engine, runs the
// requests that come over it (see package sandbox) and brings the results back through its spool, whichever side dies
// in between. Enrol makes the identity that it needs.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
)

// Config is what an agent needs. Zero fields mean the defaults named; Identity is required.
type Config struct {
	Identity *Identity
	Stage    wire.Stage // default wire.Node
	Version  string     // release of the agent
	Log      *slog.Logger

	SpoolDir    string // default "spool" in the identity's directory
	WorkDir     string // default "work" in the identity's directory
	Cgroup      string // see sandbox.Config; sandbox.FindCgroup finds the usual one
	Concurrency int    // requests run at once; default 4
	KeepResults int    // confirmed results kept to answer repeats; default 256
	KeepFailed  int    // see sandbox.Config
	MaxLog      int64  // see sandbox.Config

	Builtins  map[string]sandbox.Builtin                          // built-in actions by name, see Builtins
	Artifacts Artifacts                                           // nil: a step that names artifacts fails
	Facts     func(ctx context.Context) (json.RawMessage, error)  // default: none
	Become    func(ctx context.Context, target wire.Target) error // scout only: fetch, verify, prepare the hand-over
	Console   func(line string)                                   // default: nowhere

	// Tools, in scout, makes the target's image the root of scripts, and gives its folder. It may be called several times at once. Nil: no scripts.
	Tools func(ctx context.Context, target wire.Target) (folder string, err error)

	Now        func() time.Time // default time.Now
	Silence    time.Duration    // how long the engine may be silent; default 60 s, three of its signs of life
	Retry      time.Duration    // bound of the first wait before connecting again; default 500 ms
	RetryLimit time.Duration    // bound of all waits; default 30 s
	GiveUp     time.Duration    // how long the engine may be out of reach before Run returns; 0 for ever
	FactsEvery time.Duration    // how often facts are gathered and, if changed, sent; default 5 min
}

// Artifacts keeps the files that steps name by digest.
type Artifacts interface {
	sandbox.Artifacts
	// Uses notes what an instance uses from now on, in place of what it used before.
	Uses(instance string, used []wire.Artifact) error
}

func (cfg Config) withDefaults() (Config, error) {
	if cfg.Identity == nil {
		return cfg, errors.New("cannot make an agent without an identity")
	}
	if cfg.Stage == "" {
		cfg.Stage = wire.Node
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SpoolDir == "" {
		cfg.SpoolDir = filepath.Join(cfg.Identity.dir, spoolDir)
	}
	if cfg.WorkDir == "" {
		cfg.WorkDir = filepath.Join(cfg.Identity.dir, workDir)
	}
	orInt(&cfg.Concurrency, 4)
	orInt(&cfg.KeepResults, 256)
	orTime(&cfg.Silence, time.Minute)
	orTime(&cfg.Retry, 500*time.Millisecond)
	orTime(&cfg.RetryLimit, 30*time.Second)
	orTime(&cfg.FactsEvery, 5*time.Minute)
	if cfg.Facts == nil {
		cfg.Facts = func(context.Context) (json.RawMessage, error) { return nil, nil }
	}
	if cfg.Console == nil {
		cfg.Console = func(string) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg, nil
}

func orInt(v *int, d int) {
	if *v == 0 {
		*v = d
	}
}

func orTime(v *time.Duration, d time.Duration) {
	if *v == 0 {
		*v = d
	}
}

// Agent runs requests. Make it with New, run it once.
type Agent struct {
	cfg    Config
	pin    Pin
	spool  *spool
	box    *sandbox.Sandbox
	logs   *logBuffer
	slots  chan struct{}
	wake   chan struct{} // something is to be sent
	become *becoming

	mu      sync.Mutex
	jobs    map[string]*job        // accepted and not ended, by request id
	unsaved map[string]wire.Result // results that are not in the spool: refusals, and what a full disk did not take
	leaving bool                   // the hand-over is prepared: nothing new starts
	running sync.WaitGroup
}

// New opens the spool and ends what an agent that died left running: its requests become results that say so. The
// spool belongs to this agent until its Run has returned.
func New(cfg Config) (made *Agent, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	pin, err := ParsePin(cfg.Identity.Pin)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, pin: pin, logs: newLogBuffer(), slots: make(chan struct{}, cfg.Concurrency), wake: make(chan struct{}, 1),
		jobs: map[string]*job{}, unsaved: map[string]wire.Result{},
	}
	a.become = newBecoming(a)
	var interrupted []record
	if a.spool, interrupted, err = openSpool(cfg.SpoolDir, cfg.KeepResults); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.spool.close()
		}
	}()
	a.box, err = sandbox.New(sandbox.Config{
		Root: cfg.WorkDir, Cgroup: cfg.Cgroup, KeepFailed: cfg.KeepFailed, MaxLog: cfg.MaxLog, Builtins: cfg.Builtins, Artifacts: cfg.Artifacts, Tools: a.tools(),
	})
	if err != nil {
		return nil, err
	}
	for _, rec := range interrupted {
		if err := a.box.Clean(rec.ID); err != nil {
			return nil, err
		}
		err := a.spool.finish(wire.Result{
			ID: rec.ID, Instance: rec.Instance, Attempt: rec.Attempt, Reason: wire.Interrupted, ExitCode: -1,
			Error: "the agent died while the step ran; what was left of it was ended", Started: rec.Begun, Ended: cfg.Now(),
		})
		if err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Run serves the engine until ctx ends, whose cause it returns, or until the machine is ready to become something else:
// then it returns nil, and the process has to exit for the hand-over. It also returns when the certificate has expired
// (ErrExpired: enrol again) or the engine was out of reach for long (GiveUp). Requests in flight are finished before a
// hand-over and interrupted otherwise; their results stay in the spool.
func (a *Agent) Run(ctx context.Context) error {
	defer a.spool.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, a.interrupt)
	defer stop()
	a.become.start(ctx, func() {
		a.mu.Lock()
		a.leaving = true
		a.mu.Unlock()
		a.running.Wait()
		cancel(errBecome)
	})
	err := a.connect(ctx)
	cancel(err)
	a.interrupt()
	a.running.Wait()
	a.become.wait()
	if errors.Is(err, errBecome) {
		return nil
	}
	return err
}

// ErrExpired says that the certificate ran out while the engine was away. Enrolling again with the same key and boot id
// brings a new one.
var ErrExpired = errors.New("the certificate has expired")

// errBecome ends the agent because the machine is ready for the hand-over.
var errBecome = errors.New("ready for the hand-over")

func (a *Agent) interrupt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range a.jobs {
		j.cancel(sandbox.ErrInterrupted)
	}
}

// connect holds a connection to one of the engine's URLs, and looks for another when it is lost.
func (a *Agent) connect(ctx context.Context) error {
	back := backoff{first: a.cfg.Retry, limit: a.cfg.RetryLimit}
	urls := a.cfg.Identity.URLs
	if len(urls) == 0 {
		return errors.New("cannot connect: the identity names no URL of the engine")
	}
	said, heard := "", time.Now()
	for i := 0; ; {
		if a.cfg.Identity.Expired(a.cfg.Now()) {
			return ErrExpired
		}
		opened, err := a.session(ctx, urls[i%len(urls)])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if opened {
			heard = time.Now()
		} else if a.cfg.GiveUp > 0 && time.Since(heard) > a.cfg.GiveUp {
			return fmt.Errorf("cannot reach the engine: %w", err)
		}
		var status *StatusError
		if errors.As(err, &status) && status.Text != said { // such as: in quarantine
			said = status.Text
			a.cfg.Console("the engine does not serve this machine: " + said)
		}
		a.cfg.Log.Warn("no connection to the engine", "url", urls[i%len(urls)], "error", err, "lost", opened)
		if opened {
			back.reset() // try the same engine first: it may only have been restarted
		} else {
			i++
		}
		if err := sleep(ctx, back.next()); err != nil {
			return err
		}
	}
}

// accept takes one request: it is run, or answered from the spool, or refused; in any case a result follows.
func (a *Agent) accept(ctx context.Context, req wire.Request) {
	if err := a.check(req); err != nil {
		a.refuse(req, err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, now := a.jobs[req.ID]; now || a.leaving { // after the hand-over it is asked for again
		return
	}
	if a.spool.repeat(req.ID) {
		a.notify()
		return
	}
	before, free := a.yield(req)
	if !free {
		a.running.Go(func() {
			a.finish(cancelled(req.ID, req.Instance, req.Attempt, a.cfg.Now()))
			a.notify()
		})
		return
	}
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx)) // a lost connection ends no step
	j := &job{instance: req.Instance, cancel: cancel, ended: make(chan struct{})}
	a.jobs[req.ID] = j
	a.running.Go(func() {
		defer close(j.ended)
		defer cancel(nil)
		for _, b := range before {
			<-b.ended
		}
		a.run(work, req)
	})
}

// job is a request that was accepted and has not ended.
type job struct {
	instance string
	cancel   context.CancelCauseFunc
	ended    chan struct{}
}

// yield sees to it that one thing at a time is done to an instance: what is under way is ended, to be waited for, since the
// engine has given it up, which its clock may have said sooner than ours; and a verify that comes meanwhile is not free to
// start. The caller holds the lock.
func (a *Agent) yield(req wire.Request) (before []*job, free bool) {
	for _, j := range a.jobs {
		switch {
		case j.instance != req.Instance:
		case req.Action == wire.Verify:
			return nil, false
		default:
			j.cancel(nil)
			before = append(before, j)
		}
	}
	return before, true
}

// check says why a request must not be run here.
func (a *Agent) check(req wire.Request) error {
	if err := req.Validate(); err != nil {
		return err
	}
	if err := a.spool.admit(req.Cluster, req.Epoch); err != nil {
		return err
	}
	if req.Incarnation != "" && req.Incarnation != a.cfg.Identity.Incarnation {
		return fmt.Errorf("it is for the incarnation %s and this is %s", req.Incarnation, a.cfg.Identity.Incarnation)
	}
	if req.Kernel != "" && req.Kernel != kernelBoot() {
		return errors.New("it is for another boot of this machine: what it would write to ended with that")
	}
	switch {
	case req.Stage == wire.Scout && a.cfg.Stage != wire.Scout:
		return errors.New("it is for the discovery image and this is the node's own system")
	case req.Stage != wire.Scout && a.cfg.Stage == wire.Scout:
		return errors.New("it is for the node's own system and this is the discovery image")
	case a.cfg.Stage == wire.Scout && req.Builtin == "" && a.cfg.Tools == nil:
		return errors.New("this discovery image runs built-in actions only")
	}
	return nil
}

func (a *Agent) refuse(req wire.Request, why error) {
	now := a.cfg.Now()
	res := wire.Result{
		ID: req.ID, Instance: req.Instance, Attempt: req.Attempt, Reason: wire.Refused, ExitCode: -1, Ended: now,
		Error: wire.Clip("the agent refused the request: "+why.Error(), wire.MaxError),
	}
	if len(res.ID) == 0 || len(res.ID) > wire.MaxID {
		a.cfg.Log.Warn("refused a request without a usable id", "error", why)
		return
	}
	a.setUnsaved(res)
}

func (a *Agent) setUnsaved(res wire.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unsaved[res.ID] = res
	a.notify()
}

// run runs one accepted request when there is a free place.
func (a *Agent) run(ctx context.Context, req wire.Request) {
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.jobs, req.ID)
		a.notify()
	}()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		if !errors.Is(context.Cause(ctx), sandbox.ErrInterrupted) { // else it never began, and will be asked for again
			a.finish(cancelled(req.ID, req.Instance, req.Attempt, a.cfg.Now()))
		}
		return
	}
	if err := a.spool.begin(req); err != nil {
		a.refuse(req, err)
		return
	}
	log := func(text string) {
		a.logs.add(req.ID, text)
		a.notify()
	}
	res := a.box.Run(ctx, req, log)
	if res.OK && req.Verify != nil {
		res = verified(res, a.box.Run(ctx, req.Checking(), log))
	}
	if res.OK {
		a.uses(req)
	}
	a.finish(res)
}

// uses notes which artifacts an instance rests on. A failed apply may have left something running from the ones before.
func (a *Agent) uses(req wire.Request) {
	if a.cfg.Artifacts == nil || req.Action == wire.Verify {
		return
	}
	used := req.Artifacts
	if req.Action == wire.Remove {
		used = nil
	}
	if err := a.cfg.Artifacts.Uses(req.Instance, used); err != nil {
		a.report("an artifact that nobody uses stays: " + err.Error())
	}
}

// verified is the result of an apply that went well, after it was looked at.
func verified(res, check wire.Result) wire.Result {
	res.Ended = check.Ended
	res.LogBytes += check.LogBytes
	if check.OK {
		return res
	}
	res.OK, res.Reason, res.ExitCode, res.Outputs, res.ValidUntil, res.Tail = false, check.Reason, check.ExitCode, nil, nil, check.Tail
	res.Error = wire.Clip("it was applied, and its verify says: "+check.Error, wire.MaxError)
	return res
}

func cancelled(id, instance string, attempt int, now time.Time) wire.Result {
	return wire.Result{
		ID: id, Instance: instance, Attempt: attempt, Reason: wire.Cancelled, ExitCode: -1, Ended: now,
		Error: "the step was cancelled before it started",
	}
}

// finish records a result; what the disk does not take is sent from memory. A result that the engine would not read is
// a failure of the step: it must not be refused for good, for then nobody would hear of it.
func (a *Agent) finish(res wire.Result) {
	raw, err := json.Marshal(res)
	if err == nil {
		_, err = wire.DecodeResult(raw)
	}
	if err != nil {
		res.OK, res.Reason, res.Outputs, res.ValidUntil, res.Tail = false, wire.Failed, nil, nil, ""
		res.Error = wire.Clip("the step's result cannot be sent: "+err.Error(), wire.MaxError)
	}
	if err := a.spool.finish(res); err != nil {
		a.cfg.Log.Error("a result stays in memory", "error", err)
		a.setUnsaved(res)
	}
}

// cancel ends a request or sees to it that it never starts.
func (a *Agent) cancel(c wire.Cancel) {
	if err := a.spool.admit(c.Cluster, c.Epoch); err != nil {
		a.cfg.Log.Warn("refused to cancel", "id", c.ID, "error", err)
		return
	}
	a.mu.Lock()
	j := a.jobs[c.ID]
	if j != nil {
		j.cancel(nil)
	}
	known := j != nil || a.spool.repeat(c.ID)
	a.mu.Unlock()
	if !known {
		a.finish(cancelled(c.ID, c.Instance, c.Attempt, a.cfg.Now()))
	}
	a.notify()
}

func (a *Agent) notify() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// kernelBoot reads the kernel's random boot id; empty where there is none.
func kernelBoot() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
