package sqlstore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"

	"joist/engine/journal/journaltest"
)

// childDir names the data folder in the environment of the process that crash tests start and kill.
const childDir = "SQLSTORE_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		code := m.Run()
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	db, err := Open(context.Background(), Config{Dir: dir, Holder: "the child"})
	if err == nil {
		err = journaltest.CrashChild(context.Background(), db.Journals(), os.Stdout)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func childCommand(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	return cmd
}
