package cli_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"joist/cmd/joist/cli"
	"joist/cmd/system/restapi"
	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/journal/sqlstore"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
)

// replayFolder is what the program wires in, with the compiler of these tests.
func replayFolder(ctx context.Context, data, cluster string, q v1.ReplayQuery) (*v1.Replay, error) {
	db, err := sqlstore.OpenReadOnly(ctx, data)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	c := clusters.New(clusters.Config{Drive: drive.Config{Store: db.Journals(), Blobs: db.Blobs()}, Compiler: compiler{}})
	return restapi.Replay(ctx, c, cluster, q)
}

// TestReplay replays a cluster's life through the engine, beside it, and after its end; shows it as it was; and finds a
// decision that the journal has otherwise.
func TestReplay(t *testing.T) {
	e := newEngine(t)
	data := filepath.Join(e.dir, "data")
	e.set(func() { e.fail["member[n2]"] = "no room" })
	e.want(cli.Stopped, nil, "apply", e.file(demo))
	e.set(func() { clear(e.fail) })
	e.want(cli.OK, nil, "apply", e.file(demo+"warn\n"))
	var r v1.Replay
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "replay", "demo", "-o", "json")), &r))
	if len(r.Runs) != 2 || r.Diverged != 0 || r.Decisions != 7 || r.Runs[1].Decisions == 0 || r.Runs[1].Outcome != "converged" || r.Events != r.Last {
		t.Errorf("%+v", r)
	}
	second := r.Runs[1].Goal.Seq
	e.want(cli.OK, []string{"decisions in", "are the same", "converged"}, "replay")
	e.want(cli.OK, []string{"are the same"}, "replay", "demo", "--data", data)
	one := v1.Replay{}
	must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "replay", "demo:"+itoa(second), "-o", "json")), &one))
	if len(one.Runs) != 1 || one.Decisions != r.Runs[1].Decisions || one.Events != r.Last-second+1 {
		t.Errorf("%+v", one)
	}
	e.want(cli.Failed, []string{"sets no goal"}, "replay", "demo:"+itoa(second+1))
	e.want(cli.Failed, []string{"its journal ends with event"}, "replay", "demo", "--at", "9999")
	e.want(cli.Failed, []string{"there is no cluster"}, "replay", "other")
	e.want(cli.Usage, []string{"CLUSTER:EVENT"}, "replay", "demo:x")
	e.want(cli.OK, []string{"stopped", "member[n2]", "no room"}, "replay", "demo", "--at", itoa(second-1))

	e.want(cli.Usage, []string{"counted from 1"}, "replay", "demo", "--at", "0")
	for at := uint64(1); at <= r.Last; at++ { // also where that is in the middle of what was decided at once
		var then v1.Replay
		must(t, json.Unmarshal([]byte(e.want(cli.OK, nil, "replay", "demo", "--at", itoa(at), "-o", "json")), &then))
		if then.Last != at || then.At.Events != at {
			t.Errorf("at %d: it ends with %d, %+v", at, then.Last, then.At)
		}
	}

	e.end()
	e.want(cli.OK, []string{"are the same"}, "replay", "demo", "--data", data)
	e.want(cli.Failed, []string{"name an engine's data folder"}, "replay", "demo", "--data", e.dir)

	must(t, alter(t, data))
	e.want(cli.Failed, []string{"diverges", "expected rested", "got      nothing"}, "replay", "demo", "--data", data)
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// alter adds a decision to the journal that no core makes.
func alter(t *testing.T, data string) error {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), sqlstore.Config{Dir: data, Holder: "test"})
	must(t, err)
	defer db.Close()
	name := drive.JournalOf("demo")
	epoch, err := db.Journals().Acquire(t.Context(), name, "test")
	must(t, err)
	var last uint64
	must(t, db.Journals().Read(t.Context(), name, 0, func(r journal.Record) error {
		last = r.Seq
		return nil
	}))
	rec, err := history.Encode(history.Rested{Outcome: history.OutcomeStopped}, time.Now())
	must(t, err)
	rec.Seq = last + 1
	return db.Journals().Append(t.Context(), journal.Batch{Journal: name, Epoch: epoch, After: last, Records: []journal.Record{rec}})
}
