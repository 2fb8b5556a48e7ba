// Package replay_test keeps journals that earlier versions of joist wrote, with the packs that their goals were compiled
// from: today's joist folds them to the same state and decides the same.
package replay_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/cmd/system"
	"joist/cmd/system/simulation"
	"joist/content"
	"joist/engine/history"
	"joist/engine/journal"
	"joist/engine/model"
	"joist/engine/replay"
	"joist/engine/value"
	"joist/workflows/lang"
)

var (
	record = flag.String("record", "", "record a cluster under this name, such as v1/etcd: a simulation of content/examples/etcd.hcl, or the one of scripts that has the last part of the name")
	update = flag.Bool("update", false, "write the golden files anew; only for a change that is meant")
)

// tape is a journal of the corpus: a JSON document, compressed.
type tape struct {
	Packs   map[string][]byte `json:"packs"` // archives by name
	Goals   map[string]string `json:"goals"` // cluster files by digest of the model
	Records []entry           `json:"records"`
}

type entry struct {
	Time    time.Time       `json:"time"`
	Kind    string          `json:"kind"`
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

// outcome is what a golden file says of a tape.
type outcome struct {
	Events    uint64   `json:"events"`
	State     string   `json:"state"` // digest of what the journal folds to
	Decisions int      `json:"decisions"`
	Diverged  []string `json:"diverged"` // decisions that differ; each has its reason in the commit that let it differ
}

// library holds the models of a tape. The packs are those of the archive, never those that ship today.
type library struct {
	models map[value.Digest]*model.Model
	blobs  map[value.Digest][]byte
}

func (l library) Model(g history.Goal) *model.Model { return l.models[g.Model] }
func (l library) Blob(d value.Digest) []byte        { return l.blobs[d] }

func (p tape) library(t *testing.T) library {
	t.Helper()
	l := library{models: map[value.Digest]*model.Model{}}
	for digest, file := range p.Goals {
		packs, ds, err := content.Unpack(p.Packs, system.Catalogue())
		if err != nil || ds.HasErrors() {
			t.Fatalf("a pack of an earlier version cannot be read: %v\n%s", err, ds.Text())
		}
		cluster, ds := lang.LoadCluster("etcd.hcl", []byte(file))
		if ds.HasErrors() {
			t.Fatalf("a cluster file of an earlier version cannot be read:\n%s", ds.Text())
		}
		m, ds := lang.Compile(lang.Source{Packs: packs, Cluster: cluster})
		if ds.HasErrors() {
			t.Fatalf("a model of an earlier version cannot be compiled:\n%s", ds.Text())
		}
		var d value.Digest
		if err := d.UnmarshalText([]byte(digest)); err != nil {
			t.Fatal(err)
		}
		l.models[d] = m
	}
	return l
}

func read(t *testing.T, name string) tape {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var p tape
	if err := json.NewDecoder(bufio.NewReader(z)).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCorpus folds and replays every journal of the corpus.
func TestCorpus(t *testing.T) {
	if *record != "" {
		recordTape(t, *record)
	}
	names, err := filepath.Glob("testdata/v*/*.json.gz")
	if err != nil || len(names) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(name, "testdata/"), ".json.gz"), func(t *testing.T) {
			p := read(t, name)
			r := replay.New(p.library(t), 0)
			for i, e := range p.Records {
				if err := r.Take(journal.Record{Seq: uint64(i + 1), Time: e.Time, Kind: e.Kind, Version: e.Version, Data: e.Data}); err != nil {
					t.Fatal(err)
				}
			}
			report := r.End()
			got := outcome{Events: report.Events, State: digest(t, r.State()), Decisions: report.Decisions, Diverged: []string{}}
			for _, d := range report.Divergences {
				got.Diverged = append(got.Diverged, d.String())
			}
			compare(t, strings.TrimSuffix(name, ".json.gz")+".golden", got)
		})
	}
}

func compare(t *testing.T, name string, got outcome) {
	t.Helper()
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update || name == filepath.Join("testdata", *record+".golden") {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("a journal of an earlier version comes out otherwise than %s says:\n%.4000s\nwant\n%.2000s", name, text, want)
	}
}

// digest is of what a state says in words that do not change when it gains fields: goals, nodes and instances.
func digest(t *testing.T, s *history.State) string {
	t.Helper()
	type row struct {
		Phase             history.Phase
		Started, Ended    uint64
		Life              history.Rest
		Boot              string
		Step, Input, Out  value.Digest
		Inputs, Outputs   json.RawMessage
		Flying, Failed    bool
		Forced, Expired   bool
		Drifted, Incident string
	}
	type goal struct {
		Model, Source value.Digest
		Roles         map[string][]string
		Destroy       bool
		Seq           uint64
	}
	type budget struct {
		Places, Proven map[string]bool
		Failures       int
	}
	type node struct{ Name, Incarnation, Boot, Address, Level, Ended string }
	flat := struct {
		Seq             uint64
		Outcome, Detail string
		Goals           []goal
		Nodes           []node
		Rows            map[string][]*row
		Budgets         map[string]budget
	}{Seq: s.Seq, Outcome: s.Outcome, Detail: s.Detail, Rows: map[string][]*row{}, Budgets: map[string]budget{}}
	for _, g := range s.Goals {
		flat.Goals = append(flat.Goals, goal{g.Model, g.Source, g.Roles, g.Destroy, g.Seq})
	}
	for name, b := range s.Budgets {
		flat.Budgets[name] = budget{b.Places, b.Proven, b.Failures}
	}
	for _, n := range s.Nodes {
		flat.Nodes = append(flat.Nodes, node{n.Name, n.Incarnation, n.Boot, n.Address, n.Level, n.EndedWhy})
	}
	for task, c := range s.Columns {
		for _, r := range c.Rows {
			if r == nil {
				flat.Rows[task] = append(flat.Rows[task], nil)
				continue
			}
			one := &row{Phase: r.Phase, Started: r.Started, Ended: r.Ended, Life: r.Life, Boot: r.Boot, Step: r.Step, Input: r.Input, Out: r.Output,
				Inputs: r.Inputs, Outputs: r.Outputs, Flying: r.Flight != nil, Failed: r.Failure != nil, Forced: r.Forced, Expired: r.Expired, Drifted: r.Drifted}
			if r.Failure != nil {
				one.Incident = r.Failure.Error
			}
			flat.Rows[task] = append(flat.Rows[task], one)
		}
	}
	data, err := json.Marshal(flat)
	if err != nil {
		t.Fatal(err)
	}
	return value.Sum(data).String()
}

// recordTape adds a journal of this version to the corpus: of a script, or else a cluster of etcd that is founded while things go wrong.
// To add one: write a script, and go test ./tests/replay -run TestCorpus -record v1/NAME, which writes both files of the tape. What has
// been recorded is never recorded again: later versions have to replay it.
func recordTape(t *testing.T, name string) {
	t.Helper()
	var (
		p       tape
		records []journal.Record
	)
	if script := scripts()[filepath.Base(name)]; script != nil {
		p, records = act(t, script)
	} else {
		p, records = founding(t)
	}
	for _, r := range records {
		p.Records = append(p.Records, entry{r.Time, r.Kind, r.Version, r.Data})
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(p); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json.gz")
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatalf("%s is there already", path)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// founding is a cluster of etcd that is founded while things go wrong.
func founding(t *testing.T) (tape, []journal.Record) {
	t.Helper()
	data, err := os.ReadFile("../../content/examples/etcd.hcl")
	if err != nil {
		t.Fatal(err)
	}
	file, ds := lang.LoadCluster("etcd.hcl", data)
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	packs, _, err := content.Gather(content.Wish{File: file, Folder: "../../content/examples", Catalogue: system.Catalogue()})
	if err != nil {
		t.Fatal(err)
	}
	s := simulation.Config{Seed: 5, Nodes: 5, Faults: []string{"crash", "partition", "lie", "fail", "duplicate"}, Again: 3}
	s.Source.FileName, s.Source.File, s.Source.Packs = "etcd.hcl", data, packs
	_, records, err := simulation.Run(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	p := tape{Packs: packs, Goals: map[string]string{}}
	for _, r := range records {
		if e, err := history.Decode(r); err == nil {
			if g, ok := e.(history.Goal); ok {
				p.Goals[g.Model.String()] = string(data)
			}
		}
	}
	return p, records
}
