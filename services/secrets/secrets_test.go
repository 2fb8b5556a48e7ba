package secrets_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"joist/engine/drive"
	"joist/engine/journal"
	"joist/engine/value"
	"joist/services/secrets"
)

var _ drive.Secrets = (*secrets.Keeper)(nil)

func open(t *testing.T, folder string, blobs secrets.Blobs) *secrets.Keeper {
	t.Helper()
	k, err := secrets.Open(t.Context(), secrets.Config{Folder: folder, Blobs: blobs, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t *testing.T, k *secrets.Keeper, cluster, plain string) value.Handle {
	t.Helper()
	h, err := k.Seal(t.Context(), cluster, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func refused(t *testing.T, k *secrets.Keeper, cluster string, h value.Handle, want string) {
	t.Helper()
	if plain, err := k.Open(t.Context(), cluster, h); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%q, %v; want an error with %q", plain, err, want)
	}
}

func TestSeal(t *testing.T) {
	folder, blobs := filepath.Join(t.TempDir(), "secrets"), &journal.Memory{}
	k := open(t, folder, blobs)
	one, two := seal(t, k, "demo", "hunter2"), seal(t, k, "demo", "hunter3")
	if one == two || seal(t, k, "demo", "hunter2") != one {
		t.Error("handles do not tell secrets apart")
	}
	other := seal(t, k, "other", "hunter2")
	if other == one {
		t.Error("two clusters' equal secrets have one handle")
	}
	if one.Digest() == value.Sum([]byte("hunter2")) || strings.Contains(one.String(), journal.Digest([]byte("hunter2"))) {
		t.Error("a handle is a plain digest")
	}
	k = open(t, folder, blobs) // as after a restart
	if plain, err := k.Open(t.Context(), "demo", one); err != nil || string(plain) != "hunter2" {
		t.Errorf("%q, %v", plain, err)
	}
	if seal(t, k, "demo", "hunter2") != one {
		t.Error("a restart changed the handle")
	}
	sealed, err := blobs.Get(t.Context(), one.Digest().String())
	if err != nil || bytes.Contains(sealed, []byte("hunter")) {
		t.Errorf("%q is kept, %v", sealed, err)
	}
	refused(t, k, "demo", other, "sealed with another key")
	refused(t, k, "third", one, "its key is gone")
	refused(t, k, "../demo", one, "internal error")
	refused(t, k, "demo", value.HandleOf(value.Sum([]byte("x"))), "cannot find a secret")

	plainBlob, err := blobs.Put(t.Context(), []byte("some other value"))
	if err != nil {
		t.Fatal(err)
	}
	var d value.Digest
	if err := d.UnmarshalText([]byte(plainBlob)); err != nil {
		t.Fatal(err)
	}
	refused(t, k, "demo", value.HandleOf(d), "no sealed secret")
	if _, err := k.Seal(t.Context(), "demo", make([]byte, secrets.MaxSecret+1)); err == nil {
		t.Error("a huge secret was kept")
	}

	if err := k.Forget("demo"); err != nil {
		t.Fatal(err)
	}
	refused(t, k, "demo", one, "its key is gone")
	if seal(t, k, "demo", "hunter2") == one {
		t.Error("a forgotten key came back")
	}
	refused(t, k, "demo", one, "sealed with another key")
	if err := k.Forget("never"); err != nil {
		t.Error(err)
	}
}

func TestDamage(t *testing.T) {
	folder, blobs := t.TempDir(), &journal.Memory{}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := secrets.Open(t.Context(), secrets.Config{Folder: folder, Blobs: blobs, Random: rand.Reader}); err == nil || !strings.Contains(err.Error(), "chmod 700 it") {
		t.Errorf("a folder that all can read: %v", err)
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	h := seal(t, open(t, folder, blobs), "demo", "hunter2")
	name := filepath.Join(folder, "demo.key")
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	if err := os.WriteFile(name, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, open(t, folder, blobs), "demo", h, "5 bytes instead of 32")
	if _, err := open(t, folder, blobs).Seal(t.Context(), "demo", nil); err == nil {
		t.Error("a damaged key was replaced")
	}
	k, err := secrets.Open(t.Context(), secrets.Config{Folder: folder, Blobs: blobs, Random: strings.NewReader("few")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Seal(t.Context(), "new", nil); err == nil {
		t.Error("a key was made of nothing")
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestFirstUseByMany(t *testing.T) {
	k := open(t, filepath.Join(t.TempDir(), "s"), &journal.Memory{})
	handles := make([]value.Handle, 8)
	var wg sync.WaitGroup
	for i := range handles {
		wg.Go(func() { handles[i], _ = k.Seal(t.Context(), "demo", []byte("x")) })
	}
	wg.Wait()
	for _, h := range handles {
		if h != handles[0] || h == (value.Handle{}) {
			t.Fatalf("handles %v", handles)
		}
	}
}

// remembered is a secrets.Keyed in memory.
type remembered map[string]bool

func (r remembered) All(context.Context) ([]string, error) { return slices.Sorted(maps.Keys(r)), nil }

func (r remembered) Add(_ context.Context, cluster string) error { r[cluster] = true; return nil }

func (r remembered) Drop(_ context.Context, cluster string) error { delete(r, cluster); return nil }

// TestLostKeys: a key that is lost is missed at the next start, whole folders included; one that was destroyed, or is of a time when
// nobody remembered, is not.
func TestLostKeys(t *testing.T) {
	folder, blobs, keyed := filepath.Join(t.TempDir(), "secrets"), &journal.Memory{}, remembered{}
	cfg := secrets.Config{Folder: folder, Blobs: blobs, Keyed: keyed, Random: rand.Reader}
	again := func(want string) *secrets.Keeper {
		t.Helper()
		k, err := secrets.Open(t.Context(), cfg)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Fatalf("%v, want %q", err, want)
		}
		return k
	}
	seal(t, open(t, folder, blobs), "old", "hunter1")
	k := again("")
	seal(t, k, "demo", "hunter2")
	seal(t, k, "gone", "hunter3")
	if err := k.Forget("gone"); err != nil {
		t.Fatal(err)
	}
	if want := (remembered{"demo": true, "old": true}); !maps.Equal(keyed, want) {
		t.Errorf("remembered is %v, want %v", keyed, want)
	}
	again("")
	key := filepath.Join(folder, "demo.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	again("missing there is demo.key,")
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	again("missing there is demo.key, old.key,")
	again("missing there is demo.key, old.key,") // a refusal mends nothing
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	again("")
}
