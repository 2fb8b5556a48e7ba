package bootset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Names of a boot set's files in its folder.
const (
	manifestName = "manifest.json"
	kernelName   = "vmlinuz"
	initrdName   = "initrd.img"
	imageName    = "node.squashfs"
)

const manifestFormat = 1

// maxManifest bounds manifest.json, in bytes.
const maxManifest = 64 << 10

// File is one file of a boot set.
type File struct {
	File   string `json:"file"` // name within the set's folder
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Manifest is manifest.json.
type Manifest struct {
	Format        int     `json:"format"`
	Digest        string  `json:"digest"` // of profile, kernel version and the three files: what a machine runs
	Profile       Profile `json:"profile"`
	KernelVersion string  `json:"kernel_version"`
	Kernel        File    `json:"kernel"`
	Initrd        File    `json:"initrd"`
	Image         File    `json:"image"`
	ScoutModules  int     `json:"scout_modules"` // kernel modules in the initramfs
	Inputs        string  `json:"inputs"`        // digest of what the set was built from
}

// Set is a boot set on disk whose parts belong together.
type Set struct {
	Manifest
	Folder string
}

// Path is where a file of the set lies.
func (s *Set) Path(f File) string { return filepath.Join(s.Folder, f.File) }

// digest is the boot set's digest.
func (m Manifest) digest() string {
	return digestOf("boot set", manifestFormat, m.Profile, m.KernelVersion, m.Kernel.SHA256, m.Initrd.SHA256, m.Image.SHA256)
}

// write completes the manifest from the files in folder and writes it there.
func (m Manifest) write(folder string) error {
	for name, f := range map[string]*File{kernelName: &m.Kernel, initrdName: &m.Initrd, imageName: &m.Image} {
		path := filepath.Join(folder, name)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		sum, err := fileDigest(path)
		if err != nil {
			return err
		}
		*f = File{File: name, Size: info.Size(), SHA256: sum}
	}
	m.Digest = m.digest()
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, manifestName), append(body, '\n'), 0o644)
}

// Open reads a boot set and refuses one whose files are not the manifest's by size, or whose kernel, scout modules
// and node image are not for one kernel version, each read from the file itself. Verify also checks the contents.
func Open(folder string) (*Set, error) {
	m, err := readManifest(filepath.Join(folder, manifestName))
	if err != nil {
		return nil, fmt.Errorf("cannot open boot set %s: %w", folder, err)
	}
	s := &Set{Manifest: m, Folder: folder}
	for _, f := range []File{m.Kernel, m.Initrd, m.Image} {
		info, err := os.Stat(s.Path(f))
		if err != nil {
			return nil, fmt.Errorf("cannot open boot set %s: %w", folder, err)
		}
		if info.Size() != f.Size {
			return nil, fmt.Errorf("cannot open boot set %s: %s has %d bytes, the manifest says %d", folder, f.File, info.Size(), f.Size)
		}
	}
	if err := s.checkKernel(); err != nil {
		return nil, fmt.Errorf("cannot open boot set %s: %w", folder, err)
	}
	return s, nil
}

// Verify reads every file of the set and compares its digest.
func (s *Set) Verify() error {
	for _, f := range []File{s.Kernel, s.Initrd, s.Image} {
		sum, err := fileDigest(s.Path(f))
		if err != nil {
			return fmt.Errorf("cannot verify boot set %s: %w", s.Folder, err)
		}
		if sum != f.SHA256 {
			return fmt.Errorf("boot set %s is damaged: %s has SHA-256 %s, the manifest says %s", s.Folder, f.File, sum, f.SHA256)
		}
	}
	return nil
}

func (s *Set) checkKernel() error {
	kernel, err := kernelFileVersion(s.Path(s.Kernel))
	if err != nil {
		return err
	}
	image, err := readLabel(s.Path(s.Image))
	if err != nil {
		return err
	}
	f, err := os.Open(s.Path(s.Initrd))
	if err != nil {
		return err
	}
	defer f.Close()
	scout, err := initrdKernel(f)
	if err != nil {
		return err
	}
	if kernel != s.KernelVersion || scout != kernel || image.Kernel != kernel {
		return fmt.Errorf("its parts are for different kernels: kernel %s, scout's modules %s, node image's modules %s, manifest %s", kernel, scout, image.Kernel, s.KernelVersion)
	}
	return nil
}

func readManifest(path string) (Manifest, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Manifest{}, err
	}
	if info.Size() > maxManifest {
		return Manifest{}, errors.New("manifest.json is too large")
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, err
	}
	return parseManifest(body)
}

// ParseManifest reads manifest.json and refuses one that was changed since its set was built. It looks at no file.
func ParseManifest(body []byte) (Manifest, error) {
	if len(body) > maxManifest {
		return Manifest{}, errors.New("manifest.json is too large")
	}
	return parseManifest(body)
}

func parseManifest(body []byte) (Manifest, error) {
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("manifest.json: %w", err)
	}
	if m.Format != manifestFormat {
		return Manifest{}, fmt.Errorf("manifest.json has format %d, this joist knows %d", m.Format, manifestFormat)
	}
	if _, err := ParseProfile(string(m.Profile)); err != nil {
		return Manifest{}, fmt.Errorf("manifest.json: %w", err)
	}
	for _, f := range []File{m.Kernel, m.Initrd, m.Image} {
		if f.File == "" || f.File == "." || f.File == ".." || filepath.Base(f.File) != f.File || f.Size <= 0 {
			return Manifest{}, fmt.Errorf("manifest.json names a file %q of %d bytes", f.File, f.Size)
		}
	}
	if m.Digest != m.digest() {
		return Manifest{}, errors.New("manifest.json was changed: its digest is not that of what it lists")
	}
	return m, nil
}
