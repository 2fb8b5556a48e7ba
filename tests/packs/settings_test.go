package packs_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"joist/engine/step"
)

// setting is something that a program of a cluster is told, without which the cluster works all the same, and is open to
// whoever asks or slower to mend. Like a defect it has plants, for each of which its check fails.
type setting struct {
	name   string
	task   string // whose script is run
	check  func(r *rendered) error
	plants []plant
}

// settingInputs are what the scripts are given; none of it is a default.
var settingInputs = map[string]string{
	"apiserver": `{"address": "10.77.0.11", "service_cidr": "10.96.0.0/16", "issuer": "https://kubernetes.default.svc.kube.example", "token_hours": 7,
		"etcd": "https://c1.etcd.demo.lab:2379", "encryption": "c2VjcmV0", "serving_key": "/k/serving.key", "serving": "/i/serving",
		"etcd_key": "/k/etcd.key", "etcd_client": "/i/etcd", "kubelet_key": "/k/kubelet.key", "kubelet_client": "/i/kubelet",
		"proxy_key": "/k/proxy.key", "proxy_client": "/i/proxy", "token_key": "/k/token.key", "token_keys": "/i/token-keys.pem"}`,
	"controllers": `{"url": "https://127.0.0.1:7443", "manager_key": "/k/manager.key", "manager": "/i/manager", "scheduler_key": "/k/scheduler.key", "scheduler": "/i/scheduler"}`,
	"kubelet": `{"name": "w5", "address": "10.77.0.11", "url": "https://127.0.0.1:7443", "client_key": "/k/kubelet.key", "client": "/i/kubelet",
		"serving_key": "/k/serving.key", "serving": "/i/serving", "cluster_dns": "10.96.0.10", "cluster_domain": "kube.example", "max_pods": 90}`,
	"proxy":    `{"name": "w5", "url": "https://127.0.0.1:7443", "pod_cidr": "10.64.0.0/16", "key": "/k/proxy.key", "client": "/i/proxy"}`,
	"endpoint": `{"servers": {"c1": "10.77.0.11", "c2": "10.77.0.12"}}`,
}

const (
	apiserverScript   = "kubernetes/files/apiserver.sh"
	controllersScript = "kubernetes/files/controllers.sh"
	kubeletScript     = "kubernetes/files/kubelet.sh"
)

// without plants that a flag is not given.
func without(file, flag, found string) plant { return plant{file, flag, "", found} }

func settings() []setting {
	return []setting{
		{"what a node may do is decided by the node authorizer, and everything else by RBAC", "apiserver", apiserver(map[string]string{"--authorization-mode": "Node,RBAC"}), []plant{
			without(apiserverScript, "--authorization-mode=Node,RBAC ", "--authorization-mode"),
			{apiserverScript, "--authorization-mode=Node,RBAC", "--authorization-mode=RBAC", "--authorization-mode"},
			{apiserverScript, "--authorization-mode=Node,RBAC", "--authorization-mode=Node,RBAC,AlwaysAllow", "--authorization-mode"},
		}},
		{"a kubelet changes its own node and pods only", "apiserver", nodeRestriction, []plant{
			without(apiserverScript, " --enable-admission-plugins=NodeRestriction", "NodeRestriction is off"),
			{apiserverScript, "--profiling=false", "--profiling=false --disable-admission-plugins=NodeRestriction", "are off"},
		}},
		{"who changed what is written down, without secrets, and does not fill the node", "apiserver", audit, []plant{
			without(apiserverScript, "--audit-policy-file=$dir/audit.yaml ", "no policy"),
			without(apiserverScript, " --audit-log-path=/var/log/kubernetes/audit.log", "--audit-log-path"),
			without(apiserverScript, " --audit-log-maxsize=20", "--audit-log-maxsize"),
			without(apiserverScript, " --audit-log-maxbackup=2", "--audit-log-maxbackup"),
			{"kubernetes/files/audit-policy.yaml", "- level: Metadata\n  resources:\n  - { group: \"\", resources: [secrets", "- level: Request\n  resources:\n  - { group: \"\", resources: [secrets", "secrets are written down"},
			{"kubernetes/files/audit-policy.yaml", "[secrets, ", "[", "secrets are written down"},
			without("kubernetes/files/audit-policy.yaml", "- { level: Request }", "changes are not"),
		}},
		{"extensions know who asks, from the apiserver alone", "apiserver", apiserver(map[string]string{
			"--requestheader-client-ca-file": "/i/proxy/ca.pem", "--requestheader-allowed-names": "front-proxy-client",
			"--requestheader-username-headers": "X-Remote-User", "--requestheader-group-headers": "X-Remote-Group", "--requestheader-extra-headers-prefix": "X-Remote-Extra-",
			"--proxy-client-cert-file": "/i/proxy/cert.pem", "--proxy-client-key-file": "${CREDENTIALS_DIRECTORY}/proxy.pem", "--enable-aggregator-routing": "true",
		}), []plant{
			without(apiserverScript, "--requestheader-client-ca-file=$proxy_id/ca.pem ", "--requestheader-client-ca-file"),
			without(apiserverScript, " --requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names"),
			without(apiserverScript, "--requestheader-username-headers=X-Remote-User ", "--requestheader-username-headers"),
			without(apiserverScript, "--requestheader-group-headers=X-Remote-Group ", "--requestheader-group-headers"),
			without(apiserverScript, " --requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-extra-headers-prefix"),
			without(apiserverScript, "--proxy-client-cert-file=$proxy_id/cert.pem ", "--proxy-client-cert-file"),
			without(apiserverScript, " --proxy-client-key-file=$cred/proxy.pem", "--proxy-client-key-file"),
		}},
		{"a token lives as long as was said, and no longer", "apiserver", apiserver(map[string]string{
			"--service-account-max-token-expiration": "7h", "--service-account-extend-token-expiration": "false",
		}), []plant{
			without(apiserverScript, "--service-account-max-token-expiration=${hours}h ", "--service-account-max-token-expiration"),
			{apiserverScript, "max-token-expiration=${hours}h", "max-token-expiration=24h", "--service-account-max-token-expiration"},
			without(apiserverScript, " --service-account-extend-token-expiration=false", "--service-account-extend-token-expiration"),
		}},
		{"nothing in the cluster signs or approves certificates", "controllers", nothingSigns, []plant{
			without(controllersScript, ",-certificatesigningrequest-signing-controller", "-certificatesigningrequest-signing-controller is on"),
			without(controllersScript, ",-certificatesigningrequest-approving-controller", "-certificatesigningrequest-approving-controller is on"),
			without(controllersScript, "\"--controllers=*,-certificatesigningrequest-signing-controller,-certificatesigningrequest-approving-controller\"", "is on"),
			{controllersScript, "--allocate-node-cidrs=false", "--allocate-node-cidrs=false --cluster-signing-key-file=/k/ca.key", "--cluster-signing-key-file"},
		}},
		{"a kubelet answers nobody without a name and a right", "kubelet", kubeletCloses, []plant{
			{kubeletScript, "anonymous: { enabled: false }", "anonymous: { enabled: true }", "anonymous"},
			without(kubeletScript, "  anonymous: { enabled: false }\n", "anonymous"),
			{kubeletScript, "webhook: { enabled: true }", "webhook: { enabled: false }", "webhook"},
			{kubeletScript, "authorization: { mode: Webhook }", "authorization: { mode: AlwaysAllow }", "authorization"},
			without(kubeletScript, "  x509: { clientCAFile: \"$client/ca.pem\" }\n", "x509"),
			{kubeletScript, "readOnlyPort: 0", "readOnlyPort: 10255", "readOnlyPort"},
			{kubeletScript, "--node-ip=$address", "--node-ip=$address --anonymous-auth=true", "--anonymous-auth"},
			{kubeletScript, "--node-ip=$address", "--node-ip=$address --authorization-mode=AlwaysAllow", "--authorization-mode"},
		}},
		{"a kubelet asks the cluster for no certificate", "kubelet", kubeletConfig(map[string]string{
			"rotateCertificates": "false", "serverTLSBootstrap": "false", "tlsCertFile": `"/i/serving/cert.pem"`,
		}), []plant{
			{kubeletScript, "rotateCertificates: false", "rotateCertificates: true", "rotateCertificates"},
			{kubeletScript, "serverTLSBootstrap: false", "serverTLSBootstrap: true", "serverTLSBootstrap"},
			without(kubeletScript, "tlsCertFile: \"$serving/cert.pem\"\n", "tlsCertFile"),
		}},
		{"Services are nftables' work", "proxy", has("/etc/kubernetes/proxy/config.yaml", "mode: nftables"), []plant{
			{"kubernetes/files/proxy.sh", "mode: nftables", "mode: iptables", "mode: nftables"},
			without("kubernetes/files/proxy.sh", "mode: nftables\n", "mode: nftables"),
		}},
		{"every node spreads what it asks over all apiservers that are ready", "endpoint", has("/etc/kubernetes/endpoint.cfg",
			"balance leastconn", "option httpchk GET /readyz", "http-check expect status 200", "server c1 10.77.0.11:6443 check", "server c2 10.77.0.12:6443 check"), []plant{
			{"kubernetes/files/endpoint.sh", "balance leastconn", "balance first", "balance leastconn"},
			without("kubernetes/files/endpoint.sh", "  option httpchk GET /readyz\n", "option httpchk"),
			without("kubernetes/files/endpoint.sh", "  http-check expect status 200\n", "http-check expect"),
			{"kubernetes/files/endpoint.sh", ":6443 check", ":6443", "server c1"},
		}},
	}
}

// TestSettings runs the scripts that write settings, each once as it is and once with each of its plants.
func TestSettings(t *testing.T) {
	for _, s := range settings() {
		for i, p := range append([]plant{{}}, s.plants...) {
			name := s.name
			if i > 0 {
				name = fmt.Sprintf("planted %s, %d", s.name, i)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				err := s.check(s.rendered(t, p))
				if i == 0 && err != nil {
					t.Error(err)
				}
				if i > 0 && (err == nil || !strings.Contains(err.Error(), p.found)) {
					t.Errorf("%q instead of %q was not noticed, but: %v", p.new, p.old, err)
				}
			})
		}
	}
}

// rendered is the node n, on which the setting's script ran.
func (s setting) rendered(t *testing.T, p plant) *rendered {
	t.Helper()
	m := must(t, goal(1, 1), "", p.change(t))
	var in map[string]json.RawMessage
	if err := json.Unmarshal([]byte(settingInputs[s.task]), &in); err != nil {
		t.Fatal(err)
	}
	n := newStage(t, "n", "10.77.0.11")
	if _, err := n.run(&m.Task(s.task).Step.Apply, step.Apply, in); err != nil {
		t.Fatal(err)
	}
	return &rendered{t: t, model: m, nodes: map[string]*stage{"n": n}}
}

// change alters the one place of the file, and fails the test if there is no such place; the zero plant changes nothing.
func (p plant) change(t *testing.T) map[string]func(string) string {
	return map[string]func(string) string{p.file: func(s string) string {
		if !strings.Contains(s, p.old) {
			t.Fatalf("%s has no %q any more: plant the defect where it would be now", p.file, p.old)
		}
		return strings.Replace(s, p.old, p.new, 1)
	}}
}

// apiserver checks that the apiserver has exactly these values of flags.
func apiserver(want map[string]string) func(r *rendered) error {
	return func(r *rendered) error {
		_, flags := r.flags("n", "joist-apiserver")
		for _, flag := range slices.Sorted(maps.Keys(want)) {
			if err := expect(flag, flags[flag], want[flag]); err != nil {
				return err
			}
		}
		return nil
	}
}

func nodeRestriction(r *rendered) error {
	_, flags := r.flags("n", "joist-apiserver")
	if on := strings.Split(flags["--enable-admission-plugins"], ","); !slices.Contains(on, "NodeRestriction") {
		return fmt.Errorf("NodeRestriction is off; on are %q", on)
	}
	if off, ok := flags["--disable-admission-plugins"]; ok {
		return fmt.Errorf("admission plugins are off: %s", off)
	}
	return nil
}

var secretsRule = regexp.MustCompile(`level: Metadata\s+resources:\s+- \{ group: "", resources: \[[^\]]*\bsecrets\b`)

func audit(r *rendered) error {
	_, flags := r.flags("n", "joist-apiserver")
	policy := r.nodes["n"].read(flags["--audit-policy-file"])
	if !strings.Contains(policy, "kind: Policy") {
		return fmt.Errorf("there is no policy at %q", flags["--audit-policy-file"])
	}
	secrets, all := secretsRule.FindStringIndex(policy), strings.Index(policy, "- { level: Request }")
	if all < 0 {
		return fmt.Errorf("changes are not written down:\n%s", policy)
	}
	if secrets == nil || secrets[0] > all { // the first rule that fits is the one
		return fmt.Errorf("secrets are written down:\n%s", policy)
	}
	for _, flag := range []string{"--audit-log-maxsize", "--audit-log-maxbackup"} { // without, files of 100 MB that stay for ever
		if flags[flag] == "" || flags[flag] == "0" {
			return fmt.Errorf("%s is %q", flag, flags[flag])
		}
	}
	return expect("--audit-log-path", flags["--audit-log-path"], "/var/log/kubernetes/audit.log")
}

func nothingSigns(r *rendered) error {
	_, flags := r.flags("n", "joist-controller-manager")
	for _, off := range []string{"-certificatesigningrequest-signing-controller", "-certificatesigningrequest-approving-controller"} {
		if !slices.Contains(strings.Split(flags["--controllers"], ","), off) {
			return fmt.Errorf("%s is on: --controllers is %q", off, flags["--controllers"])
		}
	}
	for flag, value := range flags {
		if strings.HasPrefix(flag, "--cluster-signing-") {
			return fmt.Errorf("the controller-manager has %s=%s", flag, value)
		}
	}
	return nil
}

// kubeletConfig checks fields of the kubelet's configuration, and that no flag of the unit overrules the file.
func kubeletConfig(want map[string]string) func(r *rendered) error {
	return func(r *rendered) error {
		for _, field := range slices.Sorted(maps.Keys(want)) {
			if err := expect(field, r.kubelet("n", field), want[field]); err != nil {
				return err
			}
		}
		_, flags := r.flags("n", "kubelet")
		for flag := range flags {
			if !slices.Contains([]string{"--config", "--kubeconfig", "--hostname-override", "--node-ip"}, flag) {
				return fmt.Errorf("the kubelet has the flag %s, which overrules its configuration", flag)
			}
		}
		return nil
	}
}

func kubeletCloses(r *rendered) error {
	return kubeletConfig(map[string]string{
		"anonymous": "{ enabled: false }", "webhook": "{ enabled: true }", "x509": `{ clientCAFile: "/i/kubelet/ca.pem" }`,
		"authorization": "{ mode: Webhook }", "readOnlyPort": "0",
	})(r)
}

// has checks that a file of the node has these lines.
func has(file string, lines ...string) func(r *rendered) error {
	return func(r *rendered) error {
		var there []string
		for line := range strings.Lines(r.nodes["n"].read(file)) {
			there = append(there, strings.TrimSpace(line))
		}
		for _, line := range lines {
			if !slices.Contains(there, line) {
				return fmt.Errorf("%s has no line %q:\n%s", file, line, strings.Join(there, "\n"))
			}
		}
		return nil
	}
}

// nodeKubectl answers what in-service.sh asks, and is asked: a node that is there, or not, and pods that leave, or not.
const nodeKubectl = `#!/bin/sh
echo "$*" >>/log/kubectl
case "$*" in
*" get node w5 "*) %s ;;
*" drain "*) %s ;;
esac
`

const inServiceScript = "kubernetes/files/in-service.sh"

// TestInService: pods cannot come back to a node that they leave, and one that stays does not hold up its change for ever.
func TestInService(t *testing.T) {
	for name, p := range map[string]plant{
		"as it is":              {},
		"no cordon":             without(inServiceScript, "\tk cordon \"$name\"\n", "remove: asked"),
		"cordon after drain":    {inServiceScript, "\tk cordon \"$name\"\n\tk drain", "\ttrap 'k cordon \"$name\"' EXIT\n\tk drain", "remove: asked"},
		"no limit":              without(inServiceScript, ` --timeout="$drain"`, "remove: asked"),
		"a limit of its own":    {inServiceScript, `--timeout="$drain"`, `--timeout=0s`, "remove: asked"},
		"no uncordon":           {inServiceScript, `k uncordon "$name"`, ":", "apply: asked"},
		"waits for every pod":   {inServiceScript, " ||\n\t\techo \"not all pods left within $drain\" >&2", "", "remove, a pod stays: "},
		"stops at daemons' pod": without(inServiceScript, " --ignore-daemonsets", "remove: asked"),
		"does not ask first":    without(inServiceScript, "\t[ -n \"$(k get node \"$name\" --ignore-not-found -o name)\" ] || exit 0\n", "remove"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := inService(t, p)
			if (err == nil) != (p.found == "") || err != nil && !strings.Contains(err.Error(), p.found) {
				t.Errorf("want %q, got: %v", p.found, err)
			}
		})
	}
}

// inService runs the actions against a kubectl that keeps what it is asked.
func inService(t *testing.T, p plant) error {
	t.Helper()
	change := map[string]func(string) string{}
	if p.file != "" {
		change = p.change(t)
	}
	s := must(t, goal(1, 1), "", change).Task("in_service").Step
	n := newStage(t, "c1", "10.77.0.11")
	in := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(`{"name": "w5", "id": "life", "url": "https://127.0.0.1:7443", "key": "/k/steps.key", "identity": {"leaf": "l", "chain": "c"}, "drain": "90s"}`), &in); err != nil {
		t.Fatal(err)
	}
	const drain = "drain w5 --ignore-daemonsets --delete-emptydir-data --force --timeout=90s"
	const get = "get node w5 --ignore-not-found -o name"
	for _, c := range []struct {
		name, node, pods string
		action           step.Action
		want             []string
	}{
		{"apply", "echo node/w5", "exit 0", step.Apply, []string{"uncordon w5"}},
		{"remove", "echo node/w5", "exit 0", step.Remove, []string{get, "cordon w5", drain}},
		{"remove, a pod stays", "echo node/w5", "exit 1", step.Remove, []string{get, "cordon w5", drain}},
		{"remove, the node is gone", "exit 0", "exit 1", step.Remove, []string{get}},
	} {
		n.must(t, os.RemoveAll(filepath.Join(n.root, "log/kubectl")))
		n.must(t, os.WriteFile(filepath.Join(n.root, "bundles/kubernetes-control/bin/kubectl"), fmt.Appendf(nil, nodeKubectl, c.node, c.pods), 0o755))
		action := &s.Apply
		if c.action == step.Remove {
			action = s.Remove
		}
		if _, err := n.run(action, c.action, in); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		var asked []string
		for line := range strings.Lines(n.read("/log/kubectl")) {
			_, line, _ = strings.Cut(line, " --client-key=/k/steps.key ")
			asked = append(asked, strings.TrimSpace(line))
		}
		if !slices.Equal(asked, c.want) {
			return fmt.Errorf("%s: asked %q, not %q", c.name, asked, c.want)
		}
	}
	return nil
}
