package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"joist/engine/agent/disk"
	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
	"joist/engine/step"
)

// Builtins is the table of the built-in actions.
//
//	facts  inputs {}; outputs {facts}: what facts yields
//	key    inputs {purpose}; outputs {path, csr}: see below
//	data_disk  inputs {mount, storage, size, overlay}: see package disk
//	reboot     apply has the machine reboot, in order; outputs {}. It is the engine's, not for steps
//	wipe       apply erases the machine's data disks; outputs {disks}: []disk.Wiped. It is the engine's, not for steps
//
// key makes an ECDSA P-256 key in a file of mode 0600 in keyDir, or in the folder that is given, named after its purpose, with a certificate request
// (PEM) for that subject name beside it; an existing key is kept, and so is its request while the name stays, so that a repetition
// yields the same outputs. verify looks whether both are there; remove deletes them. The key never leaves the node.
//
// incarnation is the node's, which a data disk carries.
func Builtins(incarnation string, facts func(ctx context.Context) (json.RawMessage, error)) map[string]sandbox.Builtin {
	return map[string]sandbox.Builtin{
		"facts": func(ctx context.Context, call sandbox.BuiltinCall) (json.RawMessage, error) {
			if call.Action != wire.Apply {
				return nil, nil
			}
			got, err := facts(ctx)
			if err != nil {
				return nil, fmt.Errorf("cannot gather facts: %w", err)
			}
			if len(got) == 0 {
				got = json.RawMessage("{}")
			}
			return json.Marshal(map[string]json.RawMessage{"facts": got})
		},
		"key":       key,
		"data_disk": disk.New(disk.Config{Incarnation: incarnation}).Builtin,
		"wipe":      wipe,
		"reboot": func(ctx context.Context, call sandbox.BuiltinCall) (json.RawMessage, error) {
			return reboot(ctx, call, "systemctl")
		},
	}
}

func wipe(_ context.Context, call sandbox.BuiltinCall) (json.RawMessage, error) {
	if call.Action != wire.Apply {
		return nil, errors.New("a wipe can only be applied")
	}
	done, err := disk.Place{}.Wipe()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"disks": done})
}

// reboot asks the system manager, such as systemctl, for an orderly reboot.
func reboot(ctx context.Context, call sandbox.BuiltinCall, manager string) (json.RawMessage, error) {
	if call.Action != wire.Apply {
		return nil, errors.New("a reboot can only be applied")
	}
	if out, err := exec.CommandContext(ctx, manager, "reboot").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot have the machine reboot: %w: %s", err, wire.Clip(strings.TrimSpace(string(out)), 500))
	}
	return nil, nil
}

// keyPlace is where a key lies and the subject of its certificate request.
type keyPlace struct{ Path, Name string }

// keyDir is where keys are made.
const keyDir = "/var/lib/joist/keys"

var purpose = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func key(_ context.Context, call sandbox.BuiltinCall) (json.RawMessage, error) {
	var in struct {
		Purpose string `json:"purpose"`
		Folder  string `json:"folder"`
	}
	if err := json.Unmarshal(call.Inputs, &in); err != nil {
		return nil, fmt.Errorf("cannot read the inputs: %w", err)
	}
	if !purpose.MatchString(in.Purpose) {
		return nil, fmt.Errorf("cannot make a key for the purpose %q: use lower-case letters, digits and hyphens", in.Purpose)
	}
	if in.Folder == "" {
		in.Folder = keyDir
	}
	if !filepath.IsAbs(in.Folder) || in.Folder != filepath.Clean(in.Folder) || in.Folder == "/" {
		return nil, fmt.Errorf("cannot make a key in %q: want the absolute, clean path of a folder", in.Folder)
	}
	return keyAt(call.Action, keyPlace{Path: filepath.Join(in.Folder, in.Purpose+".key"), Name: in.Purpose})
}

func keyAt(action wire.Action, in keyPlace) (json.RawMessage, error) {
	if !filepath.IsAbs(in.Path) || in.Path != filepath.Clean(in.Path) || in.Path == "/" {
		return nil, fmt.Errorf("cannot use %q as the key's path: want an absolute, clean path", in.Path)
	}
	csr := in.Path + ".csr"
	switch action {
	case wire.Remove:
		for _, name := range []string{in.Path, csr} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("cannot remove the key: %w", err)
			}
		}
		return nil, nil
	case wire.Verify:
		return nil, verifyKey(in, csr)
	}
	text, err := applyKey(in, csr)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"path": in.Path, "csr": text})
}

func applyKey(in keyPlace, csr string) (string, error) {
	dir := filepath.Dir(in.Path)
	// What lies above the folder of keys is not secret: programs that run under users of their own pass through it.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("cannot make the key's directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the key's directory: %w", err)
	}
	key, err := loadKey(in.Path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(in.Path)
	}
	if err != nil {
		return "", err // a file that is no key of ours is not overwritten
	}
	if err := os.Chmod(in.Path, 0o600); err != nil {
		return "", fmt.Errorf("cannot protect the key: %w", err)
	}
	if text, err := os.ReadFile(csr); err == nil && checkRequest(text, in.Name, key) == nil {
		return string(text), nil
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: in.Name}}, key)
	if err != nil {
		return "", fmt.Errorf("cannot make a certificate request: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	if err := writeFile(csr, text, 0o644); err != nil {
		return "", fmt.Errorf("cannot keep the certificate request: %w", err)
	}
	return string(text), nil
}

func verifyKey(in keyPlace, csr string) error {
	key, err := loadKey(in.Path)
	if err != nil {
		return err
	}
	info, err := os.Stat(in.Path)
	if err != nil {
		return fmt.Errorf("cannot look at the key: %w", err)
	}
	if info.Mode().Perm() != 0o600 {
		return fmt.Errorf("the key %s has mode %o, not 600", in.Path, info.Mode().Perm())
	}
	text, err := os.ReadFile(csr)
	if err != nil {
		return fmt.Errorf("cannot read the certificate request: %w", err)
	}
	return checkRequest(text, in.Name, key)
}

// checkRequest says whether text is a certificate request of this key for this name.
func checkRequest(text []byte, name string, key *ecdsa.PrivateKey) error {
	block, _ := pem.Decode(text)
	if block == nil {
		return errors.New("the certificate request is not PEM")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("cannot read the certificate request: %w", err)
	}
	if err := req.CheckSignature(); err != nil {
		return fmt.Errorf("the certificate request is not signed by its key: %w", err)
	}
	if public, ok := req.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
		return errors.New("the certificate request is for another key")
	}
	if req.Subject.CommonName != name {
		return fmt.Errorf("the certificate request is for the name %q, not %q", req.Subject.CommonName, name)
	}
	return nil
}

// Signatures describes the built-in actions that steps can name.
func Signatures() []step.Signature {
	return []step.Signature{
		{Call: "facts", Inputs: map[string]string{}, Outputs: map[string]string{"facts": "any"}},
		{
			Call: "key", Inputs: map[string]string{"purpose": "string", "folder": "path"}, Outputs: map[string]string{"path": "path", "csr": "csr"},
			Optional: []string{"folder"},
		},
		{Call: "data_disk", Inputs: map[string]string{"mount": "path", "storage": "string", "size": "string", "overlay": "bool"}, Outputs: map[string]string{}},
	}
}
