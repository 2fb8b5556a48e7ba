package progress

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "joist/services/api/v1"
)

// TestTracker tells a story: each line of it is second, journal, kind and data, then what is said of it.
func TestTracker(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	tr := New("demo", 1, []string{"n1"})
	for i, c := range []struct {
		at                  int
		journal, kind, data string
		says                string
	}{
		{0, "cluster/demo", "goal", `{"by":"me","roles":{"member":["n1","n2"]}}`, "me set the goal: member = n1 n2"},
		{1, "site", "enrolment", `{"kind":"boot-issued","machine":"n1"}`, "machine n1 boots from the network"},
		{1, "site", "enrolment", `{"kind":"boot-issued","machine":"other"}`, ""},
		{2, "site", "machine.defined", `{"name":"n1"}`, ""},
		{3, "site", "enrolment", `{"kind":"asked","machine":"n1","fingerprint":"ABCD-EFGH"}`, "machine n1 asks to be enrolled, fingerprint ABCD-EFGH: joist node approve n1"},
		{4, "site", "enrolment", `{"kind":"accepted","machine":"n1"}`, "machine n1 is enrolled"},
		{5, "cluster/demo", "node.seen", `{"node":"n1","online":true,"address":"10.0.0.1","incarnation":"abc"}`, "node n1 is up at 10.0.0.1, incarnation abc"},
		{6, "cluster/demo", "node.seen", `{"node":"n1","online":false}`, "node n1 does not answer"},
		{7, "cluster/demo", "node.seen", `{"node":"n1","online":true}`, "node n1 answers again"},
		{8, "cluster/demo", "node.seen", `{"node":"n1","online":true,"level":"approved"}`, ""},
		{10, "cluster/demo", "started", `{"task":"member","node":"n1","attempt":1}`, "member[n1] started"},
		{12, "cluster/demo", "failed", `{"task":"member","node":"n1","attempt":1,"error":"no","retry":"2027-01-15T08:00:17Z"}`, "member[n1] failed (attempt 1), again in 5.0 s: no"},
		{17, "cluster/demo", "started", `{"task":"member","node":"n1","attempt":2}`, "member[n1] started, attempt 2"},
		{20, "cluster/demo", "succeeded", `{"task":"member","node":"n1","attempt":2}`, "member[n1] done after 3.0 s"},
		{21, "cluster/demo", "failed", `{"task":"front","attempt":3,"error":"bad","final":true}`, "front FAILED after 3 attempts: bad"},
		{21, "cluster/demo", "failed", `{"task":"x","action":"remove","attempt":1,"error":"aborted","excused":true}`, "removal of x was given up: aborted"},
		{22, "cluster/other", "rested", `{"outcome":"converged"}`, ""},
		{22, "cluster/demo", "future.kind", `{}`, ""},
		{22, "cluster/demo", "ticked", `17`, ""},
		{80, "cluster/demo", "rested", `{"outcome":"stopped","detail":"1 of 2"}`, "cluster demo stopped: 1 of 2"},
		{90, "cluster/demo", "goal", `{"by":"you"}`, ""},
	} {
		e := v1.Event{Journal: c.journal, Seq: uint64(i + 1), Time: start.Add(time.Duration(c.at) * time.Second), Kind: c.kind, Data: json.RawMessage(c.data)}
		var said []string
		for _, l := range tr.Take(e) {
			said = append(said, l.Text)
		}
		if got := strings.Join(said, "\n"); got != c.says {
			t.Errorf("event %d: got %q, want %q", i+1, got, c.says)
		}
	}
	if tr.Outcome != "stopped" || tr.Done != 1 || tr.Failures != 2 || tr.End.Sub(tr.Start) != 80*time.Second {
		t.Errorf("%+v", tr)
	}
	want := "[{booting from the network 1 1s 1s} {enrolled 1 4s 4s} {agent up 1 5s 5s} {first step 1 10s 10s} {last step done 1 20s 20s}]"
	if got := fmt.Sprint(tr.Phases()); got != want {
		t.Errorf("phases %s", got)
	}
}

func TestSuperseded(t *testing.T) {
	tr := New("demo", 1, nil)
	tr.Take(v1.Event{Journal: "cluster/demo", Seq: 1, Kind: "goal", Data: json.RawMessage(`{"by":"me"}`)})
	lines := tr.Take(v1.Event{Journal: "cluster/demo", Seq: 9, Kind: "goal", Data: json.RawMessage(`{"by":"you"}`)})
	if tr.Outcome != "superseded" || len(lines) != 1 || lines[0].Weight != Bad {
		t.Errorf("%q %v", tr.Outcome, lines)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 420 * time.Millisecond: "0.4 s", 12 * time.Second: "12 s", 65 * time.Second: "1:05", 3723 * time.Second: "1:02:03"} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// TestStirred: of what had happened before, only the last rest counts; a later one ends the following at once.
func TestStirred(t *testing.T) {
	take := func(past uint64, kinds ...string) *Tracker {
		tr := New("demo", 1, nil)
		tr.Past = past
		for i, kind := range kinds {
			if tr.Ended() {
				t.Errorf("past %d, %q: ended before event %d", past, kinds, i+1)
			}
			tr.Take(v1.Event{Journal: "cluster/demo", Seq: uint64(i + 1), Kind: kind, Data: json.RawMessage(`{"by":"me","outcome":"converged","task":"x","attempt":1}`)})
		}
		return tr
	}
	for _, c := range []struct {
		past  uint64
		kinds []string
		ended bool
	}{
		{0, []string{"goal", "rested"}, true},
		{3, []string{"goal", "rested", "node.seen"}, true},
		{5, []string{"goal", "rested", "forced", "stirred", "started"}, false},
		{4, []string{"goal", "rested", "stirred", "started", "succeeded", "rested"}, true},
		{7, []string{"goal", "rested", "stirred", "started", "succeeded", "rested", "node.seen"}, true},
	} {
		if tr := take(c.past, c.kinds...); tr.Ended() != c.ended {
			t.Errorf("past %d, %q: ended %v, want %v", c.past, c.kinds, tr.Ended(), c.ended)
		}
	}
}
