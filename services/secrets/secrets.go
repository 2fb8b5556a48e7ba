// Package secrets keeps what steps yield as secret(T), encrypted at rest.
//
// Each cluster has a key of its own, 32 random octets in a file (mode 0600) of the engine's data folder and nowhere else.
// From it come two, by HKDF-SHA-256 (RFC 5869): one for AES-256-GCM, one for the nonce, which is the first 12 octets of
// HMAC-SHA-256 over the plaintext. So one plaintext of a cluster has one ciphertext, a synthetic nonce as in RFC 8452
// §6, and a nonce repeats for another plaintext only where 96 bits of the HMAC do. The ciphertext lies among the
// engine's large values under its SHA-256, which is the secret's handle: a digest that nobody without the key can
// compute from a guess.
//
// Which clusters have a key is remembered elsewhere, so that a lost one is noticed at the next start.
//
// Forget destroys a cluster's key and with it every secret of the cluster, wherever copies of the ciphertext lie.
package secrets

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"joist/engine/value"
)

// Limits of one secret and of a key, in bytes.
const (
	MaxSecret = 1 << 20
	keySize   = 32
)

// format is the first octet of what is kept: which construction it is.
const format = 1

// Blobs keeps ciphertexts by their SHA-256, as journal.Blobs does.
type Blobs interface {
	Put(ctx context.Context, data []byte) (digest string, err error)
	Get(ctx context.Context, digest string) ([]byte, error)
}

// Keyed remembers which clusters have a key, elsewhere than where the keys are.
type Keyed interface {
	All(ctx context.Context) (clusters []string, err error)
	Add(ctx context.Context, cluster string) error  // durably; again is no error
	Drop(ctx context.Context, cluster string) error // likewise
}

// Config is what a keeper needs; all of it but Keyed is required.
type Config struct {
	Folder string // of the keys; made if it is missing
	Blobs  Blobs
	Keyed  Keyed     // nil: a lost key is noticed when something is sealed or opened with it
	Random io.Reader // of new keys
}

// Keeper implements drive.Secrets. It is safe for concurrent use.
type Keeper struct {
	cfg Config

	mu   sync.Mutex
	keys map[string]*key // by cluster
}

// key is a cluster's two keys.
type key struct {
	aead  cipher.AEAD
	nonce []byte // HMAC key of the synthetic nonce
}

// Open takes up the folder of keys. One that others can look into is refused, and one from which a key was lost: another would be
// drawn for its cluster, and what was sealed with the old one would be found out to be lost one by one.
func Open(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Folder == "" || cfg.Blobs == nil || cfg.Random == nil {
		return nil, errors.New("internal error: secrets need a folder, a store and randomness")
	}
	if err := os.MkdirAll(cfg.Folder, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of secret keys: %w", err)
	}
	info, err := os.Stat(cfg.Folder)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the folder of secret keys: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("cannot keep secrets in %s: others can look into it (mode %04o); chmod 700 it", cfg.Folder, info.Mode().Perm())
	}
	k := &Keeper{cfg: cfg, keys: map[string]*key{}}
	return k, k.whole(ctx)
}

// whole compares the folder with what is remembered of it. A key that is not remembered is of before that was done, or of a crash:
// it is from now on.
func (k *Keeper) whole(ctx context.Context) error {
	if k.cfg.Keyed == nil {
		return nil
	}
	clusters, err := k.cfg.Keyed.All(ctx)
	if err != nil {
		return fmt.Errorf("cannot tell which clusters have keys: %w", err)
	}
	files, err := os.ReadDir(k.cfg.Folder)
	if err != nil {
		return fmt.Errorf("cannot look at the folder of secret keys: %w", err)
	}
	there := map[string]bool{}
	for _, file := range files {
		there[file.Name()] = true
	}
	var lost []string
	for _, cluster := range clusters {
		if !there[cluster+keyEnding] {
			lost = append(lost, cluster+keyEnding)
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("cannot keep secrets in %s: missing there is %s, without which nothing that was sealed with it can be opened; bring the whole data folder back from the backup, or begin anew with another one",
			k.cfg.Folder, strings.Join(lost, ", "))
	}
	for _, file := range files {
		cluster, ok := strings.CutSuffix(file.Name(), keyEnding)
		if !ok || slices.Contains(clusters, cluster) {
			continue
		}
		if err := k.cfg.Keyed.Add(ctx, cluster); err != nil {
			return fmt.Errorf("cannot note that cluster %s has a key: %w", cluster, err)
		}
	}
	return nil
}

// Seal keeps a secret of a cluster, encrypted and durably, and gives its handle: the same for the same secret.
func (k *Keeper) Seal(ctx context.Context, cluster string, plain []byte) (value.Handle, error) {
	if len(plain) > MaxSecret {
		return value.Handle{}, fmt.Errorf("cannot keep a secret of %d bytes: the most is %d", len(plain), MaxSecret)
	}
	key, err := k.key(ctx, cluster, true)
	if err != nil {
		return value.Handle{}, err
	}
	mac := hmac.New(sha256.New, key.nonce)
	mac.Write(plain)
	nonce := mac.Sum(nil)[:key.aead.NonceSize()]
	sealed := append([]byte{format}, nonce...)
	sealed = key.aead.Seal(sealed, nonce, plain, binding(cluster))
	digest, err := k.cfg.Blobs.Put(ctx, sealed)
	if err != nil {
		return value.Handle{}, fmt.Errorf("cannot keep a secret: %w", err)
	}
	var d value.Digest
	if err := d.UnmarshalText([]byte(digest)); err != nil {
		return value.Handle{}, fmt.Errorf("internal error: the store's digest of a secret: %w", err)
	}
	return value.HandleOf(d), nil
}

// Open gives a secret of a cluster back. Another cluster's handle opens nothing.
func (k *Keeper) Open(ctx context.Context, cluster string, h value.Handle) ([]byte, error) {
	key, err := k.key(ctx, cluster, false)
	if err != nil {
		return nil, err
	}
	sealed, err := k.cfg.Blobs.Get(ctx, h.Digest().String())
	if err != nil {
		return nil, fmt.Errorf("cannot find a secret of cluster %s: %w", cluster, err)
	}
	head := 1 + key.aead.NonceSize()
	if len(sealed) < head || sealed[0] != format {
		return nil, fmt.Errorf("cannot open a secret of cluster %s: what is kept is no sealed secret of this form", cluster)
	}
	plain, err := key.aead.Open(nil, sealed[1:head], sealed[head:], binding(cluster))
	if err != nil {
		return nil, fmt.Errorf("cannot open a secret of cluster %s: it was sealed with another key, or is damaged", cluster)
	}
	return plain, nil
}

// Forget destroys a cluster's key: none of its secrets can be opened any more.
func (k *Keeper) Forget(cluster string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	name, err := k.file(cluster)
	if err != nil {
		return err
	}
	delete(k.keys, cluster)
	if k.cfg.Keyed != nil { // before the key is gone, or it would be missed
		if err := k.cfg.Keyed.Drop(context.Background(), cluster); err != nil {
			return fmt.Errorf("cannot destroy the secrets of cluster %s: %w", cluster, err)
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot destroy the secrets of cluster %s: %w", cluster, err)
	}
	return syncFolder(k.cfg.Folder)
}

// binding ties a ciphertext to its cluster.
func binding(cluster string) []byte { return []byte("joist secret 1 of " + cluster) }

var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

func (k *Keeper) file(cluster string) (string, error) {
	if !clusterName.MatchString(cluster) {
		return "", fmt.Errorf("internal error: secrets of a cluster called %q", cluster)
	}
	return filepath.Join(k.cfg.Folder, cluster+keyEnding), nil
}

// keyEnding ends the names of the files with keys; the cluster's comes before it.
const keyEnding = ".key"

// key gives a cluster's keys, made on first use if they may be.
func (k *Keeper) key(ctx context.Context, cluster string, make bool) (*key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if have := k.keys[cluster]; have != nil {
		return have, nil
	}
	name, err := k.file(cluster)
	if err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && make:
		secret, err = k.draw(name)
		if err == nil && k.cfg.Keyed != nil {
			err = k.cfg.Keyed.Add(ctx, cluster) // if that fails, the key is there for the next time, and is noted by the next start
		}
		if err != nil {
			return nil, fmt.Errorf("cannot make a key for the secrets of cluster %s: %w", cluster, err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cannot open a secret of cluster %s: its key is gone", cluster)
	case err != nil:
		return nil, fmt.Errorf("cannot read the key of cluster %s: %w", cluster, err)
	}
	if len(secret) != keySize {
		return nil, fmt.Errorf("cannot use the key in %s: it has %d bytes instead of %d", name, len(secret), keySize)
	}
	have, err := derive(secret)
	if err == nil {
		k.keys[cluster] = have
	}
	return have, err
}

func derive(secret []byte) (*key, error) {
	encrypt, err := hkdf.Key(sha256.New, secret, nil, "joist secret 1: encryption", keySize)
	if err != nil {
		return nil, fmt.Errorf("cannot derive a key: %w", err)
	}
	nonce, err := hkdf.Key(sha256.New, secret, nil, "joist secret 1: nonce", keySize)
	if err != nil {
		return nil, fmt.Errorf("cannot derive a key: %w", err)
	}
	block, err := aes.NewCipher(encrypt)
	if err != nil {
		return nil, fmt.Errorf("cannot use a key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("cannot use a key: %w", err)
	}
	return &key{aead, nonce}, nil
}

// draw makes a key and keeps it in a file, whole or not at all, before anything is sealed with it.
func (k *Keeper) draw(name string) ([]byte, error) {
	secret := make([]byte, keySize)
	if _, err := io.ReadFull(k.cfg.Random, secret); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(k.cfg.Folder, ".new-*") // mode 0600
	if err != nil {
		return nil, err
	}
	_, err = f.Write(secret)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	return secret, syncFolder(k.cfg.Folder)
}

func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
