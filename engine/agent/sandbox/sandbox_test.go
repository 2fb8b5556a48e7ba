package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"joist/engine/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func box(t *testing.T, cfg Config) *Sandbox {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = t.TempDir()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func request(script string) wire.Request {
	return wire.Request{
		ID: "c/a@sha256:abc/apply/1", Cluster: "c", Instance: "c/a", Attempt: 1, Epoch: 1, Action: wire.Apply, Step: "sha256:abc",
		Script: []byte(script), Timeout: time.Minute, Grace: time.Second,
	}
}

// run runs a request and returns its result and log.
func run(t *testing.T, s *Sandbox, r wire.Request) (wire.Result, string) {
	t.Helper()
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	res := s.Run(t.Context(), r, func(text string) { log.WriteString(text) })
	raw, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.DecodeResult(raw); err != nil {
		t.Errorf("the result is not a valid one: %v", err)
	}
	return res, log.String()
}

func TestWhatAScriptSees(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "x")
	s := box(t, Config{})
	r := request("#!/bin/sh -e\npwd\nenv | sort\nls -A\nstat -c %a . inputs.json lib/x run.sh\n./run.sh; cat lib/x; read line || echo no stdin\nfor f in /proc/$$/fd/*; do case $(readlink $f) in /dev/null | pipe:* | /tmp/*) ;; *) readlink $f; esac; done\n")
	r.Inputs = json.RawMessage(`{"a":"b"}`)
	r.Files = []wire.File{{Name: "lib/x", Mode: 0o640, Data: []byte("of the step\n")}, {Name: "run.sh", Mode: 0o755, Data: []byte("#!/bin/sh\necho ran\n")}}
	res, log := run(t, s, r)
	if !res.OK {
		t.Fatalf("result %+v, log %s", res, log)
	}
	dir := filepath.Join(s.cfg.Root, runPrefix+s.mark(r.ID))
	want := strings.Join([]string{
		dir,
		"HOME=" + dir, "JOIST_ACTION=apply", "JOIST_INPUTS=" + dir + "/inputs.json", "JOIST_LATER=" + dir + "/later", "JOIST_OUTPUTS=" + dir + "/outputs.json",
		"JOIST_RUN=" + s.mark(r.ID), "JOIST_STEP=sha256:abc", "JOIST_VALID_UNTIL=" + dir + "/valid_until", "LANG=C.UTF-8",
		"PATH=" + DefaultPath, "PWD=" + dir,
		"inputs.json", "lib", "run.sh", "step",
		"700", "600", "640", "755",
		"ran", "of the step", "no stdin",
	}, "\n") + "\n"
	if log != want {
		t.Errorf("a script sees\n%s\nnot\n%s", log, want)
	}
	if left, _ := os.ReadDir(s.cfg.Root); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOutcomes(t *testing.T) {
	object := map[string]string{"a": "string"}
	for name, c := range map[string]struct {
		script  string
		outputs map[string]string
		reason  wire.Reason
		err     string // part of the error
		got     string // outputs
		code    int
	}{
		"outputs":           {"printf '{\"a\": \"x\"}' >$JOIST_OUTPUTS", object, "", "", `{"a":"x"}`, 0},
		"none":              {"true", nil, "", "", "", 0},
		"null value":        {"printf '{\"a\": null}' >$JOIST_OUTPUTS", object, "", "", `{"a":null}`, 0},
		"missing":           {"true", object, wire.Failed, "did not give its declared outputs a (string)", "", 0},
		"undeclared":        {"printf '{\"a\": 1, \"b\": 2}' >$JOIST_OUTPUTS", object, wire.Failed, "gave the outputs b, which it does not declare", "", 0},
		"not an object":     {"echo '[1]' >$JOIST_OUTPUTS", object, wire.Failed, "not a JSON object", "", 0},
		"null":              {"echo null >$JOIST_OUTPUTS", nil, wire.Failed, "null, not a JSON object", "", 0},
		"two objects":       {"echo '{}{}' >$JOIST_OUTPUTS", nil, wire.Failed, "not a JSON object", "", 0},
		"too large":         {"head -c 2000000 /dev/zero >$JOIST_OUTPUTS", object, wire.Failed, "larger than 1048576 bytes", "", 0},
		"a link":            {"ln -s /etc/passwd $JOIST_OUTPUTS", object, wire.Failed, "cannot read the step's outputs", "", 0},
		"a pipe":            {"mkfifo $JOIST_OUTPUTS", object, wire.Failed, "not a regular file", "", 0},
		"exit code":         {"exit 3", nil, wire.Failed, "exit code 3", "", 3},
		"fails with output": {"printf '{\"a\": \"x\"}' >$JOIST_OUTPUTS; exit 1", object, wire.Failed, "exit code 1", "", 1},
		"signal":            {"kill -9 $$", nil, wire.Failed, "killed by a signal", "", -1},
		"valid until":       {"echo tomorrow >$JOIST_VALID_UNTIL", nil, wire.Failed, "no RFC 3339 time", "", 0},
		"retry after":       {"echo 'retry after 30s: no quorum' >$JOIST_LATER; exit 1", object, wire.Later, "retry after 30s: no quorum", "", 1},
		"waiting for":       {"echo waiting for the leader >$JOIST_LATER", nil, wire.Later, "waiting for the leader", "", 0},
		"soon":              {"echo soon >$JOIST_LATER", nil, wire.Failed, "what the step wrote to $JOIST_LATER cannot be read", "", 0},
		"killed and later":  {"echo waiting for x >$JOIST_LATER; kill -9 $$", nil, wire.Failed, "killed by a signal", "", -1},
		"no interpreter":    {"", nil, wire.Failed, "cannot start the step's script", "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script := "#!/bin/sh\n" + c.script
			if c.script == "" {
				script = "#!/no/such/interpreter\n"
			}
			r := request(script)
			r.Outputs = c.outputs
			res, _ := run(t, box(t, Config{}), r)
			if res.OK != (c.reason == "") || res.Reason != c.reason || !strings.Contains(res.Error, c.err) || string(res.Outputs) != c.got || res.ExitCode != c.code {
				t.Errorf("result %+v", res)
			}
		})
	}
}

func TestInterpreter(t *testing.T) {
	for script, want := range map[string]string{
		"#!/bin/bash\nx":          "/bin/bash",
		"#! /bin/sh -e x\n":       "/bin/sh|-e x",
		"#!/usr/bin/env python3":  "/usr/bin/env|python3",
		"#!/bin/sh\t-x\n":         "/bin/sh|-x",
		"#!/bin/sh \r\n":          "/bin/sh",
		"echo\n":                  "/bin/sh",
		"":                        "/bin/sh",
		"#":                       "/bin/sh",
		"#!/usr/bin/awk   -f  \n": "/usr/bin/awk|-f",
	} {
		if got := strings.Join(interpreter([]byte(script)), "|"); got != want {
			t.Errorf("%q is run by %q, not %q", script, got, want)
		}
	}
}

// stubborn starts a process in the background and one that has left the session; both write to a file as long as they
// live, and neither heeds SIGTERM.
func stubborn(t *testing.T) (script string, beating func() bool) {
	t.Helper()
	dir := t.TempDir()
	loop := func(name string) string {
		return fmt.Sprintf("sh -c 'trap \"\" TERM; while :; do echo >>%s/%s; sleep 0.01; done'", dir, name)
	}
	script = "#!/bin/sh\n" + loop("child") + " &\nsetsid " + loop("stranger") + " &\n"
	size := func() int64 {
		var n int64
		for _, f := range []string{"child", "stranger"} {
			info, err := os.Stat(filepath.Join(dir, f))
			if err != nil {
				return -1
			}
			n += info.Size()
		}
		return n
	}
	return script + "while ! [ -s " + dir + "/child ] || ! [ -s " + dir + "/stranger ]; do sleep 0.01; done\n", func() bool {
		before := size()
		time.Sleep(60 * time.Millisecond)
		return before < 0 || size() != before
	}
}

func TestNothingOutlivesAStep(t *testing.T) {
	cgroup := FindCgroup()
	if cgroup == "" {
		t.Fatal("this test needs a writable cgroup v2 hierarchy (Linux 5.14)")
	}
	for _, with := range []string{"", cgroup} {
		for name, c := range map[string]struct {
			rest    string
			timeout time.Duration
			cancel  error
			reason  wire.Reason
		}{
			"ends by itself": {"exit 0", time.Minute, nil, ""},
			"fails":          {"exit 1", time.Minute, nil, wire.Failed},
			"time-out":       {"sleep 60", 300 * time.Millisecond, nil, wire.TimedOut},
			"stubborn":       {"trap '' TERM; while :; do sleep 1; done", 300 * time.Millisecond, nil, wire.TimedOut},
			"cancel":         {"echo ready; sleep 60", time.Minute, context.Canceled, wire.Cancelled},
			"agent stops":    {"echo ready; sleep 60", time.Minute, ErrInterrupted, wire.Interrupted},
		} {
			t.Run(fmt.Sprintf("cgroup=%t/%s", with != "", name), func(t *testing.T) {
				t.Parallel()
				s := box(t, Config{Cgroup: with})
				script, beating := stubborn(t)
				r := request(script + c.rest)
				r.ID += t.Name()
				r.Timeout, r.Grace = c.timeout, 100*time.Millisecond
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var once sync.Once
				res := s.Run(ctx, r, func(string) {
					if c.cancel != nil {
						once.Do(func() { cancel(c.cancel) })
					}
				})
				if res.Reason != c.reason {
					t.Errorf("result %+v", res)
				}
				if beating() {
					t.Error("something outlived the step")
				}
				if c.reason == "" && !strings.Contains(res.Tail, "processes that the step left running were ended") {
					t.Errorf("the log is silent about what was ended: %q", res.Tail)
				}
				if dirs, _ := filepath.Glob(filepath.Join(cgroup, cgroupPrefix+s.mark(r.ID)+"*")); len(dirs) != 0 {
					t.Errorf("cgroups stay: %v", dirs)
				}
			})
		}
	}
}

// TestCgroupsOfOthers: an agent that starts takes away the cgroups that were left of its own runs, and nobody else's: those may be
// about to be used.
func TestCgroupsOfOthers(t *testing.T) {
	parent, root := t.TempDir(), t.TempDir()
	one := box(t, Config{Root: root, Cgroup: parent})
	for _, id := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(parent, cgroupPrefix+one.mark(id)+"-1"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		root string
		left int
	}{{t.TempDir(), 2}, {root, 0}} {
		box(t, Config{Root: test.root, Cgroup: parent})
		if left, err := os.ReadDir(parent); err != nil || len(left) != test.left {
			t.Errorf("%d are left, want %d: %v", len(left), test.left, err)
		}
	}
}

func TestTermIsHeard(t *testing.T) {
	s := box(t, Config{})
	r := request("#!/bin/sh\ntrap 'echo cleaning up; exit 5' TERM\nsleep 60 & wait\n")
	r.Timeout, r.Grace = 200*time.Millisecond, time.Minute
	res, log := run(t, s, r)
	if res.Reason != wire.TimedOut || res.ExitCode != 5 || log != "cleaning up\n" || !strings.Contains(res.Error, "not done after 200ms") {
		t.Errorf("result %+v, log %q", res, log)
	}
}

func TestFailedDirectoriesAreKeptWithinBounds(t *testing.T) {
	s := box(t, Config{KeepFailed: 2})
	for i := range 4 {
		r := request(fmt.Sprintf("#!/bin/sh\necho %d >trace\nexit 1\n", i))
		r.ID = fmt.Sprint(i)
		r.Inputs, r.Secret = json.RawMessage(`{"password":"hunter22"}`), []string{"password"}
		run(t, s, r)
	}
	kept, err := filepath.Glob(filepath.Join(s.cfg.Root, "*"))
	if err != nil || len(kept) != 2 {
		t.Fatalf("kept %v", kept)
	}
	for i, dir := range kept {
		raw, err := os.ReadFile(filepath.Join(dir, "trace"))
		if err != nil || string(raw) != fmt.Sprintf("%d\n", i+2) {
			t.Errorf("%s has the trace %q", dir, raw)
		}
		if _, err := os.Stat(filepath.Join(dir, wire.InputsFile)); !errors.Is(err, os.ErrNotExist) {
			t.Error("inputs with a secret were kept")
		}
	}
}

func TestLeftoversOfADeadAgent(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, runPrefix+"x", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := box(t, Config{Root: root})
	if kept, _ := filepath.Glob(filepath.Join(s.cfg.Root, failedPrefix+"*x")); len(kept) != 1 {
		t.Errorf("kept %v", kept)
	}
}

func TestMountedDiskSurvivesItsStep(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts: run it as root")
	}
	disk := t.TempDir()
	precious := filepath.Join(disk, "precious")
	if err := os.WriteFile(precious, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "with blank")
	s := box(t, Config{Root: root})
	t.Cleanup(func() {
		_ = unix.Unmount(filepath.Join(root, runPrefix+s.mark(request("").ID), "mnt"), unix.MNT_DETACH)
	})
	for _, end := range []string{"exit 0", "exit 1"} {
		run(t, s, request("#!/bin/sh\nset -e\nmkdir mnt\nmount --bind "+disk+" mnt\n"+end+"\n"))
		if _, err := os.Stat(precious); err != nil {
			t.Fatal("a step's directory was removed together with what was mounted in it")
		}
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if left := mountsUnder(string(raw), root); len(left) != 0 {
		t.Errorf("still mounted: %v", left)
	}
}

func TestBuiltins(t *testing.T) {
	s := box(t, Config{Builtins: map[string]Builtin{
		"echo":  func(_ context.Context, c BuiltinCall) (json.RawMessage, error) { return c.Inputs, nil },
		"fail":  func(context.Context, BuiltinCall) (json.RawMessage, error) { return nil, errors.New("no such thing") },
		"sleep": func(ctx context.Context, _ BuiltinCall) (json.RawMessage, error) { <-ctx.Done(); return nil, ctx.Err() },
	}})
	r := request("")
	r.Script, r.Inputs, r.Outputs = nil, json.RawMessage(`{"x":1}`), map[string]string{"x": "number"}
	for name, want := range map[string]string{"echo": "", "fail": "no such thing", "sleep": "not done after", "none": `no built-in action "none"`} {
		r.Builtin, r.Timeout = name, time.Minute
		if name == "sleep" {
			r.Timeout = 20 * time.Millisecond
		}
		res, _ := run(t, s, r)
		if res.OK != (want == "") || !strings.Contains(res.Error, want) {
			t.Errorf("%s: result %+v", name, res)
		}
	}
}

func TestMountinfo(t *testing.T) {
	const info = `22 1 0:21 / / rw - ext4 /dev/sda rw
30 22 0:5 / /w/run-1\040x/a rw - tmpfs tmpfs rw
31 30 0:5 / /w/run-1\040x/a/b rw - tmpfs tmpfs rw
32 22 0:5 / /w/run-1\040xy rw - tmpfs tmpfs rw
33 22 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
`
	if got := unescape(`a\040b\134c\9`); got != "a b\\c\\9" {
		t.Errorf("unescaped %q", got)
	}
	if got := mountsUnder(info, "/w/run-1 x"); !slices.Equal(got, []string{"/w/run-1 x/a", "/w/run-1 x/a/b"}) {
		t.Errorf("mounts %q", got)
	}
	for own, want := range map[string]string{
		"0::/system.slice/joist.service\n": "/sys/fs/cgroup/system.slice/joist.service",
		"1:cpu:/x\n0::/\n":                 "/sys/fs/cgroup",
		"1:cpu:/x\n":                       "",
		"0::/../elsewhere\n":               "",
	} {
		if got := cgroupDir(info, own); got != want {
			t.Errorf("%q is %q, not %q", own, got, want)
		}
	}
}

// Whatever stands in a script's first line or in the kernel's tables, reading it ends with something usable.
func FuzzParsers(f *testing.F) {
	f.Add("#!/bin/sh -e\n", "30 22 0:5 / /w/run-1\\040x/a rw - tmpfs tmpfs rw\n", "0::/a\n")
	f.Add("#!", "33 22 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/..\n1:cpu:/\n")
	f.Add("#! \t\n", "1 2 3 4\n - \n\\", "0::")
	f.Fuzz(func(t *testing.T, script, mountinfo, cgroup string) {
		if n := len(interpreter([]byte(script))); n < 1 || n > 2 {
			t.Fatalf("%d words run the script", n)
		}
		for _, m := range mountsUnder(mountinfo, "/w") {
			if m != "/w" && !strings.HasPrefix(m, "/w/") {
				t.Fatalf("%q is not under /w", m)
			}
		}
		if dir := cgroupDir(mountinfo, cgroup); strings.Contains(dir, "/../") {
			t.Fatalf("the cgroup is %q", dir)
		}
	})
}

// provider gives artifacts that are here already.
type provider map[string]string

func (p provider) Provide(ctx context.Context, req wire.Request, say func(string)) (map[string]string, error) {
	if p == nil {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if p["broken"] != "" {
		return nil, errors.New(p["broken"])
	}
	say("fetching " + req.Artifacts[0].Name)
	return p, nil
}

func TestArtifacts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubelet")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho kubelet runs\n"), 0o555); err != nil {
		t.Fatal(err)
	}
	r := request("#!/bin/sh -e\nreadlink artifacts/kubelet\nartifacts/kubelet\nls artifacts\n")
	r.Artifacts = []wire.Artifact{{Name: "kubelet", Digest: "sha256:" + strings.Repeat("ab", 32), Size: 1, URLs: []string{"http://engine"}}}
	res, log := run(t, box(t, Config{Artifacts: provider{"kubelet": file}}), r)
	if !res.OK || log != "[joist] fetching kubelet\n"+file+"\nkubelet runs\nkubelet\n" {
		t.Errorf("result %+v, log %s", res, log)
	}
	if res, _ := run(t, box(t, Config{}), r); res.Reason != wire.Failed || !strings.Contains(res.Error, "keeps no artifacts") {
		t.Errorf("result %+v", res)
	}
	if res, _ := run(t, box(t, Config{Artifacts: provider{"broken": "it does not fit"}}), r); res.Reason != wire.Failed || res.Error != "it does not fit" {
		t.Errorf("result %+v", res)
	}
	r.Timeout = 20 * time.Millisecond // fetching is part of the step's time
	if res, _ := run(t, box(t, Config{Artifacts: provider(nil)}), r); res.Reason != wire.TimedOut {
		t.Errorf("result %+v", res)
	}
}

// TestTools: a script that is to have another root has none before that is there, and what keeps it away fails the step.
func TestTools(t *testing.T) {
	folder := t.TempDir()
	asked := 0
	r := request("#!/bin/sh\necho never\n")
	res, log := run(t, box(t, Config{Tools: func(context.Context) (string, error) { asked++; return folder, nil }}), r)
	if res.OK || log != "" || asked != 1 || !strings.Contains(res.Error, "cannot start the step's script") {
		t.Errorf("in an empty root: asked %d times, result %+v, log %q", asked, res, log)
	}
	if res, _ := run(t, box(t, Config{Tools: func(context.Context) (string, error) { return "", errors.New("the image does not fit") }}), r); res.Reason != wire.Failed || res.Error != "the image does not fit" {
		t.Errorf("result %+v", res)
	}
	r.Timeout = 20 * time.Millisecond // bringing it is part of the step's time
	if res, _ := run(t, box(t, Config{Tools: func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }}), r); res.Reason != wire.TimedOut {
		t.Errorf("result %+v", res)
	}
}
