package try_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joist/tests/artifacts"
)

// authority signs certificates for a control plane that lives for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.sign("ca", pkix.Name{CommonName: "test"})
	return a
}

// sign writes NAME.crt and NAME.key; the first one signed is the authority itself.
func (a *authority) sign(name string, subject pkix.Name) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage, template.IPAddresses = true, x509.KeyUsageCertSign, nil, nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
		a.key = key
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	for ending, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}, ".pub": {Type: "PUBLIC KEY", Bytes: public},
	} {
		write(a.t, filepath.Join(a.dir, name+ending), string(pem.EncodeToMemory(block)))
	}
}

func (a *authority) kubeconfig(name string) string {
	a.t.Helper()
	return write(a.t, filepath.Join(a.dir, name+".kubeconfig"), fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: %[1]s/ca.crt}}]
users: [{name: u, user: {client-certificate: %[1]s/%[2]s.crt, client-key: %[1]s/%[2]s.key}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, a.dir, name))
}

// controlPlane is an etcd and an apiserver, which listen on loopback alone.
type controlPlane struct {
	*authority
	set     *artifacts.Set
	control string // the bundle
}

func newControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	set := built(t)
	etcd := mount(t, set, "etcd")
	c := &controlPlane{set: set, control: mount(t, set, "kubernetes-control"), authority: newAuthority(t, t.TempDir())}
	c.sign("server", pkix.Name{CommonName: "kubernetes"})
	c.sign("accounts", pkix.Name{CommonName: "accounts"})
	c.sign("admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}})
	c.kubeconfig("admin")
	start(t, filepath.Join(etcd, "bin/etcd"), "--data-dir", c.file("etcd"), "--listen-client-urls", "http://127.0.0.1:2379",
		"--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380", "--logger", "zap")
	until(t, "is healthy", "sh", "-c", filepath.Join(etcd, "bin/etcdctl")+" --endpoints http://127.0.0.1:2379 endpoint health 2>&1")
	start(t, filepath.Join(c.control, "bin/kube-apiserver"), "--etcd-servers", "http://127.0.0.1:2379", "--bind-address", "127.0.0.1",
		"--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none", "--authorization-mode", "Node,RBAC", "--client-ca-file", c.file("ca.crt"),
		"--tls-cert-file", c.file("server.crt"), "--tls-private-key-file", c.file("server.key"), "--service-cluster-ip-range", "10.32.0.0/24",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", c.file("accounts.pub"),
		"--service-account-signing-key-file", c.file("accounts.key"))
	until(t, "ok", c.kubectl("get", "--raw", "/readyz")...)
	return c
}

// kubectl is a command line of an administrator.
func (c *controlPlane) kubectl(args ...string) []string {
	return append([]string{filepath.Join(c.control, "bin/kubectl"), "--kubeconfig", c.file("admin.kubeconfig")}, args...)
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) read(name string) string {
	a.t.Helper()
	text, err := os.ReadFile(a.file(name))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// A control plane answers, with the versions it was built from, its controllers and scheduler work, and the cluster's DNS knows its Services.
func TestControlPlane(t *testing.T) {
	if !inside(t) {
		return
	}
	a := newControlPlane(t)
	set, control, file, kubectl := a.set, a.control, a.file, a.kubectl
	a.sign("manager", pkix.Name{CommonName: "system:kube-controller-manager"})
	a.sign("scheduler", pkix.Name{CommonName: "system:kube-scheduler"})
	want := `"gitVersion": "v` + version(t, set, "kube-apiserver") + `"`
	if said := run(t, kubectl("version", "--output", "json")...); strings.Count(said, want) != 2 || !strings.Contains(said, `"minor": "36"`) {
		t.Errorf("kubectl and server say %s, want %s twice", said, want)
	}
	start(t, filepath.Join(control, "bin/kube-controller-manager"), "--kubeconfig", a.kubeconfig("manager"), "--bind-address", "127.0.0.1",
		"--service-account-private-key-file", file("accounts.key"), "--root-ca-file", file("ca.crt"), "--use-service-account-credentials")
	start(t, filepath.Join(control, "bin/kube-scheduler"), "--kubeconfig", a.kubeconfig("scheduler"), "--bind-address", "127.0.0.1")
	until(t, "default", kubectl("get", "serviceaccounts", "default", "--output", "name")...)
	run(t, kubectl("create", "deployment", "echo", "--image", "joist.internal/echo:1")...)
	// Without nodes the scheduler can only say that there are none; that takes the deployment's and the set's controllers, too.
	until(t, "no nodes available", kubectl("get", "pods", "--selector", "app=echo",
		"--output", `jsonpath={.items[0].status.conditions[?(@.type=="PodScheduled")].message}`)...)

	start(t, program(t, set, "coredns"), "-conf", write(t, file("Corefile"), fmt.Sprintf(`cluster.local:5353 {
  bind 127.0.0.1
  errors
  kubernetes {
    kubeconfig %s
  }
}
`, file("admin.kubeconfig"))))
	until(t, "10.32.0.1\n", "dig", "+short", "+time=1", "+tries=1", "-p", "5353", "@127.0.0.1", "kubernetes.default.svc.cluster.local")
}
