// Package diskfull_test fills a real file system under the stores. The tests need root, for a mount namespace with a
// small file system that nobody else sees.
package diskfull_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"joist/engine/journal"
	"joist/engine/journal/journaltest"
	"joist/engine/journal/sqlstore"
)

// childDir names, in the environment of the process within the mount namespace, where the small file system belongs.
const childDir = "DISKFULL_TEST_DIR"

// inside runs the calling test again in a mount namespace with a small file system, and returns its folder there. It
// returns "" to the test outside, which is then done.
func inside(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(childDir); dir != "" {
		must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
		must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"))
		return dir
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root, to mount a small file system in a mount namespace of its own")
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childDir+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("inside the namespace:\n%s", out)
	must(t, err)
	return ""
}

// fill takes all space but so many bytes, and returns the file that holds it.
func fill(t *testing.T, dir string, but int64) string {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	must(t, err)
	var block [4096]byte
	size := int64(0)
	for err == nil {
		_, err = f.Write(block[:])
		size += int64(len(block))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Truncate(max(0, size-int64(len(block))-but)))
	must(t, f.Close())
	return name
}

// An append that finds the disk full is refused whole and says what to do; once there is space the program starts again
// and goes on.
func TestAppend(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	data := filepath.Join(dir, "data")
	db, err := sqlstore.Open(t.Context(), sqlstore.Config{Dir: data})
	must(t, err)
	w, err := journal.Open(t.Context(), journal.Config{Store: db.Journals(), Journal: "demo"})
	must(t, err)
	ballast := fill(t, dir, 256<<10)
	for err == nil {
		err = w.Append(t.Context(), journaltest.Records(w.Last(), 50))
	}
	var full *journal.DiskFullError
	if !errors.As(err, &full) || err.Error() != "cannot write "+filepath.Join(data, sqlstore.FileName)+": the disk is full; free space and start again" {
		t.Fatalf("error %v: %v", err, errors.Unwrap(err))
	}
	acknowledged := w.Last()
	if got := journaltest.ReadAll(t, db.Journals(), "demo", 0); uint64(len(got)) != acknowledged || acknowledged == 0 {
		t.Fatalf("%d records, and %d were acknowledged", len(got), acknowledged)
	}
	if _, err := db.Blobs().Put(t.Context(), make([]byte, 64<<10)); !errors.As(err, &full) {
		t.Errorf("error %v of another write", err)
	}
	must(t, os.Remove(ballast))
	if _, err := db.Blobs().Put(t.Context(), make([]byte, 64<<10)); err != nil {
		t.Errorf("error %v after space was freed", err)
	}
	must(t, db.Close())

	db, err = sqlstore.Open(t.Context(), sqlstore.Config{Dir: data})
	must(t, err)
	w, err = journal.Open(t.Context(), journal.Config{Store: db.Journals(), Journal: "demo"})
	must(t, err)
	if w.Last() != acknowledged {
		t.Errorf("%d records, and %d were acknowledged", w.Last(), acknowledged)
	}
	must(t, w.Append(t.Context(), journaltest.Records(w.Last(), 50)))
	must(t, db.Close())
}

// To open finds the disk full at different moments: at the first folder, the lock, the database or its log. Each says the
// same, and nothing is in the way of a later start.
func TestOpen(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	for but := int64(0); but < 600<<10; but += 4096 {
		ballast := fill(t, dir, but)
		data := filepath.Join(dir, "data")
		db, err := sqlstore.Open(t.Context(), sqlstore.Config{Dir: data})
		var full *journal.DiskFullError
		switch {
		case err == nil:
			must(t, db.Close())
			t.Logf("%d bytes are enough", but)
			return
		case !errors.As(err, &full) || !strings.HasSuffix(err.Error(), ": the disk is full; free space and start again"):
			t.Errorf("with %d bytes: %v", but, err)
		}
		must(t, os.Remove(ballast))
		db, err = sqlstore.Open(t.Context(), sqlstore.Config{Dir: data})
		if err != nil {
			t.Fatalf("after space was freed: %v", err)
		}
		must(t, db.Close())
		must(t, os.RemoveAll(data))
	}
	t.Error("the database needs more space than was expected")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
