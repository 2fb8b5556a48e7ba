package history_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"joist/engine/history"
	"joist/engine/journal"
)

// line is a record as a corpus of journals has it: one in each line.
type line struct {
	Time    time.Time       `json:"time"`
	Kind    string          `json:"kind"`
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

const seed = `{"time":"2026-11-20T12:00:00Z","kind":"node.seen","version":1,"data":{"node":"n1","incarnation":"i1","boot":"b1","level":"vouched","online":true}}
{"time":"2026-11-20T12:00:00Z","kind":"goal","version":1,"data":{"model":"","source":"","roles":{"a":["n1"]},"by":"x","changed":true}}
{"time":"2026-11-20T12:00:01Z","kind":"started","version":1,"data":{"task":"t","node":"n1","action":"apply","attempt":1,"place":"r","agent":"n1","inputs":{"a":1},"incarnation":"i1","cause":{"kind":"new"}}}
{"time":"2026-11-20T12:00:02Z","kind":"failed","version":1,"data":{"task":"t","node":"n1","action":"apply","attempt":1,"error":"no","final":true}}
{"time":"2026-11-20T12:00:03Z","kind":"goal","version":1,"data":{"model":"","source":"","roles":{"a":["n1"]},"by":"x","changed":true}}
{"time":"2026-11-20T12:00:03Z","kind":"succeeded","version":1,"data":{"task":"k","action":"apply","attempt":1,"outputs":{},"rests_on":[{"node":"n1","incarnation":"i1"}],"silent":{"task":"k","action":"apply","attempt":1}}}
{"time":"2026-11-20T12:00:04Z","kind":"node.ended","version":1,"data":{"node":"n1","incarnation":"i1","why":"wiped"}}
{"time":"2026-11-20T12:00:04Z","kind":"discharged","version":1,"data":{"task":"t","node":"n1","why":"gone"}}
{"time":"2026-11-20T12:00:05Z","kind":"place.returned","version":1,"data":{"rollout":"r","node":"n1","proven":true}}
{"time":"2026-11-20T12:00:06Z","kind":"rested","version":1,"data":{"outcome":"converged"}}
{"time":"2026-11-20T12:00:07Z","kind":"node.released","version":1,"data":{"node":"n1"}}
`

// FuzzFold: whatever a journal holds, it is refused or folded, and the state survives a snapshot.
func FuzzFold(f *testing.F) {
	f.Add([]byte(seed))
	for _, l := range strings.Split(strings.TrimSpace(seed), "\n") {
		f.Add([]byte(l))
	}
	f.Add([]byte(`{"kind":"started","version":1,"data":{"task":"t","action":"apply"}}` + "\n" + `{"kind":"goal","version":1,"data":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		state := history.New()
		for i, l := range bytes.Split(data, []byte("\n")) {
			var r line
			if json.Unmarshal(l, &r) != nil {
				continue
			}
			rec := journal.Record{Seq: uint64(i + 1), Time: r.Time, Kind: r.Kind, Version: r.Version, Data: r.Data}
			e, err := history.Decode(rec)
			if err != nil {
				continue
			}
			if _, err := history.Encode(e, rec.Time); err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			state.Fold(rec.Seq, rec.Time, e)
			state.Clone()
		}
		version, snapshot, err := state.Snapshot()
		if err != nil {
			return // of a time that no clock shows
		}
		if _, err := history.Restore(version, snapshot); err != nil {
			t.Fatal(err)
		}
	})
}
