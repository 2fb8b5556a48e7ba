package artifacts

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hello = Digest("sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824") // of "hello"

func TestStore(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(source, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // adding twice is adding once
		if a, err := s.Add(ctx, source); err != nil || a != (Artifact{Digest: hello, Size: 5}) {
			t.Fatalf("got %v, %v", a, err)
		}
	}
	if err := os.WriteFile(source, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, size, err := s.Open(hello)
	if err != nil || size != 5 {
		t.Fatalf("got %d, %v", size, err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "hello" {
		t.Fatalf("the original's change came through: %q, %v", b, err)
	}
	if err := s.Verify(ctx, hello); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Digest != hello || list[0].Size != 5 {
		t.Fatalf("got %v, %v", list, err)
	}
	if err := errors.Join(s.Remove(hello), s.Remove(hello)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Open(hello); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}

func TestDamage(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var mismatch *MismatchError
	if _, err := s.Write(ctx, strings.NewReader("hullo"), hello); !errors.As(err, &mismatch) || mismatch.Want != hello {
		t.Fatalf("got %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Write(cancelled, strings.NewReader("hello"), hello); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Fatalf("left behind: %v", entries)
	}
	if _, err := s.Write(ctx, strings.NewReader("hello"), hello); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, string(hello))
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("hullo"), 0o444)); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(ctx, hello); !errors.As(err, &mismatch) {
		t.Fatalf("got %v", err)
	}
	// A writer that was killed leaves a file that is never listed and is swept.
	if err := os.WriteFile(filepath.Join(dir, incoming+"1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v", list, err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("after sweeping: %v", entries)
	}
}

func TestOpenNeedsDigest(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []Digest{"", "../../etc/passwd", "sha256-", "sha256:" + Digest(hello.Hex()), hello + "/..", "sha256-../../../../etc/passwd"} {
		if _, _, err := s.Open(d); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v", d, err)
		}
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(string(hello))
	f.Add("sha256:" + hello.Hex())
	f.Add("sha256-../..")
	f.Add("SHA256-" + strings.ToUpper(hello.Hex()))
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			return
		}
		if again, err := ParseDigest(string(d)); err != nil || again != d || !filepath.IsLocal(string(d)) || len(d) != len(hello) {
			t.Fatalf("%q gives %q", s, d)
		}
	})
}
