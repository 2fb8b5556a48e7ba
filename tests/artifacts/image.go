package artifacts

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// imageHost begins the names of our images. It is in the domain that is kept for private use, so nobody fetches from it.
const imageHost = "joist.internal/"

// Media types of the OCI image format, version 1.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// epoch is the time of every file that is packed.
func epoch() time.Time { return time.Unix(1767225600, 0).UTC() }

// images packs each image's program, which lies in temp already, into an OCI layout.
func (b *builder) images(_ context.Context, in inputs, _, temp string) ([]Artifact, error) {
	b.Progress("images", imageHost)
	sources := map[string]Artifact{}
	for _, c := range components() {
		for _, p := range programs() {
			if p.module == c.module {
				sources[p.name] = Artifact{Version: in.versions[p.module], Licence: c.licence, Source: p.module + "@v" + in.versions[p.module]}
			}
		}
	}
	for _, name := range own() {
		sources[name] = Artifact{Version: ownVersion, Licence: ownLicence}
	}
	if err := os.MkdirAll(filepath.Join(temp, "images"), 0o755); err != nil {
		return nil, err
	}
	var made []Artifact
	for _, i := range images() {
		a := sources[i.name]
		a.Name, a.Kind, a.Arch, a.File, a.Image = i.name, Image, b.Arch, "images/"+i.name+".tar", imageHost+i.name+":"+a.Version
		program, err := os.ReadFile(filepath.Join(temp, "bin", i.name))
		if err != nil {
			return nil, fmt.Errorf("cannot pack the image %s: %w", i.name, err)
		}
		f, err := os.OpenFile(filepath.Join(temp, a.File), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		err = writeImage(f, i, a, program)
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return nil, fmt.Errorf("cannot pack the image %s: %w", i.name, err)
		}
		made = append(made, a)
	}
	return made, nil
}

// descriptor points to a blob: OCI image-spec, descriptor.md.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// imageConfig is what we state of an image: OCI image-spec, config.md.
type imageConfig struct {
	platform
	Created string    `json:"created"`
	Config  runConfig `json:"config"`
	RootFS  rootFS    `json:"rootfs"`
}

type runConfig struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env"`
	Entrypoint []string          `json:"Entrypoint"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir"`
	Labels     map[string]string `json:"Labels"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// archive collects blobs and writes them as files of a tar that is the same each time.
type archive struct {
	tar *tar.Writer
	err error
}

func (w *archive) file(name string, mode int64, body []byte) {
	w.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))})
	if w.err == nil {
		_, w.err = w.tar.Write(body)
	}
}

func (w *archive) folder(name string, mode int64) {
	w.header(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

func (w *archive) header(h tar.Header) {
	if w.err != nil {
		return
	}
	h.ModTime, h.Format = epoch(), tar.FormatUSTAR
	w.err = w.tar.WriteHeader(&h)
}

func (w *archive) json(name string, v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic("internal error: cannot encode a part of an image: " + err.Error()) // all are plain data
	}
	if name != "" {
		w.file(name, 0o644, body)
	}
	return body
}

func (w *archive) blob(mediaType string, body []byte) descriptor {
	sum := sha256.Sum256(body)
	w.file("blobs/sha256/"+hex.EncodeToString(sum[:]), 0o644, body)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(body))}
}

func (w *archive) close() error {
	if err := w.tar.Close(); w.err == nil {
		w.err = err
	}
	return w.err
}

// writeImage writes an image of one layer, which holds the program as /NAME, users root and nobody, and an empty /tmp.
// The layer is not compressed: bundles are.
func writeImage(out io.Writer, i image, a Artifact, program []byte) error {
	var layer bytes.Buffer
	l := &archive{tar: tar.NewWriter(&layer)}
	l.folder("etc", 0o755)
	l.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n"))
	l.file("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	l.file(i.name, 0o755, program)
	l.folder("tmp", 0o1777)
	if err := l.close(); err != nil {
		return err
	}
	w := &archive{tar: tar.NewWriter(out)}
	w.json("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	w.folder("blobs", 0o755)
	w.folder("blobs/sha256", 0o755)
	content := w.blob(typeLayer, layer.Bytes())
	config := w.blob(typeConfig, w.json("", imageConfig{
		platform: platform{a.Arch, "linux"}, Created: epoch().Format(time.RFC3339),
		Config: runConfig{
			User: i.user, Env: []string{"PATH=/"}, Entrypoint: []string{"/" + i.name}, Cmd: i.args, WorkingDir: "/",
			Labels: map[string]string{"org.opencontainers.image.version": a.Version, "org.opencontainers.image.licenses": a.Licence},
		},
		RootFS: rootFS{"layers", []string{content.Digest}},
	}))
	manifest := w.blob(typeManifest, w.json("", map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": []descriptor{content},
	}))
	manifest.Platform = &platform{a.Arch, "linux"}
	// containerd names the image by the first annotation, other tools by the second.
	manifest.Annotations = map[string]string{"io.containerd.image.name": a.Image, "org.opencontainers.image.ref.name": a.Version}
	w.json("index.json", map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{manifest}})
	return w.close()
}
