// Package sandbox runs one action of one step on a node: in a private directory, with a clean environment, its inputs
// as a JSON file, its outputs read from one, everything it starts ended with it.
//
// What a script finds: its own directory as working directory and HOME (mode 0700), with the step's further files in
// it; PATH, LANG=C.UTF-8, and
//
//	JOIST_INPUTS       path of inputs.json, the declared inputs as one JSON object (mode 0600)
//	JOIST_OUTPUTS      path of the file it writes its outputs to, one JSON object with exactly the declared names;
//	                   a step without outputs need not write it
//	JOIST_VALID_UNTIL  path of the file it may write an RFC 3339 time to, when its success expires
//	JOIST_LATER        path of the file in which an apply or remove may say that it came to no end yet, which is no failure:
//	                   one line, "retry after 30s: REASON" or "waiting for REASON". It is tried again; what it wrote
//	                   elsewhere and its exit code do not count then
//	JOIST_ACTION       apply, verify or remove
//	JOIST_STEP         digest of the step
//	JOIST_RUN          a mark by which what it started is found; of no other use
//
// A step that names artifacts finds them in artifacts/ in its directory: for each one a symbolic link with its name, to
// the file, or to the folder where a bundle is mounted. What the link leads to stays as long as an instance uses it, so
// that units may be started from there.
//
// It is a session and process group of its own. Whatever it leaves running is killed when it ends: what shall stay
// belongs to the system's service manager.
package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"joist/engine/agent/wire"
	"joist/engine/step"
)

// ErrInterrupted as the cause of a cancelled context makes the result say "interrupted" instead of "cancelled": the
// agent stops, nobody asked to end the step.
var ErrInterrupted = errors.New("the agent was stopped")

// Config says where and how steps run. Zero fields mean the defaults named.
type Config struct {
	Root       string             // private directory for the steps' directories; required
	Cgroup     string             // a cgroup v2 directory to make a child in for each step; empty: processes are found by session and mark
	Path       string             // PATH of steps; default DefaultPath
	KeepFailed int                // directories of failed steps kept to be looked at; default 5, negative for none
	MaxLog     int64              // bytes of one step's log passed on; default 1 MiB. The result's tail is kept in any case
	Builtins   map[string]Builtin // the built-in actions by name
	Artifacts  Artifacts          // nil: a step that names artifacts fails
	// Tools gives the folder that scripts have as their root directory, where the sandbox's own Root has the same path. Nil: this
	// process's own root.
	Tools func(ctx context.Context) (folder string, err error)
}

// Artifacts brings the artifacts that a step names to this node.
type Artifacts interface {
	// Provide gives the path of each of the request's artifacts by its name. What it says goes to the step's log.
	Provide(ctx context.Context, req wire.Request, say func(line string)) (map[string]string, error)
}

// DefaultPath is the PATH of steps.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Builtin performs a built-in action. It is idempotent, ends when ctx does, and returns its declared outputs as a JSON
// object (nil for none).
type Builtin func(ctx context.Context, call BuiltinCall) (json.RawMessage, error)

// BuiltinCall is what a built-in action sees.
type BuiltinCall struct {
	Action wire.Action
	Inputs json.RawMessage // JSON object
}

// Sandbox runs requests. It is safe for concurrent use.
type Sandbox struct{ cfg Config }

// New prepares the root directory and ends up with what runs of an earlier process left in it: their directories are
// kept as those of failed steps, within the bound.
func New(cfg Config) (*Sandbox, error) {
	if !filepath.IsAbs(cfg.Root) {
		return nil, fmt.Errorf("cannot make a sandbox: its root %q is not an absolute path", cfg.Root)
	}
	if cfg.Path == "" {
		cfg.Path = DefaultPath
	}
	if cfg.KeepFailed == 0 {
		cfg.KeepFailed = 5
	}
	if cfg.MaxLog == 0 {
		cfg.MaxLog = 1 << 20
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a sandbox: %w", err)
	}
	s := &Sandbox{cfg: cfg}
	left, err := filepath.Glob(filepath.Join(cfg.Root, runPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("cannot make a sandbox: %w", err)
	}
	for _, dir := range left {
		if err := s.dispose(dir, true, true); err != nil {
			return nil, err
		}
	}
	if cfg.Cgroup != "" {
		old, err := filepath.Glob(filepath.Join(cfg.Cgroup, cgroupPrefix+s.owner()+"*")) // of its own: those of others may be about to be used
		if err != nil {
			return nil, fmt.Errorf("cannot make a sandbox: %w", err)
		}
		for _, dir := range old {
			_ = os.Remove(dir) // works on empty ones only
		}
	}
	return s, nil
}

const (
	runPrefix    = "run-"
	failedPrefix = "failed-"
	envMark      = "JOIST_RUN"
)

// mark names a run: its directory, its cgroup and the mark in its environment. It is the same when an agent has been
// restarted, and differs between agents on one machine.
func (s *Sandbox) mark(id string) string {
	sum := sha256.Sum256([]byte(id))
	return s.owner() + hex.EncodeToString(sum[:12])
}

// owner is how the marks of all its runs begin.
func (s *Sandbox) owner() string {
	sum := sha256.Sum256([]byte(s.cfg.Root))
	return hex.EncodeToString(sum[:4])
}

// Run performs the request and returns its result; log is given the step's output while it runs, in whole lines, from
// one goroutine. When ctx ends, the step gets SIGTERM, then, after the request's grace, SIGKILL. The caller has
// validated the request.
func (s *Sandbox) Run(ctx context.Context, req wire.Request, log func(text string)) wire.Result {
	res := wire.Result{ID: req.ID, Instance: req.Instance, Attempt: req.Attempt, ExitCode: -1, Started: time.Now()}
	out := newLogger(loggerConfig{max: s.cfg.MaxLog, secrets: secretTexts(req), emit: log})
	var err error
	if req.Builtin != "" {
		err = s.builtin(ctx, req, &res)
	} else {
		err = s.script(ctx, req, &res, out)
	}
	out.close()
	res.Ended, res.Tail, res.LogBytes = time.Now(), out.tail(), out.written
	if err == nil {
		res.OK = true
		return res
	}
	res.Outputs, res.ValidUntil, res.Reason = nil, nil, wire.Failed
	var stop *stopError
	var later *step.Later
	switch {
	case errors.As(err, &stop):
		res.Reason = stop.reason
	case errors.As(err, &later):
		res.Reason, res.Later = wire.Later, out.redact(later.Error())
	}
	res.Error = wire.Clip(out.redact(err.Error()), wire.MaxError)
	return res
}

// stopError is the failure of a step that was ended from outside.
type stopError struct {
	reason wire.Reason
	text   string
}

func (e *stopError) Error() string { return e.text }

// stopped says why ctx ended.
func stopped(ctx context.Context, timeout time.Duration) *stopError {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, ErrInterrupted):
		return &stopError{wire.Interrupted, "the agent was stopped while the step ran; it was ended"}
	case errors.Is(cause, errTimeout):
		return &stopError{wire.TimedOut, fmt.Sprintf("the step was not done after %s and was ended", timeout)}
	}
	return &stopError{wire.Cancelled, "the step was cancelled and ended"}
}

var errTimeout = errors.New("time-out")

func timeoutOf(req wire.Request) time.Duration {
	if req.Timeout > 0 {
		return req.Timeout
	}
	return wire.DefaultTimeout
}

func (s *Sandbox) builtin(ctx context.Context, req wire.Request, res *wire.Result) error {
	run := s.cfg.Builtins[req.Builtin]
	if run == nil {
		return fmt.Errorf("this agent has no built-in action %q", req.Builtin)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeoutOf(req), errTimeout)
	defer cancel()
	raw, err := run(ctx, BuiltinCall{Action: req.Action, Inputs: inputsOf(req)})
	if ctx.Err() != nil {
		return stopped(ctx, timeoutOf(req))
	}
	if err != nil {
		return err
	}
	res.ExitCode = 0
	res.Outputs, err = checkOutputs(raw, req.Outputs)
	return err
}

func inputsOf(req wire.Request) json.RawMessage {
	if len(req.Inputs) == 0 {
		return json.RawMessage("{}")
	}
	return req.Inputs
}

func (s *Sandbox) script(ctx context.Context, req wire.Request, res *wire.Result, out *logger) (err error) {
	dir := filepath.Join(s.cfg.Root, runPrefix+s.mark(req.ID))
	if err := removeTree(dir); err != nil {
		return err
	}
	defer func() {
		if derr := s.dispose(dir, err != nil, holdsSecrets(req)); err == nil {
			err = derr
		}
	}()
	if err := layOut(dir, req); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeoutOf(req), errTimeout)
	defer cancel()
	if err := s.provide(limited, dir, req, out); err != nil {
		return err
	}
	root := ""
	if s.cfg.Tools != nil {
		if root, err = s.cfg.Tools(limited); err != nil {
			if limited.Err() != nil {
				return stopped(limited, timeoutOf(req))
			}
			return err
		}
	}
	p := process{
		root:  root,
		argv:  append(interpreter(req.Script), filepath.Join(dir, wire.ScriptFile)),
		dir:   dir,
		env:   s.environment(dir, req),
		group: s.group(req.ID),
		grace: req.Grace,
		out:   out,
	}
	if p.grace == 0 {
		p.grace = wire.DefaultGrace
	}
	code, ended, err := p.run(limited)
	res.ExitCode = code
	switch {
	case err != nil:
		return err
	case ended:
		return stopped(limited, timeoutOf(req))
	case code < 0:
		return errors.New("the step's script was killed by a signal")
	}
	if err := postponed(dir, req); err != nil {
		return err
	}
	switch {
	case code > 0:
		return fmt.Errorf("the step's script ended with exit code %d", code)
	}
	return s.collect(dir, req, res)
}

// provide makes the folder of the step's artifacts. Fetching them is part of the step's time.
func (s *Sandbox) provide(ctx context.Context, dir string, req wire.Request, out *logger) error {
	if len(req.Artifacts) == 0 {
		return nil
	}
	if s.cfg.Artifacts == nil {
		return errors.New("this agent keeps no artifacts, and the step needs some")
	}
	paths, err := s.cfg.Artifacts.Provide(ctx, req, out.note)
	if ctx.Err() != nil {
		return stopped(ctx, timeoutOf(req))
	}
	if err != nil {
		return err
	}
	folder := filepath.Join(dir, wire.ArtifactsDir)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("cannot lay out the step's artifacts: %w", err)
	}
	for _, a := range req.Artifacts {
		if err := os.Symlink(paths[a.Name], filepath.Join(folder, a.Name)); err != nil {
			return fmt.Errorf("cannot lay out the step's artifacts: %w", err)
		}
	}
	return nil
}

// holdsSecrets says whether inputs or outputs may be secret, by the types' names.
func holdsSecrets(req wire.Request) bool {
	for _, kind := range req.Outputs {
		if strings.Contains(kind, "secret(") {
			return true
		}
	}
	return len(req.Secret) > 0
}

// layOut makes the step's directory with its script, files and inputs.
func layOut(dir string, req wire.Request) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the step's directory: %w", err)
	}
	files := []wire.File{
		{Name: wire.ScriptFile, Mode: 0o700, Data: req.Script},
		{Name: wire.InputsFile, Mode: 0o600, Data: inputsOf(req)},
	}
	for _, f := range append(files, req.Files...) {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return fmt.Errorf("cannot write the step's files: %w", err)
		}
		mode := os.FileMode(f.Mode) & os.ModePerm
		if mode == 0 {
			mode = 0o644
		}
		if err := os.WriteFile(name, f.Data, mode|0o200); err != nil {
			return fmt.Errorf("cannot write the step's files: %w", err)
		}
		if err := os.Chmod(name, mode); err != nil { // whatever the umask is
			return fmt.Errorf("cannot write the step's files: %w", err)
		}
	}
	return nil
}

func (s *Sandbox) environment(dir string, req wire.Request) []string {
	return []string{
		"PATH=" + s.cfg.Path,
		"HOME=" + dir,
		"LANG=C.UTF-8",
		"JOIST_INPUTS=" + filepath.Join(dir, wire.InputsFile),
		"JOIST_OUTPUTS=" + filepath.Join(dir, wire.OutputsFile),
		"JOIST_VALID_UNTIL=" + filepath.Join(dir, wire.ValidFile),
		"JOIST_LATER=" + filepath.Join(dir, wire.LaterFile),
		"JOIST_ACTION=" + string(req.Action),
		"JOIST_STEP=" + req.Step,
		envMark + "=" + s.mark(req.ID),
	}
}

// interpreter reads the script's first line as the kernel would (see execve(2): a path and at most one argument). The
// script is handed to its interpreter instead of being executed, so that a writable descriptor that a concurrent fork
// inherited for a moment cannot make it fail with "text file busy", and the directory may be mounted noexec.
func interpreter(script []byte) []string {
	if !strings.HasPrefix(string(script[:min(2, len(script))]), "#!") {
		return []string{"/bin/sh"}
	}
	line, _, _ := strings.Cut(string(script[2:]), "\n")
	line = strings.TrimSpace(line)
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return []string{line[:i], strings.TrimSpace(line[i:])}
	}
	return []string{line}
}

// postponed gives what a script wrote to say that it came to no end yet: a *step.Later, or an error about that.
func postponed(dir string, req wire.Request) error {
	raw, err := readBounded(filepath.Join(dir, wire.LaterFile), 4<<10)
	switch {
	case err != nil:
		return fmt.Errorf("cannot read what the step waits for: %w", err)
	case len(raw) == 0:
		return nil
	case req.Action == wire.Verify:
		return errors.New("the step wrote to $JOIST_LATER in its verify, which may only say yes or no")
	}
	later, err := step.ParseLater(string(raw))
	if err != nil {
		return fmt.Errorf("what the step wrote to $JOIST_LATER cannot be read: %w", err)
	}
	return later
}

// collect reads what a successful script wrote.
func (s *Sandbox) collect(dir string, req wire.Request, res *wire.Result) error {
	raw, err := readBounded(filepath.Join(dir, wire.OutputsFile), wire.MaxOutputs)
	if err != nil {
		return fmt.Errorf("cannot read the step's outputs: %w", err)
	}
	if res.Outputs, err = checkOutputs(raw, req.Outputs); err != nil {
		return err
	}
	raw, err = readBounded(filepath.Join(dir, wire.ValidFile), 100)
	if err != nil {
		return fmt.Errorf("cannot read until when the step's success is valid: %w", err)
	}
	if text := strings.TrimSpace(string(raw)); text != "" {
		until, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return fmt.Errorf("the step wrote %s to $JOIST_VALID_UNTIL, which is no RFC 3339 time", strconv.Quote(text))
		}
		res.ValidUntil = &until
	}
	return nil
}
