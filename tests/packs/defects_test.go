package packs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"joist/engine/drive"
	"joist/engine/entries"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/pki/authority"
	"joist/services/certs"
)

// rendered is a cluster whose scripts ran for real on stages, with real keys and certificates.
type rendered struct {
	t      *testing.T
	like   *rendered // whose outputs stand for scripts that are not looked at; nil if all scripts run
	tasks  []string  // that are looked at
	model  *model.Model
	nodes  map[string]*stage
	over   <-chan struct{} // closed at the end of the bubble
	mu     sync.Mutex
	orders map[history.Target]drive.Order // the last apply of each, of those whose scripts ran
	yields map[history.Target]json.RawMessage
	sent   []string // all that left the engine towards nodes, as text
}

// anyName implements certs.Inventory: which names a node may carry is tested elsewhere.
type anyName struct{}

func (anyName) Allowed(context.Context, string, string, []string) error { return nil }

// The networks and names are other ones than the pack's defaults, so that nothing is right by chance.
const otherNetworks = `service_cidr = "10.96.0.0/16"
    pod_cidr = "10.64.0.0/16"
    cluster_domain = "kube.example"
    max_pods = 90`

// render brings a cluster up, one control-plane machine and two workers, with files of packs altered. Only what happens on
// one worker is looked at.
func (r *rendered) render(t *testing.T, change map[string]func(string) string) {
	t.Helper()
	r.t, r.nodes, r.orders, r.yields = t, map[string]*stage{}, map[history.Target]drive.Order{}, map[history.Target]json.RawMessage{}
	for name, address := range map[string]string{"c1": "10.77.0.11", "w5": "10.77.0.15"} {
		r.nodes[name] = newStage(t, name, address)
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.Close()
		r.over = t.Context().Done()
		vault, err := authority.OpenFolder(filepath.Join(dir, "keys"), "")
		if err != nil {
			t.Fatal(err)
		}
		ledger, err := authority.OpenLedger(filepath.Join(dir, "ledger"))
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		root, err := authority.Open(t.Context(), authority.Config{Vault: vault, Ledger: ledger, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		signer, err := certs.New(certs.Config{Authority: root, Store: &entries.Memory{}, Inventory: anyName{}, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		b.sign, b.perform = signer.Handlers()["certs.sign"], r.perform
		b.up("c1", "w5", "w6")
		r.model = must(t, goal(1, 2), otherNetworks, change)
		b.pursue(r.model, goal(1, 2))
		r.sent = b.sent
	})
}

// perform runs what is looked at; the rest yields what it did before, or what it does on the worker that is looked at.
func (r *rendered) perform(o drive.Order) (json.RawMessage, error) {
	at := r.nodes[o.Agent]
	if o.Step.Apply.Builtin == "key" && at == nil {
		_, out, err := newKey(o.Clear)
		return out, err
	}
	if at == nil {
		for range 600 { // of the bubble's seconds, which do not pass while a script runs
			r.mu.Lock()
			out := r.yields[history.Target{Task: o.Task, Node: "w5"}]
			r.mu.Unlock()
			if out != nil {
				return out, nil
			}
			select {
			case <-time.After(time.Second):
			case <-r.over:
				return nil, context.Canceled
			}
		}
		return nil, fmt.Errorf("%s never ran on w5", o.Task)
	}
	real := o.Step.Apply.Builtin != "" || r.like == nil || slices.Contains(r.tasks, o.Task)
	var out json.RawMessage
	var err error
	if real {
		out, err = at.perform(o)
	} else {
		out = r.like.yields[o.Target]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.yields[o.Target] = out; real {
		r.orders[o.Target] = o
	}
	return out, err
}

// input reads an input of an instance as it reached the node.
func (r *rendered) input(task, node, name string, v any) {
	r.t.Helper()
	o, ok := r.orders[history.Target{Task: task, Node: node}]
	if !ok {
		r.t.Fatalf("%s[%s] never ran", task, node)
	}
	if err := json.Unmarshal(o.Clear[name], v); err != nil {
		r.t.Fatalf("input %s of %s[%s]: %v", name, task, node, err)
	}
}

// flags gives the arguments of the program that a unit of a node starts, and the program.
func (r *rendered) flags(node, unit string) (program string, flags map[string]string) {
	text := strings.ReplaceAll(r.nodes[node].read("/etc/systemd/system/"+unit+".service"), "\\\n", " ")
	flags = map[string]string{}
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
		if !ok {
			continue
		}
		words := strings.Fields(command)
		program = words[0]
		for i, word := range words[1:] {
			name, value, joined := strings.Cut(word, "=")
			if !joined && i+2 < len(words) && !strings.HasPrefix(words[i+2], "--") {
				value = words[i+2] // etcd has them apart
			}
			flags[name] = value
		}
	}
	return program, flags
}

// certificate reads the first certificate of a file of a node, nil if there is none.
func (r *rendered) certificate(node, file string) *x509.Certificate {
	block, _ := pem.Decode([]byte(r.nodes[node].read(file)))
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

// object gives the text of an object in what kubectl was given, empty if it was given none of that kind and name.
func (r *rendered) object(kind, name string) string {
	named := regexp.MustCompile(`(?m)^kind: ` + kind + `\nmetadata: \{ name: ` + name + `\b`)
	for _, text := range r.nodes["c1"].files("/log") {
		for object := range strings.SplitSeq(text, "\n---\n") {
			if named.MatchString(object) {
				return object
			}
		}
	}
	return ""
}

// between gives what stands in a text between two others, at their first places.
func between(text, begin, end string) string {
	_, rest, _ := strings.Cut(text, begin)
	found, _, _ := strings.Cut(rest, end)
	return found
}

func (r *rendered) kubelet(node, field string) string {
	for line := range strings.Lines(r.nodes[node].read("/etc/kubernetes/kubelet/config.yaml")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+": "); ok {
			return value
		}
	}
	return ""
}

func expect(what, got, want string) error {
	if got != want {
		return fmt.Errorf("%s is %q, not %q", what, got, want)
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// plant alters one place of a file of a pack: the defect. Found is what the check says of it.
type plant struct{ file, old, new, found string }

// defect is a way in which clusters that were built by hand were wrong. Its check passes for the pack as it is, and fails
// for the pack with any of the plants.
type defect struct {
	name   string
	check  func(r *rendered) error
	tasks  string // that the check looks at
	plants []plant
}

var (
	placeholder = regexp.MustCompile(`SUBNET|POD_CIDR|\{\{|\$\{?[a-z_]+\}?`)
	release     = regexp.MustCompile(`^[0-9]+(\.[0-9]+){0,2}$`)
)

func defects() []defect {
	return []defect{
		{"1 the service network is the apiserver's own and in its certificate", serviceNetwork, "apiserver serving_files", []plant{
			{"kubernetes/files/apiserver.sh", "  --service-cluster-ip-range=$cidr \\\\\n", "", "--service-cluster-ip-range is"},
			{"kubernetes/cluster.hcl", "cidrhost(input.service_cidr, 1), ", "", "10.96.0.1"},
		}},
		{"2 every private key is made where it is used", keysStay, "apiserver controllers etcd.member kubelet proxy serving_files kubelet_files kubelet_serving_files " +
			"etcd_client.files kubelet_client.files proxy_client.files manager.files scheduler.files proxy_user.files", []plant{
			{"kubernetes/files/kubelet.sh", `tlsPrivateKeyFile: "$serving_key"`, `tlsPrivateKeyFile: "$serving/key.pem"`, "was not made there"},
			{"kubernetes/cluster.hcl", "csr       = task.kubelet_serving_key.csr", "csr       = task.kubelet_key.csr", "is not of the key"},
		}},
		{"3 etcd has members that authenticate each other and their clients", etcdMembers, "apiserver etcd.member serving_files etcd_client.files", []plant{
			{"etcd/files/member.sh", "--listen-client-urls https://0.0.0.0:2379", "--listen-client-urls http://127.0.0.1:2379", "--listen-client-urls"},
			{"etcd/files/member.sh", "--client-cert-auth ", "", "lets anybody in"},
			{"kubernetes/cluster.hcl", "= task.etcd.client_url\n", "= task.etcd.url\n", "the member beside it"},
			{"kubernetes/cluster.hcl", `authority = "etcd", programs`, `authority = "kubernetes", programs`, "no authority of its own"},
		}},
		{"4 the cluster has DNS, and kubelets know where", clusterDNS, "kubelet dns", []plant{
			{"kubernetes/files/kubelet.sh", "clusterDNS: [\"$dns\"]\n", "", "clusterDNS is"},
			{"kubernetes/cluster.hcl", "clusterIP: ${cidrhost(input.service_cidr, 10)}", "clusterIP: 10.32.0.10", "Service kube-dns is"},
			{"kubernetes/cluster.hcl", "kubernetes ${input.cluster_domain} in-addr.arpa", "kubernetes cluster.local in-addr.arpa", "the domain that CoreDNS knows is"},
			{"kubernetes/cluster.hcl", "selector: { k8s-app: kube-dns }\n          ports", "selector: { k8s-app: core-dns }\n          ports", "what pods of CoreDNS are called is"},
			{"kubernetes/cluster.hcl", "kind: Deployment\n        metadata: { name: coredns,", "kind: Deployment\n        metadata: { name: dns,", "what pods of CoreDNS are called is"},
		}},
		{"5 the apiserver passes requests on to extensions", frontProxy, "apiserver serving_files proxy_client.files", []plant{
			{"kubernetes/files/apiserver.sh", " --enable-aggregator-routing=true", "", "--enable-aggregator-routing is"},
			{"kubernetes/cluster.hcl", `authority = "front-proxy", common_name`, `authority = "kubernetes", common_name`, "could name another one"},
		}},
		{"6 the issuer of tokens is a name that pods resolve", tokenIssuer, "apiserver serving_files", []plant{
			{"kubernetes/cluster.hcl", `"https://kubernetes.default.svc.${input.cluster_domain}"`, `"https://server.kubernetes.local:6443"`, "the issuer is"},
		}},
		{"7 a node's certificate has its address", nodeAddress, "apiserver kubelet kubelet_serving_files kubelet_client.files", []plant{
			{"kubernetes/cluster.hcl", "names     = [task.name.fqdn, node.address]", "names     = [task.name.fqdn]", "10.77.0.15"},
		}},
		{"8 each worker has its own part of the pods' network, and as many pods as fit", podNetwork, "bridge kubelet runtime", []plant{
			{"kubernetes/files/bridge.sh", `"subnet": "$network"`, `"subnet": "SUBNET"`, "still says"},
			{"kubernetes/files/kubelet.sh", "maxPods: $pods", "maxPods: 110", "maxPods of w5 is"},
		}},
		{"9 programs are releases, and come from artifacts that are checked", releases, "apiserver controllers etcd.member programs runtime kubelet proxy", []plant{
			{"kubernetes/pack.hcl", `version = "2.2.9"`, `version = "2.2.0-beta.0"`, "is no release"},
			{"kubernetes/files/containerd.sh", "ExecStart=$bundle/bin/containerd", "ExecStart=/usr/local/bin/containerd", "which nobody checked"},
		}},
		{"10 what was done is done again without harm, and units survive a boot", repeatable, "host hosts network endpoint runtime bridge kubelet", []plant{
			{"kubernetes/files/routes.sh", "ip route replace", "ip route add", "the second time"},
			{"base/files/hosts.sh", "{ others; wanted; }", "{ cat \"$hosts\"; wanted; }", "/etc/hosts"},
			{"kubernetes/files/bridge.sh", "delete table ip joist-pods\n", "", "masquerades 2 times"},
			{"kubernetes/files/lib.sh", "ln -sf \"$file\"", ": \"$file\"", "does not start at a boot"},
			{"kubernetes/files/containerd.sh", `bin_dirs = ["$bundle/cni"]`, `bin_dirs = ["/root/cni-plugins"]`, "finds no plugin"},
		}},
		{"11 secrets lie encrypted in etcd, by secretbox", encryption, "apiserver", []plant{
			{"kubernetes/files/apiserver.sh", "secretbox: { keys", "aescbc: { keys", "not encrypted by secretbox"},
			{"kubernetes/files/apiserver.sh", "  --encryption-provider-config=$cred/encryption.yaml \\\\\n", "", "--encryption-provider-config is"},
		}},
		{"12 no API that is alpha is on", stableAPIs, "apiserver controllers kubelet proxy", []plant{
			{"kubernetes/files/apiserver.sh", "--allow-privileged=true", "--allow-privileged=true --runtime-config=api/all=true", "--runtime-config of"},
			{"kubernetes/files/apiserver.sh", "--allow-privileged=true", "--allow-privileged=true --feature-gates=AllAlpha=true", "--feature-gates of"},
			{"kubernetes/files/kubelet.sh", "failSwapOn: true", "failSwapOn: true\nfeatureGates: { AllAlpha: true }", "/kubelet/config.yaml has"},
			{"kubernetes/files/proxy.sh", "mode: nftables", "mode: nftables\nfeatureGates: { AllAlpha: true }", "/proxy/config.yaml has"},
		}},
	}
}

// TestDefects holds the pack to the defects that a cluster built by hand had, each planted once to see that it is found.
func TestDefects(t *testing.T) {
	whole := &rendered{}
	whole.render(t, nil)
	for _, d := range defects() {
		t.Run(d.name, func(t *testing.T) {
			whole.t = t
			if err := d.check(whole); err != nil {
				t.Error(err)
			}
		})
	}
	for _, d := range defects() {
		for i, p := range d.plants {
			t.Run(fmt.Sprintf("planted %s, %d", d.name, i+1), func(t *testing.T) {
				t.Parallel()
				planted := false
				r := &rendered{like: whole, tasks: strings.Fields(d.tasks)}
				r.render(t, map[string]func(string) string{p.file: func(s string) string {
					planted = strings.Contains(s, p.old)
					return strings.Replace(s, p.old, p.new, 1)
				}})
				if !planted {
					t.Fatalf("%s has no %q any more: plant the defect where it would be now", p.file, p.old)
				}
				if err := d.check(r); err == nil || !strings.Contains(err.Error(), p.found) {
					t.Errorf("%q instead of %q was not noticed, but: %v", p.new, p.old, err)
				}
			})
		}
	}
}

func serviceNetwork(r *rendered) error {
	_, api := r.flags("c1", "joist-apiserver")
	c := r.certificate("c1", api["--tls-cert-file"])
	if c == nil {
		return fmt.Errorf("the apiserver has no certificate at %s", api["--tls-cert-file"])
	}
	return first(
		expect("--service-cluster-ip-range", api["--service-cluster-ip-range"], "10.96.0.0/16"),
		c.VerifyHostname("10.96.0.1"), c.VerifyHostname("kubernetes.default.svc.kube.example"), c.VerifyHostname("kubernetes.default.svc"),
		c.VerifyHostname("10.77.0.11"), c.VerifyHostname("127.0.0.1"), c.VerifyHostname("api.demo.lab"),
	)
}

// keyFiles gives the private keys that units and configurations of a node name, each with the certificate that goes with it.
func (r *rendered) keyFiles(node string) map[string]string {
	found := map[string]string{}
	credential := regexp.MustCompile(`LoadCredential=(\S+):(\S+)`)
	yaml := regexp.MustCompile(`(?:client-certificate: "([^"]*)", client-key: "([^"]*)"|tlsCertFile: "([^"]*)"\s+tlsPrivateKeyFile: "([^"]*)")`)
	certificate := map[string]string{
		"--tls-private-key-file": "--tls-cert-file", "--etcd-keyfile": "--etcd-certfile", "--kubelet-client-key": "--kubelet-client-certificate",
		"--proxy-client-key-file": "--proxy-client-cert-file", "--key-file": "--cert-file", "--peer-key-file": "--peer-cert-file",
		"--service-account-signing-key-file": "",
	}
	for name, text := range r.nodes[node].files("/etc/systemd/system", "/etc/kubernetes") {
		loaded := map[string]string{}
		for _, m := range credential.FindAllStringSubmatch(text, -1) {
			loaded[m[1]] = m[2]
		}
		unit, isUnit := strings.CutSuffix(path.Base(name), ".service")
		if isUnit {
			_, flags := r.flags(node, unit)
			for flag, cert := range certificate {
				if file, ok := flags[flag]; ok {
					found[loaded[path.Base(file)]] = flags[cert]
				}
			}
		}
		for _, m := range yaml.FindAllStringSubmatch(text, -1) {
			cert, key := m[1]+m[3], m[2]+m[4]
			if unit, ok := strings.CutPrefix(key, "/run/credentials/"); ok { // a credential of the unit
				unit, _, _ = strings.Cut(unit, "/")
				key = ""
				for _, c := range credential.FindAllStringSubmatch(r.nodes[node].read("/etc/systemd/system/"+unit), -1) {
					key = c[2]
				}
			}
			found[key] = cert
		}
	}
	return found
}

func keysStay(r *rendered) error {
	for _, text := range r.sent {
		if strings.Contains(text, "PRIVATE KEY") {
			return fmt.Errorf("a private key was sent to a node")
		}
	}
	total := 0
	for name, node := range r.nodes {
		for file, text := range node.files("/etc", "/var") {
			if strings.Contains(text, "PRIVATE KEY") && !node.keys[file] {
				return fmt.Errorf("%s of %s is a private key that came from elsewhere, or is a copy", file, name)
			}
		}
		for key, certificate := range r.keyFiles(name) {
			total++
			if !node.keys[key] {
				return fmt.Errorf("the key %s of %s was not made there", key, name)
			}
			if certificate == "" {
				continue
			}
			c := r.certificate(name, certificate)
			block, _ := pem.Decode([]byte(node.read(key)))
			private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return err
			}
			own, ok := private.(*ecdsa.PrivateKey)
			if c == nil || !ok || !own.PublicKey.Equal(c.PublicKey) {
				return fmt.Errorf("the certificate %s of %s is not of the key %s", certificate, name, key)
			}
		}
	}
	if total != 11 {
		return fmt.Errorf("%d keys were found", total)
	}
	return nil
}

func etcdMembers(r *rendered) error {
	_, member := r.flags("c1", "joist-etcd")
	for _, flag := range []string{"--listen-peer-urls", "--listen-client-urls", "--initial-advertise-peer-urls", "--advertise-client-urls"} {
		if !strings.HasPrefix(member[flag], "https://") || strings.Contains(member[flag], "http://") || strings.Contains(member[flag], "127.0.0.1") {
			return fmt.Errorf("%s of the member is %q", flag, member[flag])
		}
	}
	for _, flag := range []string{"--client-cert-auth", "--peer-client-cert-auth"} {
		if _, ok := member[flag]; !ok {
			return fmt.Errorf("the member lets anybody in: %s is missing", flag)
		}
	}
	_, api := r.flags("c1", "joist-apiserver")
	if got, own := api["--etcd-servers"], member["--advertise-client-urls"]; own == "" || got != own {
		return fmt.Errorf("--etcd-servers is %q, not %q, the member beside it", got, own)
	}
	// A certificate of Kubernetes opens nothing in etcd.
	ours, theirs := r.certificate("c1", member["--trusted-ca-file"]), r.certificate("c1", api["--client-ca-file"])
	client := r.certificate("c1", api["--etcd-certfile"])
	if ours == nil || theirs == nil || client == nil || ours.Equal(theirs) {
		return fmt.Errorf("etcd has no authority of its own")
	}
	return client.CheckSignatureFrom(ours)
}

func clusterDNS(r *rendered) error {
	service, servers := r.object("Service", "kube-dns"), r.object("Deployment", "coredns")
	return first(
		expect("the kubelet's clusterDNS", r.kubelet("w5", "clusterDNS"), `["10.96.0.10"]`),
		expect("the kubelet's clusterDomain", r.kubelet("w5", "clusterDomain"), `"kube.example"`),
		expect("the address of Service kube-dns", between(service, "clusterIP: ", "\n"), "10.96.0.10"),
		expect("the domain that CoreDNS knows", between(r.object("ConfigMap", "coredns"), "    kubernetes ", " "), "kube.example"),
		expect("what pods of CoreDNS are called", between(between(servers, "template:", "spec:"), "labels: ", " }\n"), between(service, "selector: ", "\n")),
	)
}

func frontProxy(r *rendered) error {
	_, api := r.flags("c1", "joist-apiserver")
	client, ca := r.certificate("c1", api["--proxy-client-cert-file"]), r.certificate("c1", api["--requestheader-client-ca-file"])
	users := r.certificate("c1", api["--client-ca-file"])
	switch {
	case client == nil || ca == nil || users == nil:
		return fmt.Errorf("the apiserver has no certificate for what it passes on")
	case ca.Equal(users):
		return fmt.Errorf("whoever is a user could name another one: the front proxy's authority is the users'")
	case !slices.Contains(client.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return fmt.Errorf("the front proxy's certificate is not a client's")
	}
	return first(
		client.CheckSignatureFrom(ca),
		expect("--requestheader-allowed-names", api["--requestheader-allowed-names"], client.Subject.CommonName),
		expect("--requestheader-username-headers", api["--requestheader-username-headers"], "X-Remote-User"),
		expect("--requestheader-group-headers", api["--requestheader-group-headers"], "X-Remote-Group"),
		expect("--requestheader-extra-headers-prefix", api["--requestheader-extra-headers-prefix"], "X-Remote-Extra-"),
		expect("--enable-aggregator-routing", api["--enable-aggregator-routing"], "true"),
	)
}

func tokenIssuer(r *rendered) error {
	_, api := r.flags("c1", "joist-apiserver")
	host, ok := strings.CutPrefix(api["--service-account-issuer"], "https://")
	c := r.certificate("c1", api["--tls-cert-file"])
	if !ok || c == nil || strings.Contains(host, ":") {
		return fmt.Errorf("the issuer is %q", api["--service-account-issuer"])
	}
	return first(
		expect("the issuer", host, "kubernetes.default.svc.kube.example"), c.VerifyHostname(host),
		expect("--service-account-jwks-uri", api["--service-account-jwks-uri"], "https://"+host+"/openid/v1/jwks"),
	)
}

func nodeAddress(r *rendered) error {
	_, api := r.flags("c1", "joist-apiserver")
	for name, address := range map[string]string{"w5": "10.77.0.15"} {
		_, kubelet := r.flags(name, "kubelet")
		c := r.certificate(name, strings.Trim(r.kubelet(name, "tlsCertFile"), `"`))
		if c == nil {
			return fmt.Errorf("the kubelet of %s has no serving certificate", name)
		}
		if err := first(
			c.VerifyHostname(address), c.VerifyHostname(name+".demo.lab"), expect("--node-ip of "+name, kubelet["--node-ip"], address),
			c.CheckSignatureFrom(r.certificate("c1", api["--kubelet-certificate-authority"])),
		); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(api["--kubelet-preferred-address-types"], "InternalIP") {
		return fmt.Errorf("--kubelet-preferred-address-types is %q", api["--kubelet-preferred-address-types"])
	}
	return nil
}

func podNetwork(r *rendered) error {
	whole, seen := netip.MustParsePrefix("10.64.0.0/16"), map[netip.Prefix]bool{}
	for name := range map[string]bool{"w5": true} {
		for file, text := range r.nodes[name].files("/etc/cni", "/etc/kubernetes", "/etc/containerd") {
			if at := placeholder.FindString(text); at != "" {
				return fmt.Errorf("%s of %s still says %q", file, name, at)
			}
		}
		var config struct {
			Plugins []struct {
				IPAM struct{ Ranges [][]struct{ Subnet string } }
			}
		}
		if err := json.Unmarshal([]byte(r.nodes[name].read("/etc/cni/net.d/10-joist.conflist")), &config); err != nil {
			return err
		}
		part, err := netip.ParsePrefix(config.Plugins[0].IPAM.Ranges[0][0].Subnet)
		if err != nil {
			return err
		}
		var own string
		r.input("bridge", name, "network", &own)
		if part.String() != own || seen[part] || !whole.Contains(part.Addr()) || part.Bits() != 24 {
			return fmt.Errorf("the pods of %s have %s of %s", name, part, whole)
		}
		seen[part] = true
		if err := expect("maxPods of "+name, r.kubelet(name, "maxPods"), "90"); err != nil {
			return err
		}
	}
	return nil
}

func releases(r *rendered) error {
	for _, a := range r.model.Artifacts {
		if !release.MatchString(a.Version) {
			return fmt.Errorf("artifact %s %s is no release", a.Name, a.Version)
		}
	}
	units := 0
	for name, node := range r.nodes {
		for file := range node.files("/etc/systemd/system") {
			unit, ok := strings.CutSuffix(path.Base(file), ".service")
			if !ok || unit == "joist-endpoint" { // HAProxy is the node image's, from Debian
				continue
			}
			units++
			if program, _ := r.flags(name, unit); !strings.HasPrefix(program, "/bundles/") {
				return fmt.Errorf("%s of %s starts %s, which nobody checked", unit, name, program)
			}
		}
	}
	if units != 7 {
		return fmt.Errorf("there are only %d units", units)
	}
	return nil
}

// sorted makes texts equal that differ in the order of their lines: whoever wrote into /etc/hosts last stands last.
func sorted(text string) string { return strings.Join(slices.Sorted(strings.Lines(text)), "") }

// repeatable runs every script of the nodes a second time, and routes and names with one node fewer a third time.
func repeatable(r *rendered) error {
	for _, node := range r.nodes {
		before, calls := node.files("/etc"), len(node.restarts())
		for _, o := range r.orders {
			if o.Node != node.name || o.Step.Apply.Script == nil || o.Step.Scope != model.Node {
				continue
			}
			if _, err := node.run(&o.Step.Apply, step.Apply, o.Clear); err != nil {
				return fmt.Errorf("the second time: %w", err)
			}
		}
		after := node.files("/etc")
		for file, text := range after {
			if was := before[file]; was != text && (file != "/etc/hosts" || sorted(was) != sorted(text)) {
				return fmt.Errorf("%s of %s is another one after the second time:\n%s", file, node.name, text)
			}
		}
		if restarts := node.restarts(); len(restarts) > calls {
			return fmt.Errorf("the second time restarted %v on %s", restarts[calls:], node.name)
		}
		for file := range after {
			unit := path.Base(file)
			if path.Dir(file) == "/etc/systemd/system" && !node.linked(unit) {
				return fmt.Errorf("%s of %s does not start at a boot", unit, node.name)
			}
		}
	}
	w5 := r.nodes["w5"]
	if folder := regexp.MustCompile(`bin_dirs = \["(.*)"\]`).FindStringSubmatch(w5.read("/etc/containerd/config.toml")); folder == nil || w5.read(folder[1]+"/bridge") == "" {
		return fmt.Errorf("containerd finds no plugin bridge in %v", folder)
	}
	rules, err := w5.command(context.Background(), "/", "nft", "list", "table", "ip", "joist-pods").Output()
	if n := strings.Count(string(rules), "masquerade"); err != nil || n != 1 {
		return fmt.Errorf("w5 masquerades %d times what leaves the pods' network: %w", n, err)
	}
	for task, input := range map[string]string{"network": "routes", "hosts": "entries"} {
		o := r.orders[history.Target{Task: task, Node: "w5"}]
		var all map[string]json.RawMessage
		if err := json.Unmarshal(o.Clear[input], &all); err != nil {
			return err
		}
		delete(all, "w6")
		fewer, err := json.Marshal(all)
		if err != nil {
			return err
		}
		o.Clear[input] = fewer
		if _, err := w5.run(&o.Step.Apply, step.Apply, o.Clear); err != nil {
			return err
		}
		o.Step.Verify.Script.Files = o.Step.Apply.Script.Files
		if _, err := w5.run(o.Step.Verify, step.Verify, o.Clear); err != nil {
			return fmt.Errorf("w6 left, and is still there: %w", err)
		}
	}
	routes, err := w5.command(context.Background(), "/", "ip", "route", "show", "proto", "201").Output()
	if err != nil || len(routes) > 0 || strings.Contains(w5.read("/etc/hosts"), "w6.demo.lab") {
		return fmt.Errorf("w6 left, and w5 still has %s, %w", routes, err)
	}
	return nil
}

func encryption(r *rendered) error {
	_, api := r.flags("c1", "joist-apiserver")
	if !strings.HasSuffix(api["--encryption-provider-config"], "/encryption.yaml") {
		return fmt.Errorf("--encryption-provider-config is %q", api["--encryption-provider-config"])
	}
	text := r.nodes["c1"].read("/etc/kubernetes/apiserver/encryption.yaml")
	key := regexp.MustCompile(`- secretbox: \{ keys: \[\{ name: key1, secret: "([^"]*)" \}\] \}`).FindStringSubmatch(text)
	if key == nil || !strings.Contains(text, "resources: [secrets]") || strings.Contains(text, "aescbc") || strings.Index(text, "identity") < strings.Index(text, "secretbox") {
		return fmt.Errorf("secrets are not encrypted by secretbox:\n%s", regexp.MustCompile(`secret: "[^"]*"`).ReplaceAllString(text, "secret: …"))
	}
	if raw, err := base64.StdEncoding.DecodeString(key[1]); err != nil || len(raw) != 32 {
		return fmt.Errorf("the key has %d bytes: %w", len(raw), err)
	}
	return nil
}

func stableAPIs(r *rendered) error {
	for _, unit := range []string{"joist-apiserver", "joist-controller-manager", "joist-scheduler"} {
		_, flags := r.flags("c1", unit)
		if len(flags) == 0 {
			return fmt.Errorf("%s has no flags", unit)
		}
		for _, flag := range []string{"--runtime-config", "--feature-gates"} {
			if value, ok := flags[flag]; ok && (strings.Contains(value, "api/all") || strings.Contains(value, "alpha") || strings.Contains(value, "AllAlpha")) {
				return fmt.Errorf("%s of %s is %s", flag, unit, value)
			}
		}
	}
	for file, text := range r.nodes["w5"].files("/etc/kubernetes") {
		if strings.Contains(strings.ToLower(strings.ReplaceAll(text, "kubeproxy.config.k8s.io/v1alpha1", "")), "alpha") {
			return fmt.Errorf("%s has something of alpha:\n%s", file, text)
		}
	}
	return nil
}
