package serve_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const certifiedPack = `pack "p" {
  version  = "1.0.0"
  summary  = "Certificates that can be taken back."
  requires = { base = ">= 0.1.0" }
}

workflow "cluster" {
  role "m" {}
  input "csr" { type = csr }
  input "trusted" { type = bool }
  task "whole" {
    when = input.trusted
    step = base.certificate
    with = { csr = input.csr, profile = "client", common_name = "whole" }
  }
  task "named" {
    when = input.trusted
    step = base.certificate
    with = { csr = input.csr, profile = "client", common_name = "named", authority = "etcd" }
  }
  task "stays" {
    step = base.certificate
    with = { csr = input.csr, profile = "client", common_name = "stays", authority = "etcd" }
  }
  output "whole" { value = task.whole.certificate }
  output "named" { value = task.named.certificate }
  output "stays" { value = task.stays.certificate }
}
`

// certified is a certificate as a workflow's output.
type certified struct{ Leaf, Chain, Root string }

// fetch asks the engine's plain HTTP server, as peers do.
func fetch(t *testing.T, method, path string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+":8080"+path, nil)
	must(t, err)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, body
}

// revocations gives the list at a path as openssl shows it, and keeps it in PEM in a file.
func revocations(t *testing.T, path, file string) string {
	t.Helper()
	resp, der := fetch(t, "GET", path)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/pkix-crl" {
		t.Fatalf("%s: %s %v\n%s", path, resp.Status, resp.Header, der)
	}
	if head, body := fetch(t, "HEAD", path); head.StatusCode != http.StatusOK || len(body) != 0 || head.ContentLength != int64(len(der)) {
		t.Errorf("HEAD %s: %s, length %d of %d", path, head.Status, head.ContentLength, len(der))
	}
	cmd := exec.Command("openssl", "crl", "-inform", "DER", "-out", file)
	cmd.Stdin = bytes.NewReader(der)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl crl: %v\n%s", err, out)
	}
	return run(t, "openssl", "crl", "-in", file, "-noout", "-text")
}

// guarded runs an etcd that trusts an authority, less what is on the list in a file. It gives what asks it for something with a
// client's certificate and key.
func guarded(t *testing.T, ca, list string) func(cert, key string) error {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	run(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=etcd", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert)
	const url = "https://127.0.0.1:23790"
	cmd := exec.Command("etcd", "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", "http://127.0.0.1:23800", "--initial-advertise-peer-urls", "http://127.0.0.1:23800", "--initial-cluster", "default=http://127.0.0.1:23800",
		"--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", ca, "--client-crl-file", list)
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	trusted := x509.NewCertPool()
	text, err := os.ReadFile(cert)
	must(t, err)
	trusted.AppendCertsFromPEM(text)
	ask := func(cert, key string) error {
		own, err := tls.LoadX509KeyPair(cert, key)
		must(t, err)
		config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trusted, Certificates: []tls.Certificate{own}}
		resp, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}).Get(url + "/version")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:23790")
		if err == nil {
			must(t, conn.Close())
			return ask
		}
		if time.Now().After(deadline) {
			t.Fatalf("etcd does not listen: %v\n%s", err, out)
		}
	}
}

// TestRevocationLists: a certificate whose instance is removed is on its authority's list, openssl and a running etcd refuse it, and
// those that stay are good. A cluster that is gone has no list.
func TestRevocationLists(t *testing.T) {
	data, dir := filepath.Join(t.TempDir(), "data"), t.TempDir()
	e := start(t, data)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	in := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, in("p/pack.hcl"), []byte(certifiedPack))
	goal := func(trusted bool) {
		writeFile(t, in("demo.hcl"), fmt.Appendf(nil, "cluster \"demo\" {\n  workflow = p.cluster\n  packs    = { base = { source = \"builtin\" }, p = { source = \"./p\" } }\n"+
			"  nodes    = { m = [] }\n  with     = { trusted = %t, csr = %q }\n}\n", trusted, csr))
		e.want(0, "", "apply", in("demo.hcl"))
	}

	for _, path := range []string{"/crl/demo", "/crl/demo/etcd", "/crl/nobody"} {
		if resp, body := fetch(t, "GET", path); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s before there is a cluster: %s\n%s", path, resp.Status, body)
		}
	}
	goal(true)
	var had struct{ Whole, Named, Stays certified }
	must(t, json.Unmarshal([]byte(e.want(0, "", "outputs", "demo", "-o", "json")), &had))
	serial := func(name string, c certified) string {
		writeFile(t, in(name), []byte(c.Leaf))
		writeFile(t, in(name+".chain"), []byte(c.Chain))
		writeFile(t, in(name+".root"), []byte(c.Root))
		_, text, _ := strings.Cut(strings.TrimSpace(run(t, "openssl", "x509", "-in", in(name), "-noout", "-serial")), "=")
		if strings.Contains(run(t, "openssl", "x509", "-in", in(name), "-noout", "-text"), "CRL Distribution") {
			t.Errorf("%s names where its list is, and would need the engine", name)
		}
		return text
	}
	whole, named, stays := serial("whole", had.Whole), serial("named", had.Named), serial("stays", had.Stays)

	// lists fetches the lists and says whether the first two are on theirs.
	lists := func(when string, revoked bool) {
		t.Helper()
		demo, etcd := revocations(t, "/crl/demo", in("demo.crl")), revocations(t, "/crl/demo/etcd", in("etcd.crl"))
		revocations(t, "/crl", in("root.crl"))
		if strings.Contains(demo, whole) != revoked || strings.Contains(etcd, named) != revoked || strings.Contains(etcd, stays) || strings.Contains(demo, named) {
			t.Errorf("%s: serials are %s, %s, and of what stays %s\n%s%s", when, whole, named, stays, demo, etcd)
		}
		for _, c := range []struct {
			name string
			good bool
			crl  string
		}{{"whole", !revoked, "demo"}, {"named", !revoked, "etcd"}, {"stays", true, "etcd"}} {
			for _, check := range []string{"-crl_check", "-crl_check_all"} { // the latter is what nginx and HAProxy do
				out, err := exec.Command("openssl", "verify", check, "-CRLfile", in(c.crl+".crl"), "-CRLfile", in("root.crl"),
					"-CAfile", in(c.name+".root"), "-untrusted", in(c.name+".chain"), in(c.name)).CombinedOutput()
				if c.good != (err == nil) || !c.good && !strings.Contains(string(out), "certificate revoked") {
					t.Errorf("%s: openssl verify %s says of %s: %v\n%s", when, check, c.name, err, out)
				}
			}
		}
	}
	lists("while all are trusted", false)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	writeFile(t, in("key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	server := guarded(t, in("named.chain"), in("etcd.crl"))
	for _, name := range []string{"named", "stays"} {
		if err := server(in(name), in("key")); err != nil {
			t.Errorf("etcd does not serve %s, which is trusted: %v", name, err)
		}
	}
	goal(false)
	lists("when two are removed", true)
	if err := server(in("named"), in("key")); err == nil {
		t.Error("etcd serves the bearer of a revoked certificate")
	}
	if err := server(in("stays"), in("key")); err != nil {
		t.Errorf("etcd does not serve who stays: %v", err)
	}
	e.stop()
	e = start(t, data)
	lists("after a restart", true)

	e.want(0, "destroyed", "destroy", "demo", "--yes")
	e.want(0, "forgotten: demo", "forget", "demo")
	for _, path := range []string{"/crl/demo", "/crl/demo/etcd"} {
		if resp, body := fetch(t, "GET", path); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s of a forgotten cluster: %s\n%s", path, resp.Status, body)
		}
	}
	if left, err := filepath.Glob(filepath.Join(data, "ca", "cluster-*")); err != nil || len(left) > 0 {
		t.Errorf("to ask for a list made %v, %v", left, err)
	}
	e.stop()
}
