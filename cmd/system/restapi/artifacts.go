package restapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"joist/engine/value"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/boot/artifacts"
	"joist/services/boot/bootset"
)

// BootSets keeps the boot sets that machines may be given.
type BootSets interface {
	// Add makes a boot set known, durably. Its files are in the artifact store.
	Add(ctx context.Context, m bootset.Manifest) error
	// List gives those that are known, the one that machines boot by default first.
	List(ctx context.Context) ([]bootset.Manifest, error)
}

// apiArtifacts implements api.Artifacts.
type apiArtifacts struct {
	store *artifacts.Store
	check Checker
	sets  BootSets
}

// Checker reads a stored file and fails if it is not what its digest says. Unless again is set it may answer from memory, as
// long as nobody touched the file. A mirror.Files is one.
type Checker interface {
	Verify(ctx context.Context, d value.Digest, again bool) error
}

// NewArtifacts makes the API's end of uploads.
func NewArtifacts(store *artifacts.Store, check Checker, sets BootSets) api.Artifacts {
	return &apiArtifacts{store, check, sets}
}

func (a *apiArtifacts) Put(ctx context.Context, digest string, r io.Reader) (*v1.Artifact, error) {
	stored, err := a.store.Write(ctx, r, artifacts.Digest(digest))
	var mismatch *artifacts.MismatchError
	if errors.As(err, &mismatch) {
		return nil, api.Fail(v1.Refused, err, "")
	}
	if err != nil {
		return nil, roomless(err)
	}
	return &v1.Artifact{Digest: string(stored.Digest), Size: stored.Size}, nil
}

// roomless says what to do where the engine's disk has no room for a file that was sent.
func roomless(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return api.Fail(v1.Unavailable, fmt.Errorf("the engine's disk is full: %w", err), "free space there (joist mirror gc --dry-run shows what nothing names), then do the same again; the mirror is as it was")
	}
	return err
}

// Whole implements api.Artifacts. It reads a file whose digest nobody has verified since the engine started or since the
// verification that found it damaged: whoever asks is about to send it, or to use it, which reads it as well.
func (a *apiArtifacts) Whole(ctx context.Context, digest string) (int64, error) {
	f, size, err := a.Open(ctx, digest)
	if err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	d, err := digestValue(digest)
	if err != nil {
		return 0, api.Fail(v1.Malformed, err, "")
	}
	err = a.check.Verify(ctx, d, false)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, api.Fail(v1.NotFound, fmt.Errorf("artifact %s is damaged: %w", digest, err), "upload it again")
	}
	return size, nil
}

func (a *apiArtifacts) Open(_ context.Context, digest string) (io.ReadSeekCloser, int64, error) {
	f, size, err := a.store.Open(artifacts.Digest(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, api.Fail(v1.NotFound, fmt.Errorf("there is no artifact %s", digest), "upload it first")
	}
	if err != nil {
		return nil, 0, err
	}
	return f, size, nil
}

func (a *apiArtifacts) Register(ctx context.Context, manifest json.RawMessage) (*v1.BootSet, error) {
	m, err := bootset.ParseManifest(manifest)
	if err != nil {
		return nil, api.Fail(v1.Refused, err, "send the manifest.json that joist bootset build wrote")
	}
	for _, f := range []bootset.File{m.Kernel, m.Initrd, m.Image} {
		d, err := artifacts.ParseDigest("sha256-" + f.SHA256)
		if err != nil {
			return nil, api.Fail(v1.Refused, err, "")
		}
		file, size, err := a.Open(ctx, string(d))
		if err == nil {
			err = file.Close()
		}
		if err != nil {
			return nil, err
		}
		if size != f.Size {
			return nil, api.Fail(v1.Refused, fmt.Errorf("%s has %d bytes, the manifest says %d", d, size, f.Size), "build the boot set again")
		}
	}
	if err := a.sets.Add(ctx, m); err != nil {
		return nil, err
	}
	return bootSetForm(m), nil
}

func bootSetForm(m bootset.Manifest) *v1.BootSet {
	return &v1.BootSet{Digest: m.Digest, Profile: string(m.Profile), Kernel: m.KernelVersion}
}

func (a *apiArtifacts) BootSets(ctx context.Context) ([]v1.BootSet, error) {
	sets, err := a.sets.List(ctx)
	if err != nil {
		return nil, err
	}
	list := []v1.BootSet{}
	for i, m := range sets {
		form := bootSetForm(m)
		form.Default = i == 0
		list = append(list, *form)
	}
	return list, nil
}
