// Package artifacts keeps on a node the files that steps name by digest: fetched from the engine, verified before use,
// shared by all steps, and for bundles mounted.
package artifacts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"joist/engine/agent/fetch"
	"joist/engine/agent/loop"
	"joist/engine/agent/wire"
)

// Config is what a store needs. Zero fields mean the defaults named; Dir, Marks and Client are required.
type Config struct {
	Dir    string       // where bundles are mounted, and files lie that have no better place
	Disk   string       // where files lie as soon as the folder above it is a mounted file system; empty for none
	Marks  string       // folder that ends with the boot: which files were verified in it, and who uses them
	Client *http.Client // speaks HTTP to the engine

	Attempts int                            // see fetch.Config
	Mount    func(file, dir string) error   // default loop.Mount
	Unmount  func(dir string) error         // default loop.Unmount
	Mounted  func(dir string) (bool, error) // default loop.Mounted
}

// Store is a node's artifacts. It is safe for concurrent use; two processes never share its folders.
type Store struct {
	cfg Config

	mu    sync.Mutex
	turns map[string]chan struct{}   // one at a time for each digest
	users map[string]map[string]bool // instances by digest
}

// Below Dir: files by digest, what is being fetched, and where bundles are mounted.
const (
	prefix  = "sha256-"
	partial = ".partial-"
	mounts  = "bundles"
	usersAt = "users.json"
)

// Open makes the folders if need be, and reads who uses what.
func Open(cfg Config) (*Store, error) {
	if !filepath.IsAbs(cfg.Dir) || !filepath.IsAbs(cfg.Marks) || cfg.Client == nil {
		return nil, errors.New("internal error: a node's artifacts need two absolute folders and a client")
	}
	if cfg.Mount == nil {
		cfg.Mount = loop.Mount
	}
	if cfg.Unmount == nil {
		cfg.Unmount = loop.Unmount
	}
	if cfg.Mounted == nil {
		cfg.Mounted = loop.Mounted
	}
	if err := os.MkdirAll(cfg.Marks, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep artifacts: %w", err)
	}
	s := &Store{cfg: cfg, turns: map[string]chan struct{}{}, users: map[string]map[string]bool{}}
	data, err := os.ReadFile(filepath.Join(cfg.Marks, usersAt))
	if err == nil {
		err = json.Unmarshal(data, &s.users)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read who uses which artifact: %w", err)
	}
	return s, nil
}

// Provide brings the artifacts of a request to this node, those that are here already excepted, and gives the path of
// each by its name: the file, or the folder where a bundle is mounted. From then on the request's instance uses them, too.
// What it says goes to the step's log.
func (s *Store) Provide(ctx context.Context, req wire.Request, say func(line string)) (map[string]string, error) {
	s.mu.Lock()
	s.add(req.Instance, req.Artifacts)
	err := s.keepUsers()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	paths := make(map[string]string, len(req.Artifacts))
	for _, a := range req.Artifacts {
		path, err := s.provide(ctx, a, say)
		if err != nil {
			return nil, fmt.Errorf("artifact %s: %w", a.Name, err)
		}
		paths[a.Name] = path
	}
	return paths, nil
}

// Uses notes what an instance uses from now on, in place of what it used before. What nobody uses any more is unmounted
// and deleted; a bundle from which something still runs stays until the next change.
func (s *Store) Uses(instance string, used []wire.Artifact) error {
	s.mu.Lock()
	for _, users := range s.users {
		delete(users, instance)
	}
	s.add(instance, used)
	var unused []string
	for digest, users := range s.users {
		if len(users) == 0 {
			unused = append(unused, digest)
		}
	}
	err := s.keepUsers()
	s.mu.Unlock()
	slices.Sort(unused)
	for _, digest := range unused {
		err = errors.Join(err, s.drop(digest))
	}
	return err
}

// add notes that an instance uses more. The caller holds the lock.
func (s *Store) add(instance string, used []wire.Artifact) {
	for _, a := range used {
		digest := hexOf(a.Digest)
		if s.users[digest] == nil {
			s.users[digest] = map[string]bool{}
		}
		s.users[digest][instance] = true
	}
}

// keepUsers writes who uses what. The caller holds the lock.
func (s *Store) keepUsers() error {
	data, err := json.Marshal(s.users)
	if err != nil {
		return fmt.Errorf("cannot note who uses which artifact: %w", err)
	}
	file := filepath.Join(s.cfg.Marks, usersAt)
	if err = os.WriteFile(file+".new", data, 0o600); err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("cannot note who uses which artifact: %w", err)
	}
	return nil
}

// drop deletes what nobody uses.
func (s *Store) drop(digest string) error {
	done, err := s.turn(context.Background(), digest) // whoever has it ends by itself
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	unused := len(s.users[digest]) == 0
	s.mu.Unlock()
	if !unused {
		return nil
	}
	dir := s.mountPoint(digest)
	mounted, err := s.cfg.Mounted(dir)
	if err == nil && mounted {
		if err = s.cfg.Unmount(dir); errors.Is(err, unix.EBUSY) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	for _, path := range []string{dir, s.path(digest), s.mark(digest)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot delete an artifact: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users[digest]) == 0 {
		delete(s.users, digest)
	}
	return s.keepUsers()
}

// turn waits until nobody else brings or drops this artifact.
func (s *Store) turn(ctx context.Context, digest string) (done func(), err error) {
	s.mu.Lock()
	c := s.turns[digest]
	if c == nil {
		c = make(chan struct{}, 1)
		s.turns[digest] = c
	}
	s.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func name(digest string) string { return prefix + digest }

// place is the folder for what comes now.
func (s *Store) place() string {
	if s.cfg.Disk != "" {
		if mounted, err := s.cfg.Mounted(filepath.Dir(s.cfg.Disk)); err == nil && mounted {
			return s.cfg.Disk
		}
	}
	return s.cfg.Dir
}

// path is where a file lies, or would.
func (s *Store) path(digest string) string {
	if _, err := os.Lstat(filepath.Join(s.cfg.Dir, name(digest))); err == nil {
		return filepath.Join(s.cfg.Dir, name(digest)) // from before there was a disk
	}
	return filepath.Join(s.place(), name(digest))
}

func (s *Store) mountPoint(digest string) string { return filepath.Join(s.cfg.Dir, mounts, digest) }
func (s *Store) mark(digest string) string       { return filepath.Join(s.cfg.Marks, digest) }

func (s *Store) provide(ctx context.Context, a wire.Artifact, say func(string)) (string, error) {
	digest := hexOf(a.Digest)
	done, err := s.turn(ctx, digest)
	if err != nil {
		return "", err
	}
	defer done()
	dir := s.mountPoint(digest)
	if a.Bundle {
		if mounted, err := s.cfg.Mounted(dir); err != nil || mounted {
			return dir, err // it was verified before it was mounted
		}
	}
	if err := s.bring(ctx, a, say); err != nil {
		return "", err
	}
	if !a.Bundle {
		return s.path(digest), nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make a folder for it: %w", err)
	}
	if err := s.cfg.Mount(s.path(digest), dir); err != nil {
		return "", fmt.Errorf("%w; is it a squashfs, as a bundle has to be?", err)
	}
	return dir, nil
}

// bring sees to it that the file is here and is what its digest says.
func (s *Store) bring(ctx context.Context, a wire.Artifact, say func(string)) error {
	digest := hexOf(a.Digest)
	path := s.path(digest)
	if s.verified(digest) {
		return nil
	}
	got, err := sum(ctx, path)
	switch {
	case err == nil && got == digest: // from before this boot, or this agent could not note it
		return s.note(digest)
	case err == nil:
		say(fmt.Sprintf("the file of artifact %s is damaged and is fetched again", a.Name))
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot remove a damaged file: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := s.fetch(ctx, a, say); err != nil {
		return err
	}
	return s.note(digest)
}

func (s *Store) fetch(ctx context.Context, a wire.Artifact, say func(string)) (err error) {
	digest := hexOf(a.Digest)
	place := s.place()
	if err := os.MkdirAll(place, 0o755); err != nil {
		return fmt.Errorf("cannot make a folder for it: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(place, partial+digest), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot keep it: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot keep it: %w", err)
	}
	if err := s.room(place, a.Size-info.Size()); err != nil {
		return err
	}
	say(fmt.Sprintf("fetching artifact %s, %s, %.1f MB", a.Name, a.Digest, float64(a.Size)/1e6))
	err = fetch.Get(ctx, fetch.File{What: "it", URLs: a.URLs, SHA256: digest, Size: a.Size}, f, fetch.Config{
		Client: s.cfg.Client, Attempts: s.cfg.Attempts, Resume: true, MustBe: true, Trouble: func(err error) { say(err.Error()) },
	})
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w; %s has no room left", err, place)
	case errors.Is(err, fetch.ErrAbsent):
		return fmt.Errorf("%w; the engine has lost it: see joist mirror list, and joist mirror add to bring it back", err)
	case err != nil:
		return err
	}
	mode := fs.FileMode(0o555)
	if a.Bundle {
		mode = 0o444
	}
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return fmt.Errorf("cannot keep it: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(place, name(digest))); err != nil {
		return fmt.Errorf("cannot keep it: %w", err)
	}
	return nil
}

// room refuses what will not fit, in bytes. Before that it deletes what an earlier boot left and nobody asked for since.
func (s *Store) room(place string, need int64) error {
	free, err := available(place)
	if err != nil || need <= free {
		return err
	}
	left, err := os.ReadDir(place)
	if err != nil {
		return fmt.Errorf("cannot look how much room there is: %w", err)
	}
	s.mu.Lock()
	for _, e := range left {
		if digest, ok := strings.CutPrefix(e.Name(), prefix); ok && len(s.users[digest]) == 0 {
			_ = os.Remove(filepath.Join(place, e.Name())) // what stays takes room, which is looked at next
		}
	}
	s.mu.Unlock()
	if free, err = available(place); err != nil || need <= free {
		return err
	}
	return fmt.Errorf("it does not fit: %d MiB are to come and %s has %d MiB left", (need+1<<20-1)>>20, place, free>>20)
}

func available(place string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(place, &st); err != nil {
		return 0, fmt.Errorf("cannot look how much room there is: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// stamp is what a file looked like when it was verified.
type stamp struct {
	Size, Modified int64
	Inode          uint64
}

func (s *Store) stamp(digest string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(s.path(digest), &st); err != nil {
		return stamp{}, err
	}
	return stamp{st.Size, st.Mtim.Nano(), st.Ino}, nil
}

// verified reports whether the file was verified in this boot and is the same still.
func (s *Store) verified(digest string) bool {
	data, err := os.ReadFile(s.mark(digest))
	if err != nil {
		return false
	}
	var was stamp
	now, err := s.stamp(digest)
	return err == nil && json.Unmarshal(data, &was) == nil && was == now
}

// note notes that the file was verified.
func (s *Store) note(digest string) error {
	now, err := s.stamp(digest)
	if err != nil {
		return fmt.Errorf("cannot look at it: %w", err)
	}
	data, err := json.Marshal(now)
	if err == nil {
		err = os.WriteFile(s.mark(digest), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot note that it was verified: %w", err)
	}
	return nil
}

// sum is the SHA-256 of a file, in hexadecimal.
func sum(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.Close() }) // which ends the reading
	defer stop()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("cannot read it: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
