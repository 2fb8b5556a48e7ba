package cli_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"joist/cmd/joist/cli"
	"joist/engine/drive"
	"joist/engine/journal"
)

// TestSecretsAtRest: what a node yielded as a secret is in nothing that the engine keeps: records, snapshots, large values,
// nor any file as it lies on the disk.
func TestSecretsAtRest(t *testing.T) {
	e := newEngine(t)
	e.want(cli.OK, []string{"cluster demo converged"}, "apply", e.file(demo))
	handles := 0
	search := func(what string, data []byte) {
		handles += bytes.Count(data, []byte("secret:"))
		if bytes.Contains(data, []byte("hush")) {
			t.Errorf("%s shows the secret", what)
		}
	}
	infos, err := e.db.Journals().List(t.Context())
	must(t, err)
	for _, info := range infos {
		must(t, e.db.Journals().Read(t.Context(), info.Journal, 0, func(r journal.Record) error {
			search("a record of "+info.Journal, r.Data)
			return nil
		}))
		s, err := e.db.Journals().Load(t.Context(), info.Journal)
		must(t, err)
		search("the snapshot of "+info.Journal, s.Data)
	}
	if handles == 0 {
		t.Errorf("no handle of a secret in %s: nothing was searched", drive.JournalOf("demo"))
	}
	var blobs [][]byte
	must(t, e.db.Gorm().Raw(`SELECT data FROM blobs`).Scan(&blobs).Error)
	if len(blobs) == 0 {
		t.Error("no large values were searched")
	}
	for _, data := range blobs {
		search("a large value", data)
	}
	must(t, filepath.WalkDir(e.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		search(path, data)
		return err
	}))
}
