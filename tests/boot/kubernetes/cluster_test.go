package kubernetes_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"joist/tests/boot/lab"
)

// TestCluster is one control-plane machine and two workers from power-on, and what must hold of the cluster that they become.
// Where JOIST_BENCH_CONTROL gives a number of control-plane machines (make bench does, with -control), that many come up with
// two workers, and nothing but the figures of that is asked of them.
func TestCluster(t *testing.T) {
	l := newLab(t)
	if n := os.Getenv("JOIST_BENCH_CONTROL"); n != "" {
		l.measured(n)
		return
	}
	l.machine("n1", controlMemory)
	l.machine("n2", workerMemory)
	l.machine("n3", workerMemory)
	l.first("bring-up", func(l *own) {
		o := l.Pursue("converged", "apply", l.file(goal{control: []string{"n1"}, worker: []string{"n2", "n3"}}))
		l.Logf("%d steps done, %d attempts failed", o.Done, o.Failures)
		l.retries()
		l.Logf("\n%s", l.Must("path", "demo"))
		l.figures(1, "n2", "n3")
		l.Unchanged("demo")
		l.SameHost("during")
	})
	l.sub("smoke", (*own).smoke)
	l.first("clients", func(l *own) {
		l.client()
		l.nodes("n2", "n3")
		l.limited()
		l.anonymous()
		l.bounded()
	})
	l.sub("secrecy", (*own).secrecy)
	l.sub("liar", (*own).liar)
	l.sub("destroy", func(l *own) {
		l.Pursue("destroyed", "destroy", "demo", "--yes")
		l.Free("demo", 3)
	})
}

// retries tells which attempts failed.
func (l *own) retries() {
	l.Helper()
	l.Each(func(e *lab.Event) {
		if e.Kind == "failed" {
			why, _, _ := strings.Cut(e.Error, "\n")
			l.Logf("  %s: attempt %d of %s failed: %s", e.Time.Format("15:04:05"), e.Attempt, e.Instance(), why)
		}
	})
}

// limited wants that the client's certificate ends soon, and its key is nobody else's.
func (l *own) limited() {
	l.Helper()
	var c struct {
		Users []struct {
			User struct {
				Certificate string `json:"client-certificate-data"`
			}
		}
	}
	if err := json.Unmarshal([]byte(l.k("config", "view", "--raw", "-o", "json")), &c); err != nil || len(c.Users) != 1 {
		l.Fatalf("the kubeconfig: %v", err)
	}
	raw, err := base64.StdEncoding.DecodeString(c.Users[0].User.Certificate)
	block, _ := pem.Decode(raw)
	if err != nil || block == nil {
		l.Fatalf("the client's certificate is not PEM: %v", err)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		l.Fatal(err)
	}
	if left := time.Until(cert.NotAfter); left > 2*time.Hour || left < time.Hour {
		l.Errorf("the client's certificate is valid for %s more, want two hours at most", left)
	}
	if got := strings.Join(cert.Subject.Organization, " "); got != "joist:operators" {
		l.Errorf("the client's groups are %q", got)
	}
	if server := l.k("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"); server != "https://api.demo.lab:6443" {
		l.Errorf("the client asks %s, want the balancer's name", server)
	}
	l.Logf("a client of %s, %s", cert.Subject, cert.NotAfter.Sub(cert.NotBefore))
}

// anonymous wants that nobody gets more without a name than to know whether the server is well.
func (l *own) anonymous() {
	l.Helper()
	for path, want := range map[string]string{
		"/healthz": "200", "/livez": "200", "/readyz": "200",
		"/": "401", "/version": "401", "/api": "401", "/api/v1/nodes": "401", "/openapi/v3": "401", "/metrics": "401", "/api/v1/namespaces/kube-system/secrets": "401",
		"/.well-known/openid-configuration": "401", "/logs/": "401",
	} {
		for _, host := range []string{"api.demo.lab", l.address("n1")} {
			got := l.MustInside("curl", "-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "https://"+host+":6443"+path)
			if got != want {
				l.Errorf("somebody without a name gets %s for %s of %s, want %s", got, path, host, want)
			}
		}
	}
	for _, path := range []string{"/pods", "/metrics", "/run/x/y/z"} {
		if got := l.MustInside("curl", "-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "https://"+l.address("n2")+":10250"+path); got != "401" {
			l.Errorf("somebody without a name gets %s for %s of a kubelet", got, path)
		}
	}
}

// bounded wants that a worker's kubelet may do what is its own and nothing else, that it is written down who changed what, and
// that Services are nftables' work.
func (l *own) bounded() {
	l.Helper()
	for _, c := range []struct{ what, want, args string }{
		{"its own node", "200", "https://api.demo.lab:6443/api/v1/nodes/n2"},
		{"secrets that no pod of it uses", "403", "https://api.demo.lab:6443/api/v1/namespaces/kube-system/secrets"},
		{"another node's labels", "403", `-X PATCH -H "Content-Type: application/merge-patch+json" -d "{\"metadata\":{\"labels\":{\"a\":\"b\"}}}" https://api.demo.lab:6443/api/v1/nodes/n3`},
		{"another kubelet's pods", "403", "https://" + l.address("n3") + ":10250/pods"},
	} {
		got := l.on("n2", "curl -sk --max-time 20 -o /dev/null -w '%{http_code}' --cert /etc/kubernetes/identities/kubelet/cert.pem --key "+keyOf("kubelet")+" "+c.args)
		if got != c.want {
			l.Errorf("the kubelet of n2 gets %s for %s, want %s", got, c.what, c.want)
		}
	}
	if n := l.on("n1", "grep -c '\"kind\":\"Event\"' /var/log/kubernetes/audit.log"); n == "" || n == "0" {
		l.Errorf("the audit log has %q events", n)
	}
	if out := l.on("n2", "nft list table ip kube-proxy | grep -c default/kubernetes"); out == "" || out == "0" {
		l.Errorf("nftables has no Service default/kubernetes on n2: %q", out)
	}
}

// keyOf is where a node keeps the key of a purpose that needs no data disk.
func keyOf(purpose string) string { return "/var/lib/joist/keys/" + purpose + ".key" }
