// Package etcd tests certificates and balancer together with real members and a real client of etcd.
package etcd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/entries"
	"joist/engine/step"
	"joist/pki/authority"
	"joist/services/balance"
	"joist/services/balance/tcp"
	"joist/services/certs"
)

// anyName is an inventory that knows two clusters and lets them have any name.
type anyName struct{}

func (anyName) Allowed(_ context.Context, cluster, _ string, _ []string) error {
	if cluster != "demo" && cluster != "other" {
		return fmt.Errorf("there is no cluster %s", cluster)
	}
	return nil
}

type lab struct {
	dir   string
	certs *certs.Service
	front *balance.Service
}

func newLab(t *testing.T) *lab {
	t.Helper()
	for _, tool := range []string{"etcd", "etcdctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s (Debian: etcd-server and etcd-client): %v", tool, err)
		}
	}
	dir := t.TempDir()
	vault, err := authority.OpenFolder(filepath.Join(dir, "keys"), "")
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := authority.OpenLedger(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	a, err := authority.Open(t.Context(), authority.Config{Vault: vault, Ledger: ledger, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{dir: dir}
	store := &entries.Memory{}
	if l.certs, err = certs.New(certs.Config{Authority: a, Store: store, Inventory: anyName{}, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	driver, err := tcp.New(tcp.Config{Interval: 100 * time.Millisecond, Fall: 2, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = driver.Close(ctx)
	})
	l.front, err = balance.New(balance.Config{
		Store: store, Driver: driver, Log: log, Frontends: balance.Prefix(netip.MustParsePrefix("127.77.0.0/30")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keyPair makes a key and its request, as a node does.
func keyPair(t *testing.T) (key, csr string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
}

// write puts a certificate and its key into files. The CA file holds the cluster's intermediate: who trusts the root
// would let every other cluster's clients in.
func (l *lab) write(t *testing.T, name, key string, c authority.Certificate) (cert, keyFile, ca string) {
	t.Helper()
	files := map[string]string{"crt": c.Leaf + c.Chain, "key": key, "ca": c.Chain}
	for suffix, text := range files {
		files[suffix] = filepath.Join(l.dir, name+"."+suffix)
		if err := os.WriteFile(files[suffix], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files["crt"], files["key"], files["ca"]
}

func (l *lab) call(t *testing.T, name, owner string, in, out any) {
	t.Helper()
	h, ok := l.certs.Handlers()[name]
	if !ok {
		h = l.front.Handlers()[name]
	}
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	_, node, _ := strings.Cut(strings.TrimSuffix(owner, "]"), "[")
	r, err := h.Call(t.Context(), step.Call{Name: name, Action: step.Apply, Cluster: "demo", Owner: owner, Node: node, Epoch: 1, Inputs: raw})
	if err != nil {
		t.Fatal(err)
	}
	if out != nil {
		if err := json.Unmarshal(r.Outputs, out); err != nil {
			t.Fatal(err)
		}
	}
}

// member is one etcd process.
type member struct {
	name         string
	client, peer netip.AddrPort
	cmd          *exec.Cmd
	log          bytes.Buffer
}

func (m *member) kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func (l *lab) members(t *testing.T, n int) []*member {
	t.Helper()
	var list []*member
	for i := range n {
		list = append(list, &member{name: fmt.Sprint("n", i), client: freePort(t), peer: freePort(t)})
	}
	l.start(t, list)
	return list
}

// start runs a new cluster of members.
func (l *lab) start(t *testing.T, list []*member) {
	t.Helper()
	var initial []string
	for _, m := range list {
		initial = append(initial, fmt.Sprintf("%s=https://%s", m.name, m.peer))
	}
	for _, m := range list {
		key, csr := keyPair(t)
		var out struct{ Certificate authority.Certificate }
		l.call(t, "certs.sign", "demo/cert["+m.name+"]",
			map[string]any{"csr": csr, "profile": "peer", "names": slices.Compact([]string{m.name + ".demo.lab", "127.0.0.1", m.client.Addr().String(), "127.77.0.1"})}, &out)
		cert, keyFile, ca := l.write(t, m.name, key, out.Certificate)
		m.cmd = exec.Command("etcd", "--name", m.name, "--data-dir", filepath.Join(l.dir, m.name),
			"--listen-client-urls", "https://"+m.client.String(), "--advertise-client-urls", "https://"+m.client.String(),
			"--listen-peer-urls", "https://"+m.peer.String(), "--initial-advertise-peer-urls", "https://"+m.peer.String(),
			"--initial-cluster", strings.Join(initial, ","), "--logger", "zap", "--unsafe-no-fsync",
			"--cert-file", cert, "--key-file", keyFile, "--trusted-ca-file", ca, "--client-cert-auth",
			"--peer-cert-file", cert, "--peer-key-file", keyFile, "--peer-trusted-ca-file", ca, "--peer-client-cert-auth")
		m.cmd.Stderr = &m.log
		if err := m.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			m.kill()
			if t.Failed() {
				t.Logf("%s: %s", m.name, m.log.String()[max(0, m.log.Len()-2000):])
			}
		})
	}
}

// operator makes the files of an operator of a cluster.
func (l *lab) operator(t *testing.T, cluster string) (cert, key, ca string) {
	t.Helper()
	private, csr := keyPair(t)
	c, err := l.certs.Operator(t.Context(), cluster, certs.Person{CSR: []byte(csr)})
	if err != nil {
		t.Fatal(err)
	}
	return l.write(t, "operator-"+cluster, private, c)
}

func etcdctl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "etcdctl", append([]string{"--dial-timeout=3s", "--command-timeout=6s"}, args...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	// What it prints on the side, as of an election it sat out, is no answer.
	var side bytes.Buffer
	cmd.Stderr = &side
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(side.String()))
	}
	return strings.TrimSpace(string(out)), err
}

func TestThroughTheFront(t *testing.T) {
	l := newLab(t)
	list := l.members(t, 3)
	var front struct{ URL string }
	l.call(t, "balance.front", "demo/front", map[string]any{"name": "etcd.demo.lab", "port": 23779}, &front)
	for _, m := range list {
		l.call(t, "balance.backend", "demo/backend["+m.name+"]",
			map[string]any{"front": front.URL, "address": m.client.Addr(), "port": m.client.Port()}, nil)
	}
	cert, key, ca := l.operator(t, "demo")
	at := "--endpoints=https://127.77.0.1:23779"
	as := []string{at, "--cert", cert, "--key", key, "--cacert", ca}
	for end := time.Now().Add(30 * time.Second); ; { // a member says where it is reached a moment after it serves
		out, err := etcdctl(t, append(as, "endpoint", "health", "--cluster", "-w", "json")...)
		if err == nil && strings.Count(out, `"health":true`) == 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("health: %v\n%s", err, out)
		}
	}
	if out, err := etcdctl(t, append(as, "put", "greeting", "hello")...); err != nil || out != "OK" {
		t.Errorf("put: %v\n%s", err, out)
	}
	list[0].kill()
	for range 4 { // whichever backend it was
		if out, err := etcdctl(t, append(as, "get", "greeting", "--print-value-only")...); err != nil || out != "hello" {
			t.Errorf("get with a dead member: %v\n%s", err, out)
		}
	}

	if out, err := etcdctl(t, at, "--cacert", ca, "get", "greeting"); err == nil {
		t.Errorf("served without a certificate:\n%s", out)
	}
	otherCert, otherKey, _ := l.operator(t, "other")
	if out, err := etcdctl(t, at, "--cacert", ca, "--cert", otherCert, "--key", otherKey, "get", "greeting"); err == nil {
		t.Errorf("served the operator of another cluster:\n%s", out)
	}
	for _, m := range list[1:] {
		m.kill()
	}
	started := time.Now()
	for refused := false; !refused; {
		c, err := net.DialTimeout("tcp", "127.77.0.1:23779", time.Second)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(2 * time.Second))
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		refused = err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
		if time.Since(started) > 20*time.Second {
			t.Fatal("a front without members does not refuse")
		}
	}
}
