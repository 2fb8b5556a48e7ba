package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"filippo.io/age"
)

// Folder is a Vault of files: NAME.age for each CA, mode 0600, encrypted with age to the identity in a file of mode
// 0600. It is safe for concurrent use, also by several processes.
type Folder struct {
	dir      string
	identity *age.X25519Identity
	mu       sync.Mutex
}

// OpenFolder opens the vault in dir, which it makes if need be. The identity is read from identityFile; if there is
// none and the folder holds no key yet, one is drawn. An empty identityFile means DIR/identity.
func OpenFolder(dir, identityFile string) (*Folder, error) {
	if identityFile == "" {
		identityFile = filepath.Join(dir, "identity")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder for keys: %w", err)
	}
	identity, err := loadIdentity(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		if keys, globErr := filepath.Glob(filepath.Join(dir, "*.age")); globErr != nil || len(keys) > 0 {
			return nil, fmt.Errorf("cannot open the keys in %s: the identity file %s is missing; bring it back from where it is kept", dir, identityFile)
		}
		if identity, err = age.GenerateX25519Identity(); err != nil {
			return nil, fmt.Errorf("cannot draw an identity: %w", err)
		}
		if err = writeNew(identityFile, []byte(identity.String()+"\n")); errors.Is(err, fs.ErrExist) {
			identity, err = loadIdentity(identityFile)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the identity for keys: %w", err)
	}
	return &Folder{dir: dir, identity: identity}, nil
}

// loadIdentity reads an identity file that nobody else may read.
func loadIdentity(path string) (*age.X25519Identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read %s (mode %04o); set it to 0600", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	identity, err := age.ParseX25519Identity(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("%s holds no age identity", path) // the cause could quote it
	}
	return identity, nil
}

// Load implements Vault.
func (f *Folder) Load(_ context.Context, name string) (Material, error) {
	sealed, err := os.ReadFile(f.path(name))
	if err != nil {
		return Material{}, err
	}
	plain, err := age.Decrypt(bytes.NewReader(sealed), f.identity)
	if err != nil {
		return Material{}, fmt.Errorf("cannot decrypt %s: %w", f.path(name), err)
	}
	text, err := io.ReadAll(plain)
	if err != nil {
		return Material{}, fmt.Errorf("cannot decrypt %s: %w", f.path(name), err)
	}
	var m Material
	if err := json.Unmarshal(text, &m); err != nil {
		return Material{}, fmt.Errorf("cannot read %s: it holds no CA", f.path(name))
	}
	return m, nil
}

// Create implements Vault.
func (f *Folder) Create(_ context.Context, name string, m Material) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("cannot encode the key of %s: %w", name, err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, f.identity.Recipient())
	if err != nil {
		return fmt.Errorf("cannot encrypt the key of %s: %w", name, err)
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("cannot encrypt the key of %s: %w", name, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("cannot encrypt the key of %s: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return writeNew(f.path(name), sealed.Bytes())
}

// List implements Vault.
func (f *Folder) List(context.Context) ([]string, error) {
	files, err := os.ReadDir(f.dir)
	var names []string
	for _, file := range files {
		if name, ok := strings.CutSuffix(file.Name(), ".age"); ok {
			names = append(names, name)
		}
	}
	return names, err
}

// Destroy implements Vault.
func (f *Folder) Destroy(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := os.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(f.dir)
}

func (f *Folder) path(name string) string { return filepath.Join(f.dir, name+".age") }

// writeNew makes a file of mode 0600 appear whole and durably, or not at all; it never replaces one.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := os.Link(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
