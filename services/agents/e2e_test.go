package agents_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/engine/agent"
	"joist/engine/agent/wire"
	"joist/pki/enrol"
	"joist/services/agents"
)

func TestFromPowerOnToResult(t *testing.T) {
	w := newWorld(t)
	cfg := w.machine(w.site.boot(t, "n1", "52:54:00:00:00:01", time.Now()), t.TempDir())
	var mu sync.Mutex
	var said []string
	cfg.Console = func(line string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, line)
	}
	got := make(chan *agent.Identity, 1)
	go func() {
		id, err := agent.Enrol(t.Context(), cfg)
		if err != nil {
			t.Error(err)
		}
		got <- id
	}()
	waitFor(t, "the enrolment", func() bool { return w.site.count(enrol.Asked) == 1 })

	// Until a person has confirmed the key the machine gets nothing.
	err := w.gateway.Dispatch(t.Context(), agents.Order{Node: "n1", Request: request("a", "true")})
	var trust *agents.TrustError
	if !errors.As(err, &trust) || trust.Have != enrol.Claimed || trust.Need != enrol.Approved {
		t.Fatalf("a claimed machine was given a request: %v", err)
	}
	fingerprint := ""
	waitFor(t, "the fingerprint on the console", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, line := range said {
			if rest, ok := strings.CutPrefix(line, "key "); ok {
				fingerprint = rest[:8]
			}
		}
		return fingerprint != ""
	})
	w.site.apply(t, "n1", func(m enrol.Machine) ([]enrol.Event, error) {
		return enrol.Approve(m, enrol.Word{Fingerprint: fingerprint, By: "a person", At: time.Now()})
	})
	id := <-got
	w.run(agentConfig(id))
	w.connected()

	r := request("a", `[ "$PWD" = "$HOME" ]
echo "hello from $(cat "$JOIST_INPUTS")"
echo '{"answer": 42, "list": [1, 2]}' >"$JOIST_OUTPUTS"
echo 2030-01-01T00:00:00Z >"$JOIST_VALID_UNTIL"`)
	r.Inputs, r.Outputs = json.RawMessage(`{"x":1}`), map[string]string{"answer": "number", "list": "list(number)"}
	w.dispatch("n1", r)
	res := w.engine.result(t, r.ID)
	if !res.OK || string(res.Outputs) != `{"answer":42,"list":[1,2]}` || res.ValidUntil == nil || res.ValidUntil.Year() != 2030 {
		t.Errorf("result %+v", res)
	}
	w.engine.until(t, "the log", func(e *engine) bool { return strings.Contains(e.logs.String(), `hello from {"x":1}`) })
	if !strings.Contains(res.Tail, "hello from") || res.LogBytes != int64(len("hello from {\"x\":1}\n")) {
		t.Errorf("tail %q, %d bytes", res.Tail, res.LogBytes)
	}
	if facts := w.site.facts["n1"]; string(facts) != `{"cpus":2}` {
		t.Errorf("facts %s", facts)
	}
	if n := w.conns.Load(); n != 2 { // one to enrol, one for everything else
		t.Errorf("%d connections were opened, not 2", n)
	}
}

func TestGatewayRestart(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	w.run(agentConfig(id))
	w.connected()
	line, runs := counted(t)
	r := request("a", line+"sleep 0.3\n")
	w.dispatch("n1", r)
	waitFor(t, "the start", func() bool { return runs() == 1 })
	w.restart() // the step goes on
	w.dispatch("n1", r)
	if res := w.engine.result(t, r.ID); !res.OK {
		t.Errorf("result %+v", res)
	}
	// Asked once more, by an engine that lost the answer, the agent answers from its spool.
	w.engine.note(func() { w.engine.results = nil })
	w.restart()
	w.dispatch("n1", r)
	if res := w.engine.result(t, r.ID); !res.OK || runs() != 1 {
		t.Errorf("ran %d times, result %+v", runs(), res)
	}
}

func TestResultBeforeDispatchAfterRestart(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	var mu sync.Mutex
	ready := false
	asked := make(chan struct{}, 1000)
	w.engine.judge = func(string, wire.Result) error {
		asked <- struct{}{}
		mu.Lock()
		defer mu.Unlock()
		if !ready {
			return errors.New("the journal is not loaded")
		}
		return nil
	}
	w.run(agentConfig(id))
	w.connected()
	r := request("a", "true")
	w.dispatch("n1", r)
	<-asked
	w.restart()
	w.engine.until(t, "the connection again", func(e *engine) bool { return e.ups == 2 })
	for len(asked) > 0 {
		<-asked
	}
	<-asked // the agent brings the result of a request that this gateway knows nothing of
	mu.Lock()
	ready = true
	mu.Unlock()
	w.dispatch("n1", r)
	if res := w.engine.result(t, r.ID); !res.OK {
		t.Errorf("result %+v", res)
	}
}

func TestDuplicateDispatch(t *testing.T) {
	w := newWorld(t)
	w.run(agentConfig(w.enrolled("n1")))
	line, runs := counted(t)
	r := request("a", line)
	for range 5 {
		w.dispatch("n1", r)
	}
	w.engine.result(t, r.ID)
	w.dispatch("n1", r)
	w.engine.until(t, "a second answer", func(e *engine) bool { return len(e.results) >= 2 })
	if runs() != 1 {
		t.Errorf("ran %d times", runs())
	}
}

// A request that is dispatched anew while its result is being recorded is answered anew.
func TestDispatchWhileTheResultComes(t *testing.T) {
	w := newWorld(t)
	line, runs := counted(t)
	r := request("a", line)
	var once sync.Once
	w.engine.judge = func(string, wire.Result) error {
		once.Do(func() { w.dispatch("n1", r) })
		return nil
	}
	w.run(agentConfig(w.enrolled("n1")))
	w.dispatch("n1", r)
	w.engine.until(t, "a second answer", func(e *engine) bool { return len(e.results) == 2 })
	if runs() != 1 {
		t.Errorf("ran %d times", runs())
	}
}

func TestAgentKilledInMidStep(t *testing.T) {
	for _, env := range [][]string{{"JOIST_TEST_CGROUP=1"}, nil} {
		w := newWorld(t)
		w.enrolled("n2")
		dir := w.dirs["n2"]
		p := w.process(dir, env...)
		w.connected()
		line, runs := counted(t)
		alive, beats := counted(t)
		r := request("a", line+"setsid sh -c 'while :; do "+strings.TrimSpace(alive)+"; sleep 0.01; done' &\nwait\n")
		w.dispatch("n2", r)
		waitFor(t, "the start", func() bool { return runs() == 1 && beats() > 0 })
		kill(p)
		w.process(dir, env...)
		res := w.engine.result(t, r.ID)
		if res.OK || res.Reason != wire.Interrupted {
			t.Errorf("result %+v", res)
		}
		n := beats()
		time.Sleep(100 * time.Millisecond)
		if beats() != n {
			t.Error("what the step started outlived the report that it was ended")
		}
		if runs() != 1 {
			t.Errorf("ran %d times", runs())
		}
	}
}

func TestAgentKilledAtResult(t *testing.T) {
	w := newWorld(t)
	w.enrolled("n1")
	dir := w.dirs["n1"]
	p := w.process(dir)
	w.connected()
	first := make(chan struct{}, 1)
	hold := make(chan struct{})
	w.engine.judge = func(string, wire.Result) error {
		select {
		case first <- struct{}{}:
			<-hold // the agent dies while it waits for the answer
			return errors.New("lost")
		default:
			return nil
		}
	}
	line, runs := counted(t)
	r := request("a", line)
	w.dispatch("n1", r)
	<-first
	kill(p)
	close(hold)
	w.process(dir)
	if res := w.engine.result(t, r.ID); !res.OK || runs() != 1 {
		t.Errorf("ran %d times, result %+v", runs(), res)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	cfg := agentConfig(w.enrolled("n1"))
	cfg.Concurrency = 1
	w.run(cfg)
	w.connected()
	line, runs := counted(t)
	running := request("running", line+"sleep 60")
	waiting := request("waiting", line)
	unknown := request("unknown", line)
	w.dispatch("n1", running)
	waitFor(t, "the start", func() bool { return runs() == 1 })
	w.dispatch("n1", waiting)
	for _, r := range []wire.Request{waiting, unknown, running} {
		err := w.gateway.Cancel(t.Context(), "n1", wire.Cancel{ID: r.ID, Instance: r.Instance, Attempt: 1, Cluster: "c", Epoch: 1})
		if err != nil {
			t.Fatal(err)
		}
		if res := w.engine.result(t, r.ID); res.OK || res.Reason != wire.Cancelled {
			t.Errorf("%s: result %+v", r.Instance, res)
		}
	}
	w.dispatch("n1", unknown) // it was cancelled before it came
	w.engine.until(t, "the answer", func(e *engine) bool { return len(e.results) == 4 })
	if runs() != 1 {
		t.Errorf("ran %d times", runs())
	}
}

func TestOldEpochIsRefused(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	stop := w.run(agentConfig(id))
	line, runs := counted(t)
	r := request("a", line)
	r.Epoch = 7
	w.dispatch("n1", r)
	w.engine.result(t, r.ID)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.run(agentConfig(id)) // it remembers
	old := request("b", line)
	old.Epoch = 6
	w.dispatch("n1", old)
	if res := w.engine.result(t, old.ID); res.Reason != wire.Refused || !strings.Contains(res.Error, "epoch 7") || runs() != 1 {
		t.Errorf("ran %d times, result %+v", runs(), res)
	}
	other := request("c", line)
	other.Cluster, other.Epoch = "another", 1
	w.dispatch("n1", other)
	if res := w.engine.result(t, other.ID); !res.OK {
		t.Errorf("the epoch of one cluster counted for another: %+v", res)
	}
}

func TestOtherIncarnationIsNotServed(t *testing.T) {
	w := newWorld(t)
	w.run(agentConfig(w.enrolled("n1")))
	w.connected()
	line, runs := counted(t)
	old := request("old", line)
	old.Incarnation = "i0"
	w.dispatch("n1", old)
	r := request("new", "true")
	r.Incarnation = "i1"
	w.dispatch("n1", r)
	if res := w.engine.result(t, r.ID); !res.OK || runs() != 0 {
		t.Errorf("ran %d times, result %+v", runs(), res)
	}
	w.gateway.Forget("n1", "i0")
}

func TestAgentStopsAndComesBack(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	stop := w.run(agentConfig(id))
	w.connected()
	line, runs := counted(t)
	r := request("a", line+"sleep 60")
	w.dispatch("n1", r)
	waitFor(t, "the start", func() bool { return runs() == 1 })
	_ = stop()
	w.run(agentConfig(id))
	if res := w.engine.result(t, r.ID); res.Reason != wire.Interrupted || runs() != 1 {
		t.Errorf("ran %d times, result %+v", runs(), res)
	}
}

func TestRenewalKeepsTheConnection(t *testing.T) {
	w := newWorld(t)
	w.ca.life = 2 * time.Second
	id := w.enrolled("n1")
	w.run(agentConfig(id))
	w.connected()
	conns := w.conns.Load()
	begun := time.Now()
	waitFor(t, "three renewals", func() bool { return w.ca.issued.Load() >= 4 })
	waitFor(t, "the end of the first certificate", func() bool { return time.Since(begun) > w.ca.life+500*time.Millisecond })
	r := request("a", "true")
	w.dispatch("n1", r)
	if res := w.engine.result(t, r.ID); !res.OK {
		t.Errorf("result %+v", res)
	}
	if n := w.conns.Load(); n != conns {
		t.Errorf("%d connections, %d at first", n, conns)
	}
	w.restart() // a new connection shows the new certificate
	again := request("b", "true")
	w.dispatch("n1", again)
	w.engine.result(t, again.ID)
}

func TestScoutBecomesNode(t *testing.T) {
	w := newWorld(t)
	id := w.enrolled("n1")
	cfg := agentConfig(id)
	cfg.Stage = wire.Scout
	tries := 0
	cfg.Become = func(_ context.Context, target wire.Target) error {
		if tries++; tries == 1 {
			return errors.New("the image's digest is wrong")
		}
		if target.Image.Digest != "sha256:1" {
			t.Errorf("target %+v", target)
		}
		return nil
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(context.Background()) }()
	w.connected()
	script := request("a", "true")
	script.Stage = wire.Scout
	w.dispatch("n1", script)
	if res := w.engine.result(t, script.ID); res.Reason != wire.Refused {
		t.Errorf("a scout ran a script: %+v", res)
	}
	early := request("early", "true") // waits for the node's own system
	w.dispatch("n1", early)
	builtin := request("facts", "")
	builtin.Script, builtin.Builtin, builtin.Stage, builtin.Outputs = nil, "facts", wire.Scout, map[string]string{"facts": "any"}
	w.dispatch("n1", builtin)
	if res := w.engine.result(t, builtin.ID); !res.OK || string(res.Outputs) != `{"facts":{"cpus":2}}` {
		t.Errorf("result %+v", res)
	}
	w.site.mu.Lock()
	w.site.targets["n1"] = wire.Target{Kind: wire.NodeImage, Image: &wire.Image{Digest: "sha256:1"}}
	w.site.mu.Unlock()
	w.gateway.Refresh("n1")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.engine.until(t, "the report", func(e *engine) bool {
		return len(e.notices) == 1 && strings.Contains(e.notices[0].Text, "digest is wrong")
	})
	again, err := agent.LoadIdentity(w.dirs["n1"])
	if err != nil {
		t.Fatal(err)
	}
	w.run(agentConfig(again))
	if res := w.engine.result(t, early.ID); !res.OK {
		t.Errorf("result %+v", res)
	}
}

func TestVerifyFollowsApply(t *testing.T) {
	w := newWorld(t)
	w.run(agentConfig(w.enrolled("n1")))
	good := request("good", "echo '{\"a\":1}' >$JOIST_OUTPUTS")
	good.Outputs = map[string]string{"a": "number"}
	good.Verify = &wire.Check{Script: []byte("#!/bin/sh\n[ $JOIST_ACTION = verify ] && ! [ -e $JOIST_OUTPUTS ] && echo looked\n")}
	w.dispatch("n1", good)
	if res := w.engine.result(t, good.ID); !res.OK || string(res.Outputs) != `{"a":1}` {
		t.Errorf("result %+v", res)
	}
	bad := good
	bad.ID, bad.Verify = "bad", &wire.Check{Script: []byte("#!/bin/sh\nexit 4\n")}
	w.dispatch("n1", bad)
	if res := w.engine.result(t, bad.ID); res.OK || res.ExitCode != 4 || res.Outputs != nil || !strings.Contains(res.Error, "its verify says") {
		t.Errorf("result %+v", res)
	}
	w.engine.until(t, "the log", func(e *engine) bool { return strings.Contains(e.logs.String(), "looked") })
}
