package artifacts

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"testing"
)

// untar reads a tar into memory: the bodies by name, and the modes.
func untar(t *testing.T, r io.Reader) (map[string][]byte, map[string]int64) {
	t.Helper()
	bodies, modes := map[string][]byte{}, map[string]int64{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return bodies, modes
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(epoch()) {
			t.Errorf("%s belongs to %d:%d and is of %s", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		bodies[h.Name], modes[h.Name] = body, h.Mode
	}
}

// layout is an OCI layout that is read back: image-spec, image-layout.md.
type layout struct {
	t     *testing.T
	files map[string][]byte
}

// follow finds what a descriptor points to, checks it, and decodes it if into is not nil.
func (l layout) follow(d descriptor, into any) []byte {
	l.t.Helper()
	sum, ok := bytes.CutPrefix([]byte(d.Digest), []byte("sha256:"))
	body, there := l.files["blobs/sha256/"+string(sum)]
	got := sha256.Sum256(body)
	if !ok || !there || hex.EncodeToString(got[:]) != string(sum) || int64(len(body)) != d.Size {
		l.t.Fatalf("%s of %d bytes is not among the blobs", d.Digest, d.Size)
	}
	if into != nil {
		if err := json.Unmarshal(body, into); err != nil {
			l.t.Fatal(err)
		}
	}
	return body
}

func TestImage(t *testing.T) {
	i := image{name: "echo", args: []string{"serve"}, user: "7:8"}
	a := Artifact{Name: "echo", Version: "1", Arch: "arm64", Licence: "Apache-2.0", Image: "joist.internal/echo:1"}
	var out, again bytes.Buffer
	for _, w := range []io.Writer{&out, &again} {
		if err := writeImage(w, i, a, []byte("program")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Error("two images of the same program differ")
	}
	files, _ := untar(t, &out)
	l := layout{t, files}
	if string(files["oci-layout"]) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %s", files["oci-layout"])
	}
	var index struct {
		SchemaVersion int
		MediaType     string
		Manifests     []descriptor
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil || index.SchemaVersion != 2 || len(index.Manifests) != 1 {
		t.Fatalf("index.json is %s", files["index.json"])
	}
	top := index.Manifests[0]
	if top.Annotations["io.containerd.image.name"] != a.Image || top.MediaType != typeManifest || top.Platform.Architecture != "arm64" {
		t.Errorf("the index has %+v", top)
	}
	var manifest struct {
		SchemaVersion int
		MediaType     string
		Config        descriptor
		Layers        []descriptor
	}
	l.follow(top, &manifest)
	if manifest.SchemaVersion != 2 || manifest.Config.MediaType != typeConfig || len(manifest.Layers) != 1 || manifest.Layers[0].MediaType != typeLayer {
		t.Fatalf("the manifest is %+v", manifest)
	}
	var config struct {
		Architecture, OS string
		Config           struct {
			User            string
			Entrypoint, Cmd []string
		}
		RootFS struct {
			Type    string
			DiffIDs []string `json:"diff_ids"`
		}
	}
	l.follow(manifest.Config, &config)
	if config.Architecture != "arm64" || config.OS != "linux" || config.Config.User != "7:8" || config.Config.Entrypoint[0] != "/echo" || config.Config.Cmd[0] != "serve" {
		t.Errorf("the configuration is %+v", config)
	}
	if config.RootFS.Type != "layers" || len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("the configuration's layers are %+v", config.RootFS)
	}
	content, modes := untar(t, bytes.NewReader(l.follow(manifest.Layers[0], nil)))
	if string(content["echo"]) != "program" || modes["echo"] != 0o755 || modes["tmp/"] != 0o1777 || len(content["etc/passwd"]) == 0 {
		t.Errorf("the layer has %v", modes)
	}
}
