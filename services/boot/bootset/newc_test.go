package bootset

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
	"pgregory.net/rapid"
)

// archiveOf writes entries with their bodies.
func archiveOf(t interface {
	Helper()
	Fatal(args ...any)
}, entries []entry, bodies []string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := &newcWriter{w: &b}
	for i, e := range entries {
		if err := w.add(e, strings.NewReader(bodies[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Another implementation reads back what ours wrote.
func TestNewcAgreesWithOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var entries []entry
		var bodies []string
		for i := range rapid.IntRange(0, 6).Draw(rt, "count") {
			body := rapid.StringN(0, 20, -1).Draw(rt, "body")
			entries = append(entries, entry{name: strings.Repeat("d/", i) + rapid.StringMatching(`[a-z]{1,9}`).Draw(rt, "name"), mode: modeFile | 0o644, size: int64(len(body))})
			bodies = append(bodies, body)
		}
		archive := archiveOf(rt, entries, bodies)
		records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
		if err != nil {
			rt.Fatal(err)
		}
		// The oracle's reader ends at the trailer.
		if len(records) != len(entries) {
			rt.Fatalf("%d records, want %d", len(records), len(entries))
		}
		for i, r := range records {
			body, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
			if err != nil || r.Name != entries[i].name || string(body) != bodies[i] || r.Mode != uint64(entries[i].mode) {
				rt.Fatalf("record %d is %v with %q (%v), want %+v with %q", i, r, body, err, entries[i], bodies[i])
			}
		}
	})
}

func TestNewcRoundTrip(t *testing.T) {
	entries := []entry{
		{name: "dev", mode: modeDir | 0o755}, {name: "dev/console", mode: modeChar | 0o600, major: 5, minor: 1},
		{name: "init", mode: modeLink | 0o777, size: 5}, {name: "file", mode: modeFile | 0o644, size: 3},
	}
	bodies := []string{"", "", "agent", "abc"}
	i := 0
	err := scanNewc(bytes.NewReader(archiveOf(t, entries, bodies)), func(e entry, body io.Reader) error {
		got, err := io.ReadAll(body)
		if err != nil || e != entries[i] || string(got) != bodies[i] {
			t.Errorf("entry %d is %+v with %q (%v), want %+v with %q", i, e, got, err, entries[i], bodies[i])
		}
		i++
		return nil
	})
	if err != nil || i != len(entries) {
		t.Fatalf("%d entries, %v", i, err)
	}
}

func TestNewcRefusesAShortBody(t *testing.T) {
	err := (&newcWriter{w: io.Discard}).add(entry{name: "x", mode: modeFile, size: 5}, strings.NewReader("abc"))
	if err == nil || err.Error() != "cannot archive x: 3 bytes instead of 5" {
		t.Errorf("error %v", err)
	}
}

func FuzzNewc(f *testing.F) {
	good := archiveOf(f, []entry{{name: "lib/modules/6.1", mode: modeDir}, {name: "f", mode: modeFile, size: 3}}, []string{"", "abc"})
	f.Add(good)
	f.Add(good[:50])
	f.Add(bytes.Replace(good, []byte("00000003"), []byte("FFFFFFFF"), 1))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = scanNewc(bytes.NewReader(b), func(_ entry, body io.Reader) error { _, err := io.Copy(io.Discard, body); return err })
	})
}
