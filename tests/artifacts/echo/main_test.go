package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func said(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out)
	return out.String(), err
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"serve", "127.0.0.1:0"}, write)
		_ = write.Close()
	}()
	line := make([]byte, 1000)
	n, err := read.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(line[:n]))
	host, addr := fields[0], fields[len(fields)-1]
	logs := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(read) // a pipe of our own ends without errors
		logs <- string(all)
	}()
	for path, want := range map[string]string{"/": host, "/healthz": "ok"} {
		if got, err := said(t, "get", "http://"+addr+path); err != nil || got != want+"\n" {
			t.Errorf("%s answers %q, %v, want %q", path, got, err, want)
		}
	}
	if got, err := said(t, "get", "http://"+addr+"/client"); err != nil || !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("/client answers %q, %v", got, err)
	}
	if _, err := said(t, "get", "http://"+addr+"/gone"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a page that does not exist: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve ends with %v", err)
	}
	if got := <-logs; !strings.Contains(got, `GET "/healthz" for 127.0.0.1:`) {
		t.Errorf("the log is %q", got)
	}
}

func TestGetTriesAgain(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "here\n")
	}))
	defer server.Close()
	if _, err := said(t, "get", server.URL); err == nil || !strings.Contains(err.Error(), "not yet") || asked.Load() != 1 {
		t.Errorf("without a time to wait: %v after %d", err, asked.Load())
	}
	if got, err := said(t, "get", server.URL, "1m"); err != nil || got != "here\n" {
		t.Errorf("with one: %q, %v", got, err)
	}
}

func TestWords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"say a b", "a b\n"},
		{"cat " + file, "secret"},
		{"lookup 127.0.0.1", "127.0.0.1\n"},
	} {
		if got, err := said(t, strings.Fields(c.args)...); err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.args, got, err)
		}
	}
	for _, args := range []string{"cat", "get", "dance", "get http://127.0.0.1:1 soon", "cat " + file + ".gone", "get http://127.0.0.1:1"} {
		if got, err := said(t, strings.Fields(args)...); err == nil {
			t.Errorf("%s succeeds: %q", args, got)
		}
	}
}
