package history

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"joist/engine/value"
)

// rows draws rows of all kinds: quiet ones, and those with something that only few have.
func rows(t *rapid.T, s *State) {
	now := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	digest := func(what string) value.Digest {
		return value.Sum([]byte(what), []byte{rapid.Byte().Draw(t, "digest")})
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "nodes") {
		s.Index(fmt.Sprintf("n%d", i))
	}
	for _, task := range []string{"a", "b", "c"} {
		for node := -1; node < len(s.Nodes); node++ {
			if rapid.IntRange(0, 3).Draw(t, "empty") == 0 {
				continue
			}
			target := Target{Task: task}
			if node >= 0 {
				target.Node = s.Nodes[node].Name
			}
			r := s.row(target)
			r.Phase = Phase(rapid.IntRange(0, 2).Draw(t, "phase"))
			r.Started = uint64(rapid.IntRange(0, 1000).Draw(t, "started"))
			r.Ended = uint64(rapid.IntRange(0, 1000).Draw(t, "ended"))
			r.Goal, r.Stood = rapid.IntRange(0, 3).Draw(t, "goal"), rapid.IntRange(0, 3).Draw(t, "stood")
			r.Life = Rest{Node: target.Node, Incarnation: rapid.StringN(0, 3, -1).Draw(t, "incarnation")}
			r.Boot = rapid.StringN(0, 3, -1).Draw(t, "boot")
			r.Begun = now.Add(time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, "begun")))
			r.Step, r.Ref, r.Input, r.Output = digest("step"), digest("ref"), digest("input"), digest("output")
			r.Inputs = json.RawMessage(rapid.SampledFrom([]string{`{}`, `{"a":"b"}`}).Draw(t, "inputs"))
			r.Outputs = rapid.SampledFrom([]json.RawMessage{nil, []byte(`{}`), []byte(`{"out":"x"}`)}).Draw(t, "outputs")
			r.Due = rapid.SampledFrom([]time.Time{{}, now.Add(time.Hour)}).Draw(t, "due")
			r.Cause = Cause{Kind: Upstream, Of: Target{Task: "a", Node: target.Node}, Input: "x", Text: "y"}
			switch rapid.IntRange(0, 9).Draw(t, "odd") {
			case 0:
				r.Flight = &Flight{Attempt: 2, Agent: "n1", Deadline: now}
			case 1:
				r.Failure = &Failure{Attempt: 3, Error: "no", At: now}
			case 2:
				r.Rests = map[string]string{"n0": "x"}
			case 3:
				r.Forced, r.Drifted = true, "gone"
			case 4:
				r.Done = now.In(time.FixedZone("elsewhere", 3600))
			case 5:
				r.Goal = -1
			}
		}
	}
}

// TestSnapshotsHoldEverything: what a snapshot gives back is what was put in, whatever the rows have.
func TestSnapshotsHoldEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		rows(t, s)
		version, data, err := s.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Restore(version, data)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range s.Columns {
			for i, want := range c.Rows {
				if r := got.Columns[name].Row(i - 1); !same(r, want) {
					t.Fatalf("%s, row %d:\n%+v\n%+v", name, i, r, want)
				}
			}
		}
		if len(got.Columns) != len(s.Columns) || len(got.Nodes) != len(s.Nodes) {
			t.Fatalf("%d columns of %d nodes, want %d of %d", len(got.Columns), len(got.Nodes), len(s.Columns), len(s.Nodes))
		}
	})
}

// same compares rows; snapshots do not keep the location of a time.
func same(a, b *Row) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	if !x.Done.Equal(y.Done) {
		return false
	}
	x.Done, y.Done = time.Time{}, time.Time{}
	return reflect.DeepEqual(x, y)
}

// TestQuietRowsAreFlat: a row as it stands after a success is not written by way of reflection; a field that the flat form
// does not know makes a row odd.
func TestQuietRowsAreFlat(t *testing.T) {
	r := &Row{Phase: InPlace, Started: 3, Ended: 4, Begun: time.Now(), Outputs: json.RawMessage(`{}`)}
	if !quiet(r) {
		t.Error("a row at rest is odd")
	}
	fields := reflect.TypeFor[Row]()
	for i := range fields.NumField() {
		odd := *r
		f := reflect.ValueOf(&odd).Elem().Field(i)
		switch f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		case reflect.Map:
			f.Set(reflect.MakeMap(f.Type()))
		default:
			continue
		}
		if quiet(&odd) {
			t.Errorf("%s is lost in the flat form", fields.Field(i).Name)
		}
	}
}

// FuzzRestore: a damaged snapshot is refused, and takes no more memory than it has bytes for.
func FuzzRestore(f *testing.F) {
	s := New()
	s.Index("n1")
	r := s.row(Target{Task: "a", Node: "n1"})
	r.Phase, r.Outputs = InPlace, json.RawMessage(`{"x":1}`)
	s.row(Target{Task: "b"}).Failure = &Failure{Error: "no"}
	version, data, err := s.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Restore(version, data)
		if err == nil && s.Row(Target{Task: "nothing"}) != nil {
			t.Error("a row of nothing")
		}
	})
}
