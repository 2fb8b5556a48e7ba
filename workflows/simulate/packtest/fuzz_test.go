package packtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"joist/engine/run"
	"joist/workflows/lang"
	"joist/workflows/simulate"
	"joist/workflows/simulate/packtest"
)

const manifest = `pack "p" {
  version = "0.1.0"
  summary = "A pack."
}
step "a" {
  scope = "node"
  doc   = "A step."
  input "x" { type = string }
  output "y" { type = string }
  apply { script = "files/a.sh" }
  remove { script = "files/a.sh" }
}
workflow "w" {
  role "r" { min = 1 }
  input "v" { type = string }
  task "t" {
    step = a
    each = role.r
    with = { x = input.v }
  }
}
`

func try(t testing.TB, src string) ([]packtest.Result, lang.Diagnostics, error) {
	t.Helper()
	files := map[string][]byte{"pack.hcl": []byte(manifest), "files/a.sh": []byte("#!/bin/sh\n"), "tests/t.hcl": []byte(src)}
	pack, ds := lang.Load(files, lang.Catalogue{})
	if ds.HasErrors() {
		t.Fatal(ds.Text())
	}
	ctx, cancel := context.WithCancel(t.Context())
	return packtest.Run(ctx, packtest.Config{
		Pack: pack, Files: files, Packs: map[string]*lang.Pack{"p": pack}, Now: time.Now,
		Outside: func(uint64, simulate.Chances, func(simulate.Ask) (json.RawMessage, error)) packtest.Outside {
			cancel() // the file was fine: what a test does is tried with a world
			return packtest.Outside{World: still{}, Machines: still{}}
		},
	})
}

// TestDiagnostics: what is wrong with a file of tests is said with its place.
func TestDiagnostics(t *testing.T) {
	for src, want := range map[string]string{
		`tesst "x" {}`:                           `tests/t.hcl:1:1: no block of a file of tests is called "tesst": Did you mean "test"?`,
		`fake "b" {}`:                            `there is no step "b"`,
		`fake "a" { outputs = { z = 1 } }`:       `step p.a has no output "z"`,
		`fake "a" { outputs = { y = input.q } }`: `step p.a has no input "q"`,
		`fake "a" { outputs = { y = all.t } }`:   `a fake cannot refer to this`,
		`test "x" {}`:                            `tests/t.hcl:1:6: the test says no workflow`,
		"test \"x\" {\n workflow = p.w\n nodes = { q = [\"n\"] }\n with = { v = \"1\" }\n}":   `tests/t.hcl:3:12: workflow p.w has no role "q"`,
		"test \"x\" {\n workflow = p.w\n nodes = { r = [\"n\"] }\n colour = { v = \"1\" }\n}": `tests/t.hcl:4:2: no attribute of cluster "test" is called "colour"`,
		"recorded = \"no.jsonl\"": `there is no file "no.jsonl"`,
		"test \"x\" {\n workflow = p.w\n nodes = { r = [\"n\"] }\n faults = [\"rain\"]\n}": `there is no fault "rain"`,
	} {
		results, ds, err := try(t, src)
		if err != nil && !errors.Is(err, context.Canceled) || len(results) > 1 || !ds.HasErrors() {
			t.Errorf("%s\n%v %v %v", src, results, ds, err)
			continue
		}
		if text := all(ds); !strings.Contains(text, want) {
			t.Errorf("%s\nsays %s\nwant %s", src, text, want)
		}
	}
}

func all(ds lang.Diagnostics) string {
	var b strings.Builder
	for _, d := range ds {
		b.WriteString(d.String() + "\n")
	}
	return b.String()
}

// FuzzParse: whatever stands in a file of tests, reading it ends, with diagnostics that have places.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"../../../content/etcd/tests/members.hcl", "../../../content/base/tests/steps.hcl"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("test \"x\" {\n workflow = p.w\n nodes = { r = [\"n\"] }\n with = { v = \"1\" }\n change \"c\" {\n crash = [\"n\"]\n runs = [\"t[n]\"]\n }\n}")
	f.Add(`fake "a" { outputs = { y = "${input.x}${attempt}" } }`)
	f.Fuzz(func(t *testing.T, src string) {
		if len(src) > 10_000 {
			return
		}
		_, ds, err := try(t, src)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		_ = ds.Text()
		for _, d := range ds {
			if d.Summary == "" {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// still is a world in which nothing happens.
type still struct{ simulate.World }

func (still) Perform(run.Effect)          {}
func (still) Now() time.Time              { return time.Unix(1, 0) }
func (still) Next() (time.Time, bool)     { return time.Time{}, false }
func (still) Hear() []simulate.Notice     { return nil }
func (still) Add(string, json.RawMessage) {}
func (still) Crash(string, bool)          {}
func (still) Cut(string)                  {}
func (still) Reconnect(string)            {}
func (still) Restart()                    {}
