package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"joist/cmd/joist/layout"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
)

// access is what a workflow's output of that name says of how people reach the cluster.
type access struct {
	URL       string   `json:"url"`
	Authority string   `json:"authority"` // that vouches for people and for the server
	Groups    []string `json:"groups"`    // what makes a person an operator there
}

func (a *app) kubeconfigCommand() *cobra.Command {
	var file string
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "kubeconfig CLUSTER",
		Short: "Get a kubeconfig for a Kubernetes cluster",
		Long: `kubeconfig makes a key here, which never leaves this machine, has the engine certify it for a few hours, and writes a
kubeconfig (mode 0600) with key, certificate, the server's URL and the authority that vouches for it.`,
		Example: "  joist kubeconfig demo --file demo.kubeconfig\n  kubectl --kubeconfig demo.kubeconfig get nodes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			outputs, err := a.api.Outputs(cmd.Context(), name)
			if err != nil {
				return err
			}
			var to access
			raw := outputs.Values["access"]
			if err := json.Unmarshal(raw, &to); err != nil || to.URL == "" || to.Authority == "" {
				return fmt.Errorf("cluster %s does not say how people reach it: its workflow has no output access, or that is not known yet (joist status %s)", name, name)
			}
			key, csr, err := makeKey()
			if err != nil {
				return err
			}
			request := v1.CertificateRequest{CSR: string(csr), Authority: to.Authority, Groups: to.Groups}
			if ttl > 0 {
				request.TTL = ttl.String()
			}
			cert, err := a.api.Certify(cmd.Context(), name, request)
			if err != nil {
				return err
			}
			config, err := kubeconfig(name, to.URL, *cert, key)
			if err != nil {
				return err
			}
			if file == "" {
				file = name + ".kubeconfig"
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), replaceFile(file, config, 0o600)); err != nil {
				return err
			}
			if done, err := a.json(struct {
				Cluster  string    `json:"cluster"`
				File     string    `json:"file"`
				NotAfter time.Time `json:"not_after"`
			}{name, file, cert.NotAfter}); done {
				return err
			}
			a.printf("kubeconfig of cluster %s, ends %s\n", name, a.when(cert.NotAfter))
			layout.Table(a.Out, [][]string{{"  file", file}, {"  server", to.URL}})
			return nil
		},
	}
	c.Flags().StringVar(&file, "file", "", "where to write it (default CLUSTER.kubeconfig)")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long it shall live (default the engine's)")
	return c
}

// kubeconfig is the file, in JSON, which is YAML as well.
func kubeconfig(name, url string, cert v1.Certificate, key []byte) ([]byte, error) {
	data := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	type object map[string]any
	text, err := json.MarshalIndent(object{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": []object{{"name": name, "cluster": object{"server": url, "certificate-authority-data": data(cert.Chain)}}},
		"users": []object{{"name": "operator", "user": object{
			"client-certificate-data": data(cert.Leaf + cert.Chain), "client-key-data": data(string(key)),
		}}},
		"contexts": []object{{"name": name, "context": object{"cluster": name, "user": "operator"}}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot write a kubeconfig: %w", err)
	}
	return append(text, '\n'), nil
}
