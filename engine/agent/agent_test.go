package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func result(id string, ended int) wire.Result {
	return wire.Result{ID: id, Instance: id, Attempt: 1, OK: true, Outputs: json.RawMessage(`{"a":1}`), Ended: time.Unix(int64(ended), 0).UTC()}
}

func TestSpoolSurvives(t *testing.T) {
	dir := t.TempDir()
	s, interrupted, err := openSpool(dir, 10)
	if err != nil || len(interrupted) != 0 {
		t.Fatal(err, interrupted)
	}
	for _, id := range []string{"begun", "ended", "told"} {
		if err := s.begin(wire.Request{ID: id, Instance: "i-" + id, Attempt: 3}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.finish(result("ended", 2)), s.finish(result("told", 1)), s.ack("told", 0), s.admit("c", 7)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".tmp-1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, _, err := openSpool(dir, 10); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("two agents have one spool: %v", err)
	}
	s.close()
	s, interrupted, err = openSpool(dir, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(interrupted) != 1 || interrupted[0].ID != "begun" || interrupted[0].Instance != "i-begun" || interrupted[0].Attempt != 3 {
		t.Errorf("interrupted %+v", interrupted)
	}
	if got := s.waiting(); !slices.Equal(got, []string{"ended"}) {
		t.Errorf("waiting %v", got)
	}
	if res, _, err := s.result("ended"); err != nil || string(res.Outputs) != `{"a":1}` {
		t.Errorf("result %+v, %v", res, err)
	}
	if !s.repeat("told") || s.repeat("never") {
		t.Error("what was begun is not what is known")
	}
	if got := s.waiting(); !slices.Equal(got, []string{"told", "ended"}) {
		t.Errorf("waiting %v", got)
	}
	if s.admit("c", 6) == nil || s.admit("c", 7) != nil || s.admit("d", 1) != nil {
		t.Error("epochs are not what they were")
	}
	if info, err := os.Stat(filepath.Join(dir, fileOf("ended"))); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a result is readable by others: %v", info)
	}
}

func TestSpoolForgetsConfirmedResultsOnly(t *testing.T) {
	s, _, err := openSpool(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{"a", "b", "c", "d", "kept"} {
		if err := s.finish(result(id, i)); err != nil {
			t.Fatal(err)
		}
		if id != "kept" {
			if err := s.ack(id, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.repeat("a") || s.repeat("b") || !s.repeat("c") || !s.repeat("d") || !s.repeat("kept") {
		t.Error("the spool kept the wrong results")
	}
	if err := s.ack("c", 0); err != nil { // it was asked for again after the result was read
		t.Fatal(err)
	}
	if got := s.waiting(); !slices.Equal(got, []string{"c", "d", "kept"}) {
		t.Errorf("waiting %v", got)
	}
}

func TestSpoolOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	s, _, err := openSpool(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil { // nothing can be written any more
		t.Fatal(err)
	}
	if s.begin(wire.Request{ID: "a"}) == nil || s.repeat("a") {
		t.Error("a request that is not durable counts as begun")
	}
	if s.admit("c", 3) == nil || s.admit("c", 2) == nil {
		t.Error("an epoch was admitted that will be forgotten")
	}
}

func keyCall(t *testing.T, action wire.Action, in keyPlace) (out struct{ Path, CSR string }, err error) {
	t.Helper()
	got, err := keyAt(action, in)
	if err == nil && got != nil {
		if err := json.Unmarshal(got, &out); err != nil {
			t.Fatal(err)
		}
	}
	return out, err
}

func TestKeyInAFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "kept")
	apply := func(folder string) (string, error) {
		inputs, err := json.Marshal(map[string]string{"purpose": "tokens", "folder": folder})
		if err != nil {
			t.Fatal(err)
		}
		out, err := key(t.Context(), sandbox.BuiltinCall{Action: wire.Apply, Inputs: inputs})
		return string(out), err
	}
	first, err := apply(folder)
	if err != nil || !strings.Contains(first, folder+"/tokens.key") {
		t.Errorf("a key in %s: %s, %v", folder, first, err)
	}
	if again, err := apply(folder); err != nil || again != first {
		t.Errorf("a repetition gave other outputs: %s, %v", again, err)
	}
	for _, bad := range []string{"kept", "/", "/a/../b"} {
		if out, err := apply(bad); err == nil {
			t.Errorf("a key in %q: %s", bad, out)
		}
	}
}

func TestKeyStaysAndIsKept(t *testing.T) {
	in := keyPlace{Path: filepath.Join(t.TempDir(), "keys", "etcd.key"), Name: "etcd"}
	if _, err := keyCall(t, wire.Verify, in); err == nil {
		t.Error("a missing key was verified")
	}
	first, err := keyCall(t, wire.Apply, in)
	if err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(in.Path)
	if err != nil || strings.Contains(first.CSR, "PRIVATE") || first.Path != in.Path {
		t.Errorf("outputs %+v, %v", first, err)
	}
	second, err := keyCall(t, wire.Apply, in)
	if err != nil || second != first {
		t.Errorf("a repetition gave other outputs: %v", err)
	}
	renamed, err := keyCall(t, wire.Apply, keyPlace{in.Path, "other"})
	after, _ := os.ReadFile(in.Path)
	if err != nil || renamed.CSR == first.CSR || string(after) != string(private) {
		t.Errorf("another name has to give another request for the same key: %v", err)
	}
	if _, err := keyCall(t, wire.Verify, in); err == nil {
		t.Error("a request for another name was verified")
	}
	if err := os.Chmod(in.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := keyCall(t, wire.Verify, keyPlace{in.Path, "other"}); err == nil {
		t.Error("a key that everybody can read was verified")
	}
	if _, err := keyCall(t, wire.Apply, in); err != nil {
		t.Error(err)
	}
	if _, err := keyCall(t, wire.Verify, in); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := keyCall(t, wire.Remove, in); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(in.Path)); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	foreign := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(foreign, []byte("root"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{foreign, "relative", "/a/../b", "/", ""} {
		if _, err := keyCall(t, wire.Apply, keyPlace{bad, "x"}); err == nil {
			t.Errorf("made a key at %q", bad)
		}
	}
}

func TestLogBufferIsBounded(t *testing.T) {
	b := newLogBuffer()
	line := strings.Repeat("x", 1023) + "\n"
	for range 300 {
		b.add("a", line)
	}
	b.add("b", "last\n")
	var got, dropped int64
	seq := 0
	for {
		c, ok := b.next()
		if !ok {
			break
		}
		if c.ID == "b" {
			if c.Text != "last\n" || c.Seq != 0 {
				t.Errorf("chunk %+v", c)
			}
			continue
		}
		if c.Seq != seq || len(c.Text) > wire.MaxChunk {
			t.Errorf("chunk %d of %d bytes, not %d", c.Seq, len(c.Text), seq)
		}
		seq++
		got += int64(len(c.Text))
		dropped += c.Dropped
	}
	if got+dropped != 300*1024 || got > maxLogs || got < maxLogs-wire.MaxChunk {
		t.Errorf("%d bytes came and %d were dropped", got, dropped)
	}
	if b.forget("a"); len(b.seq) != 1 || b.size != 0 {
		t.Errorf("remembers %v, %d bytes", b.seq, b.size)
	}
}

func TestBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := backoff{first: 10, limit: 100}
		bound := time.Duration(10)
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			if w := b.next(); w < 0 || w >= bound {
				t.Fatalf("waits %d, with the bound %d", w, bound)
			}
			bound = min(2*bound, 100)
		}
		if b.reset(); b.next() >= 10 {
			t.Fatal("the bound stays after a success")
		}
	})
}

func TestHostPort(t *testing.T) {
	for url, want := range map[string]string{
		"https://10.0.0.1:8443": "10.0.0.1:8443", "https://[fd00::1]": "[fd00::1]:443", "https://e/x": "e:443",
		"http://10.0.0.1": "", "10.0.0.1:8443": "", "https://": "", "%": "",
	} {
		if got, err := hostPort(url); got != want || (err == nil) != (want != "") {
			t.Errorf("%s is %q, %v", url, got, err)
		}
	}
}

func TestParsePin(t *testing.T) {
	if _, err := ParsePin(strings.Repeat("0f", 32)); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "0f", strings.Repeat("zz", 32), strings.Repeat("0f", 33)} {
		if _, err := ParsePin(bad); err == nil {
			t.Errorf("%q is a pin", bad)
		}
	}
}

func TestEnrolGivesUp(t *testing.T) {
	_, err := Enrol(t.Context(), EnrolConfig{
		Dir: t.TempDir(), URLs: []string{"https://127.0.0.1:1"}, Incarnation: "i", GiveUp: time.Nanosecond,
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	var refused *RefusedError
	if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}

// users notes what instances use.
type users map[string]int

func (u users) Provide(context.Context, wire.Request, func(string)) (map[string]string, error) {
	return nil, nil
}

func (u users) Uses(instance string, used []wire.Artifact) error {
	if instance == "broken" {
		return errors.New("it is mounted")
	}
	u[instance] = len(used)
	return nil
}

func TestUses(t *testing.T) {
	u := users{}
	a := &Agent{cfg: Config{Artifacts: u}, logs: newLogBuffer(), wake: make(chan struct{}, 1)}
	list := []wire.Artifact{{Name: "a"}, {Name: "b"}}
	a.uses(wire.Request{Instance: "i", Action: wire.Apply, Artifacts: list})
	a.uses(wire.Request{Instance: "i", Action: wire.Verify, Artifacts: list[:1]}) // looks only
	if u["i"] != 2 {
		t.Errorf("after an apply: %v", u)
	}
	a.uses(wire.Request{Instance: "i", Action: wire.Remove, Artifacts: list})
	if n, ok := u["i"]; n != 0 || !ok {
		t.Errorf("after a remove: %v", u)
	}
	a.uses(wire.Request{Instance: "broken", Action: wire.Remove})
	if got := a.logs.takeReports(); len(got) != 1 || got[0] != "an artifact that nobody uses stays: it is mounted" {
		t.Errorf("reports %q", got)
	}
}

// TestYield: one thing at a time is done to an instance. What is under way ends before an apply or a remove begins, whatever it
// is; a verify does not start meanwhile, and other instances are nobody's concern.
func TestYield(t *testing.T) {
	var ended []string
	under := func(instance string) *job {
		return &job{instance: instance, cancel: func(error) { ended = append(ended, instance) }, ended: make(chan struct{})}
	}
	first := under("i")
	a := &Agent{jobs: map[string]*job{"1": first, "2": under("other"), "3": under("third")}}
	for _, action := range []wire.Action{wire.Apply, wire.Remove} {
		ended = nil
		before, free := a.yield(wire.Request{Instance: "i", Action: action})
		if !free || len(before) != 1 || before[0] != first || !slices.Equal(ended, []string{"i"}) {
			t.Errorf("%s beside another one: waits for %d, free %v, ended %v", action, len(before), free, ended)
		}
	}
	ended = nil
	for instance, want := range map[string]bool{"third": false, "i": false, "fourth": true} {
		if before, free := a.yield(wire.Request{Instance: instance, Action: wire.Verify}); free != want || len(before)+len(ended) > 0 {
			t.Errorf("a verify of %s: free %v, waits for %d, ended %v", instance, free, len(before), ended)
		}
	}
}

// TestOneThingAtATime: an apply begins only when what it ended is over, whatever that takes.
func TestOneThingAtATime(t *testing.T) {
	dir := t.TempDir()
	s, _, err := openSpool(dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{cfg: Config{Now: time.Now, Log: slog.New(slog.DiscardHandler)}, spool: s, logs: newLogBuffer(), wake: make(chan struct{}, 1), unsaved: map[string]wire.Result{}, slots: make(chan struct{}, 2)}
		looking := &job{instance: "c/i", cancel: func(error) {}, ended: make(chan struct{})}
		a.jobs = map[string]*job{"v": looking}
		a.slots <- struct{}{} // so that what begins waits, and ends at once when it is cancelled
		a.slots <- struct{}{}
		a.accept(t.Context(), wire.Request{ID: "c/i#7", Cluster: "c", Instance: "c/i", Attempt: 1, Epoch: 1, Action: wire.Apply, Step: strings.Repeat("0", 64), Builtin: "key", Timeout: time.Minute, Inputs: json.RawMessage(`{}`)})
		if len(a.unsaved) > 0 {
			t.Fatalf("refused: %+v", a.unsaved)
		}
		synctest.Wait()
		a.mu.Lock()
		j := a.jobs["c/i#7"]
		a.mu.Unlock()
		if j == nil {
			t.Fatal("the apply was not taken, or began beside the verify")
		}
		j.cancel(nil)
		synctest.Wait()
		select {
		case <-j.ended:
			t.Error("the apply came to its end before the verify did")
		default:
		}
		close(looking.ended)
		a.running.Wait()
		if got := s.waiting(); !slices.Equal(got, []string{"c/i#7"}) {
			t.Errorf("results %v", got)
		}
	})
}
