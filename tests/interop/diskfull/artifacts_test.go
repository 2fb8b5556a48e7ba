package diskfull_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	nodes "joist/engine/agent/artifacts"
	"joist/engine/agent/wire"
	"joist/services/boot/artifacts"
)

func random(t *testing.T, n int) ([]byte, string) {
	t.Helper()
	data := make([]byte, n)
	_, err := rand.Read(data)
	must(t, err)
	sum := sha256.Sum256(data)
	return data, hex.EncodeToString(sum[:])
}

// An upload that finds the engine's disk full leaves nothing, and works once there is room.
func TestUpload(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	s, err := artifacts.Open(filepath.Join(dir, "artifacts"))
	must(t, err)
	data, digest := random(t, 1<<20)
	ballast := fill(t, dir, 300<<10)
	if _, err := s.Write(t.Context(), bytes.NewReader(data), artifacts.Digest("sha256-"+digest)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "artifacts")); err != nil || len(left) != 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
	must(t, os.Remove(ballast))
	if _, err := s.Write(t.Context(), bytes.NewReader(data), artifacts.Digest("sha256-"+digest)); err != nil {
		t.Fatal(err)
	}
}

// A node without room says so before it fetches anything. One whose disk fills up meanwhile says so too, keeps what it
// has, and goes on from there.
func TestNode(t *testing.T) {
	dir := inside(t)
	if dir == "" {
		return
	}
	data, digest := random(t, 1<<20)
	var ranges []string
	during := func() {}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		during()
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	defer server.Close()
	s, err := nodes.Open(nodes.Config{Dir: filepath.Join(dir, "node"), Marks: t.TempDir(), Client: server.Client(), Attempts: 1})
	must(t, err)
	a := wire.Artifact{Name: "tool", Digest: "sha256:" + digest, Size: int64(len(data)), URLs: []string{server.URL}}
	want := func() (map[string]string, error) {
		return s.Provide(t.Context(), wire.Request{Instance: "c/i", Artifacts: []wire.Artifact{a}}, func(string) {})
	}
	ballast := fill(t, dir, 700<<10)
	if _, err := want(); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("artifact tool: it does not fit: 1 MiB are to come and %s has 0 MiB left", filepath.Join(dir, "node"))) || len(ranges) != 0 {
		t.Fatalf("error %v after %d requests", err, len(ranges))
	}
	must(t, os.Remove(ballast))
	during = func() { ballast = fill(t, dir, 700<<10) }
	if _, err := want(); !errors.Is(err, syscall.ENOSPC) || !strings.HasSuffix(err.Error(), filepath.Join(dir, "node")+" has no room left") {
		t.Fatalf("error %v", err)
	}
	must(t, os.Remove(ballast))
	during = func() {}
	paths, err := want()
	must(t, err)
	if got, err := os.ReadFile(paths["tool"]); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if last := ranges[len(ranges)-1]; len(ranges) != 2 || !strings.HasPrefix(last, "bytes=") || last == "bytes=0-" {
		t.Errorf("asked for %q", ranges)
	}
}
