package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"joist/cmd/joist/layout"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
)

func (a *app) certCommand() *cobra.Command {
	var dir string
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "cert",
		Short: "Get a client certificate for a cluster",
		Long: `cert makes a key here, which never leaves this machine, and asks the engine for a short-lived client certificate of the
cluster. It writes key.pem (mode 0600), cert.pem (leaf and chain) and ca.pem (the root).`,
		Example: "  joist cert --cluster demo --dir demo-pki\n  etcdctl --cert demo-pki/cert.pem --key demo-pki/key.pem --cacert demo-pki/ca.pem endpoint health",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := a.pick(cmd.Context(), a.cluster)
			if err != nil {
				return err
			}
			if dir == "" {
				dir = name + "-pki"
			}
			key, csr, err := makeKey()
			if err != nil {
				return err
			}
			request := v1.CertificateRequest{CSR: string(csr)}
			if ttl > 0 {
				request.TTL = ttl.String()
			}
			cert, err := a.api.Certify(cmd.Context(), name, request)
			if err != nil {
				return err
			}
			files := map[string]string{"key": filepath.Join(dir, "key.pem"), "cert": filepath.Join(dir, "cert.pem"), "ca": filepath.Join(dir, "ca.pem")}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("cannot make the folder for the certificate: %w", err)
			}
			if err := errors.Join(
				replaceFile(files["key"], key, 0o600),
				replaceFile(files["cert"], []byte(cert.Leaf+cert.Chain), 0o644),
				replaceFile(files["ca"], []byte(cert.Root), 0o644),
			); err != nil {
				return err
			}
			if done, err := a.json(struct {
				Cluster  string            `json:"cluster"`
				Files    map[string]string `json:"files"`
				NotAfter time.Time         `json:"not_after"`
			}{name, files, cert.NotAfter}); done {
				return err
			}
			a.printf("client certificate of cluster %s, ends %s\n", name, a.when(cert.NotAfter))
			layout.Table(a.Out, [][]string{{"  key", files["key"]}, {"  certificate", files["cert"]}, {"  root", files["ca"]}})
			return nil
		},
	}
	a.clusterFlag(c)
	c.Flags().StringVar(&dir, "dir", "", "folder for the files (default CLUSTER-pki)")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long it shall live (default the engine's)")
	return c
}

// makeKey makes a P-256 key and a request for a certificate of it, both PEM.
func makeKey() (key, csr []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot encode the key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "operator"}}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), nil
}

// replaceFile writes a file whole or not at all, never with a wider mode than asked for.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".joist-*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}
