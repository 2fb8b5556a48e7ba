package artifacts

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

const (
	manifestName   = "manifest.json"
	manifestFormat = 1
	maxManifest    = 1 << 20 // bytes
)

// Kind says what an artifact is.
type Kind string

// The kinds.
const (
	Program Kind = "program" // a static executable
	Image   Kind = "image"   // a container image as an OCI layout in a tar
	Bundle  Kind = "bundle"  // a squashfs of programs or images
)

// Artifact is one file of a build.
type Artifact struct {
	Name    string `json:"name"`
	Kind    Kind   `json:"kind"`
	Version string `json:"version"` // without a leading v
	Arch    string `json:"arch"`    // Go's name: amd64, arm64
	File    string `json:"file"`    // below the build's folder, with slashes
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`    // bytes
	Licence string `json:"licence"` // SPDX
	// Source is the module and version that a program was built from, MODULE@VERSION; empty for what is ours and for bundles.
	Source string `json:"source,omitempty"`
	// Image is the name under which an image is imported.
	Image string `json:"image,omitempty"`
	// Holds names the programs or images in a bundle, sorted.
	Holds []string `json:"holds,omitempty"`
}

// Manifest is manifest.json; see the package's description.
type Manifest struct {
	Format    int        `json:"format"`
	Inputs    string     `json:"inputs"` // digest of what the build was made from
	Go        string     `json:"go"`     // version of the compiler
	Artifacts []Artifact `json:"artifacts"`
}

// Set is a finished build on disk.
type Set struct {
	Manifest
	Folder string
}

// Path is where a file of the set lies.
func (s *Set) Path(a Artifact) string { return filepath.Join(s.Folder, filepath.FromSlash(a.File)) }

// Find returns the artifact of a kind and name; false where there is none.
func (m Manifest) Find(kind Kind, name string) (Artifact, bool) {
	i := slices.IndexFunc(m.Artifacts, func(a Artifact) bool { return a.Kind == kind && a.Name == name })
	if i < 0 {
		return Artifact{}, false
	}
	return m.Artifacts[i], true
}

// Open reads a build's folder and refuses one that lacks a file or has one of another size. It does not read the files;
// Verify does.
func Open(folder string) (*Set, error) {
	body, err := readUpTo(filepath.Join(folder, manifestName), maxManifest)
	if err != nil {
		return nil, fmt.Errorf("cannot open artifacts: %w", err)
	}
	m, err := ParseManifest(body)
	if err != nil {
		return nil, fmt.Errorf("cannot open artifacts in %s: %w", folder, err)
	}
	s := &Set{Manifest: m, Folder: folder}
	for _, a := range m.Artifacts {
		info, err := os.Stat(s.Path(a))
		if err != nil {
			return nil, fmt.Errorf("cannot open artifacts: %w", err)
		}
		if info.Size() != a.Size {
			return nil, fmt.Errorf("cannot open artifacts in %s: %s has %d bytes, the manifest says %d", folder, a.File, info.Size(), a.Size)
		}
	}
	return s, nil
}

// Verify reads every file and compares its digest.
func (s *Set) Verify() error {
	for _, a := range s.Artifacts {
		sum, err := fileDigest(s.Path(a))
		if err != nil {
			return fmt.Errorf("cannot verify artifacts: %w", err)
		}
		if sum != a.SHA256 {
			return fmt.Errorf("artifacts in %s are damaged: %s has SHA-256 %s, the manifest says %s", s.Folder, a.File, sum, a.SHA256)
		}
	}
	return nil
}

// ParseManifest reads manifest.json. It looks at no file.
func ParseManifest(body []byte) (Manifest, error) {
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("manifest.json: %w", err)
	}
	if m.Format != manifestFormat {
		return Manifest{}, fmt.Errorf("manifest.json has format %d, this builder knows %d", m.Format, manifestFormat)
	}
	if len(m.Artifacts) == 0 {
		return Manifest{}, errors.New("manifest.json lists nothing")
	}
	seen := map[[2]string]bool{}
	for _, a := range m.Artifacts {
		if err := a.check(); err != nil {
			return Manifest{}, fmt.Errorf("manifest.json: %w", err)
		}
		key := [2]string{string(a.Kind), a.Name}
		if seen[key] {
			return Manifest{}, fmt.Errorf("manifest.json lists %s %s twice", a.Kind, a.Name)
		}
		seen[key] = true
	}
	return m, nil
}

func (a Artifact) check() error {
	switch a.Kind {
	case Program, Image, Bundle:
	default:
		return fmt.Errorf("%q is of the unknown kind %q", a.Name, a.Kind)
	}
	if a.Name == "" || a.Version == "" || a.Arch == "" || a.Licence == "" || a.Size <= 0 {
		return fmt.Errorf("%s %q lacks a name, version, architecture, licence or size", a.Kind, a.Name)
	}
	if !filepath.IsLocal(filepath.FromSlash(a.File)) || a.File == manifestName {
		return fmt.Errorf("%s %q lies in %q, outside the folder", a.Kind, a.Name, a.File)
	}
	if raw, err := hex.DecodeString(a.SHA256); err != nil || len(raw) != sha256.Size {
		return fmt.Errorf("%s %q has no SHA-256", a.Kind, a.Name)
	}
	return nil
}

// write sorts the artifacts and writes the manifest into folder, with size and digest of each file there.
func (m Manifest) write(folder string) error {
	m.Format = manifestFormat
	m.Artifacts = slices.Clone(m.Artifacts)
	slices.SortFunc(m.Artifacts, func(a, b Artifact) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		path := filepath.Join(folder, filepath.FromSlash(a.File))
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("cannot list what was built: %w", err)
		}
		a.Size = info.Size()
		if a.SHA256, err = fileDigest(path); err != nil {
			return fmt.Errorf("cannot list what was built: %w", err)
		}
	}
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write manifest.json: %w", err)
	}
	body = append(body, '\n')
	if _, err := ParseManifest(body); err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, manifestName), body, 0o644); err != nil {
		return fmt.Errorf("cannot write manifest.json: %w", err)
	}
	return nil
}

// fileDigest is a file's SHA-256, in hexadecimal.
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("cannot read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func readUpTo(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return body, nil
}
