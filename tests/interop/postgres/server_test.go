// Package postgres_test runs the stores on a real PostgreSQL server that the tests start for themselves: own data folder,
// Unix socket only, nothing on the network.
package postgres_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"joist/engine/journal/journaltest"
	"joist/engine/journal/sqlstore"
)

// childDSN has the connection for the process that crash tests start and kill.
const childDSN = "POSTGRES_TEST_CHILD_DSN"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(childDSN); dsn != "" {
		db, err := sqlstore.Open(context.Background(), sqlstore.Config{PostgreSQL: dsn, Holder: "the child"})
		if err == nil {
			err = journaltest.CrashChild(context.Background(), db.Journals(), os.Stdout)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// server is one running PostgreSQL server.
type server struct {
	dir       string // data folder and, in it, the socket
	cmd       *exec.Cmd
	databases atomic.Int64
}

// startServer makes a data folder and starts a server on it, both removed with the test.
func startServer(t testing.TB) *server {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "joist-pg-") // short: a socket's path has at most 107 bytes
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o700))
	if id := account(t); id != nil {
		must(t, os.Chown(dir, int(id.Uid), int(id.Gid)))
	}
	s := &server{dir: dir}
	initdb := command(t, "initdb", "-D", filepath.Join(dir, "data"), "-U", "joist", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("cannot make a PostgreSQL data folder: %v\n%s", err, out)
	}
	s.start(t)
	t.Cleanup(func() { s.stop(t, syscall.SIGINT) })
	return s
}

// start runs the server and waits until it says that it is ready.
func (s *server) start(t testing.TB) {
	t.Helper()
	s.cmd = command(t, "postgres", "-D", filepath.Join(s.dir, "data"), "-k", s.dir, "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "deadlock_timeout=100ms")
	stderr, err := s.cmd.StderrPipe()
	must(t, err)
	must(t, s.cmd.Start())
	ready, ended := make(chan struct{}, 1), make(chan string, 1)
	go func() { // ends with the server, which holds the pipe's other end
		var log strings.Builder
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if strings.Contains(lines.Text(), "ready to accept connections") {
				ready <- struct{}{}
			}
		}
		ended <- log.String()
	}()
	select {
	case <-ready:
	case log := <-ended:
		t.Fatalf("PostgreSQL ended:\n%s", log)
	case <-time.After(5 * time.Minute): // after a crash it syncs every file first, which a busy disk draws out
		t.Fatal("PostgreSQL is not ready after five minutes")
	}
}

// stop ends the server: SIGINT in an orderly way, SIGQUIT at once, leaving recovery to the next start.
func (s *server) stop(t testing.TB, signal syscall.Signal) {
	t.Helper()
	must(t, s.cmd.Process.Signal(signal))
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
}

// database makes an empty database and returns its connection string.
func (s *server) database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	admin, err := sql.Open("pgx", s.dsn("postgres"))
	must(t, err)
	defer func() { must(t, admin.Close()) }()
	_, err = admin.ExecContext(t.Context(), "CREATE DATABASE "+name)
	must(t, err)
	return s.dsn(name)
}

func (s *server) dsn(database string) string {
	return fmt.Sprintf("host=%s user=joist dbname=%s", s.dir, database)
}

// command prepares a program of PostgreSQL's, which refuses to run as root.
func command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // Debian keeps them off the path
		if len(found) == 0 {
			t.Fatalf("%s is missing: install Debian's package postgresql", name)
		}
		path = found[len(found)-1]
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account(t), Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// account is whom the server runs as, nil for whoever runs the tests.
func account(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		must(t, err)
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		must(t, err)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatal("PostgreSQL does not run as root, and there is no account postgres or nobody")
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
