package sim_test

import (
	"encoding/json"
	"strings"
	"testing"

	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/replay"
)

func records(l *lab) []journal.Record {
	out := make([]journal.Record, len(l.journal))
	for i, r := range l.journal {
		r.Seq = uint64(i + 1)
		out[i] = r
	}
	return out
}

func replayed(t *testing.T, l *lab, recs []journal.Record, from uint64) replay.Report {
	t.Helper()
	r := replay.New(l, from)
	for _, rec := range recs {
		if err := r.Take(rec); err != nil {
			t.Fatal(err)
		}
	}
	return r.End()
}

// TestReplayFinds alters one decision of a journal at a time: the replay names that event, what the journal has and what
// the core decides, and goes on after it.
func TestReplayFinds(t *testing.T) {
	l := grown(3, 0)
	if l.err != nil {
		t.Fatal(l.report())
	}
	if r := replayed(t, l, records(l), 0); r.Diverged > 0 || r.Decisions == 0 || r.Events != uint64(len(l.journal)) {
		t.Fatalf("%+v", r)
	}
	altered := map[string]int{}
	for i := range l.journal {
		e := l.event(uint64(i + 1))
		switch was := e.(type) {
		case history.Started:
			was.Deadline = was.Deadline.Add(1)
			e = was
		case history.PlaceReturned:
			was.Proven = !was.Proven
			e = was
		case history.Rested:
			was.Detail += "!"
			e = was
		case history.Succeeded:
			was.Output[0] ^= 1
			e = was
		default:
			continue
		}
		recs := records(l)
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		recs[i].Data = data
		r := replayed(t, l, recs, 0)
		altered[recs[i].Kind]++
		if r.Diverged == 0 || r.Divergences[0].Seq != uint64(i+1) || r.Divergences[0].Got == nil || string(r.Divergences[0].Got.Data) != string(l.journal[i].Data) {
			t.Fatalf("event %d, %s, was altered; the replay found %+v", i+1, recs[i].Kind, r)
		}
		if later := replayed(t, l, recs, uint64(i+2)); later.Events != uint64(len(recs)-i-1) {
			t.Errorf("from event %d on: %+v", i+2, later)
		}
	}
	if len(altered) < 3 {
		t.Errorf("altered only %v", altered)
	}
}

// TestReplayMisses takes a decision out of a journal, and adds one: both are found.
func TestReplayMisses(t *testing.T) {
	l := grown(3, 0)
	for i := range l.journal {
		if l.journal[i].Kind != "started" {
			continue
		}
		recs := records(l)
		extra := recs[i]
		recs = append(recs[:i+1:i+1], append([]journal.Record{extra}, recs[i+1:]...)...)
		for k := range recs {
			recs[k].Seq = uint64(k + 1)
		}
		if r := replayed(t, l, recs, 0); r.Diverged == 0 || r.Divergences[0].Seq > uint64(i+2) {
			t.Fatalf("event %d stands twice; the replay found %+v", i+1, r)
		}
		recs = records(l)[:i] // the core decides more than the journal has
		r := replayed(t, l, recs, 0)
		if r.Diverged != 1 || r.Divergences[0].Expected != nil || r.Divergences[0].Got == nil {
			t.Fatalf("event %d is missing at the end; the replay found %+v", i+1, r)
		}
		if text := r.Divergences[0].String(); !strings.Contains(text, "expected nothing") || !strings.Contains(text, "got started") {
			t.Errorf("it says %s", text)
		}
		return
	}
	t.Fatal("nothing was started")
}
