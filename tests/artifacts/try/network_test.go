package try_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// plugin runs a CNI plugin as containerd does: https://www.cni.dev/docs/spec/
func plugin(t *testing.T, dir, command, config string) string {
	t.Helper()
	var c struct{ Type string }
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(dir, c.Type))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=pod1", "CNI_NETNS=/run/netns/pod1", "CNI_IFNAME="+ifname(c.Type), "CNI_PATH="+dir)
	cmd.Stdin = strings.NewReader(config)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v: %s%s", c.Type, command, err, out.String(), said.String())
	}
	return out.String()
}

func ifname(plugin string) string {
	if plugin == "loopback" {
		return "lo"
	}
	return "eth0"
}

// A pod's network is made and taken away, without iptables.
func TestNetwork(t *testing.T) {
	if !inside(t) {
		return
	}
	set := built(t)
	dir, echo := filepath.Join(mount(t, set, "containerd"), "cni"), program(t, set, "echo")
	run(t, "ip", "netns", "add", "pod1")
	run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	plugin(t, dir, "ADD", `{"cniVersion":"1.0.0","name":"lo","type":"loopback"}`)
	bridge := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables",
		"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.200.1.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}`, t.TempDir())
	var result struct {
		IPs []struct{ Address, Gateway string }
	}
	said := plugin(t, dir, "ADD", bridge+"}")
	if err := json.Unmarshal([]byte(said), &result); err != nil || len(result.IPs) != 1 || result.IPs[0].Address != "10.200.1.2/24" || result.IPs[0].Gateway != "10.200.1.1" {
		t.Fatalf("the bridge's plugin answers %s", said)
	}
	ports := `{"cniVersion":"1.0.0","name":"pods","type":"portmap","backend":"nftables","runtimeConfig":{"portMappings":[{"hostPort":9080,"containerPort":8080,"protocol":"tcp"}]}`
	plugin(t, dir, "ADD", ports+`,"prevResult":`+said+"}")
	if rules := run(t, "nft", "list", "ruleset"); !strings.Contains(rules, "masquerade") || !strings.Contains(rules, "9080") {
		t.Errorf("the rules are %s", rules)
	}
	start(t, "/usr/sbin/ip", "netns", "exec", "pod1", echo, "serve")
	until(t, "10.200.1.1:", echo, "get", "http://10.200.1.2:8080/client")
	until(t, "ok", echo, "get", "http://10.200.1.1:9080/healthz")
	plugin(t, dir, "DEL", ports+`,"prevResult":`+said+"}")
	plugin(t, dir, "DEL", bridge+"}")
	if rules := run(t, "nft", "list", "ruleset"); strings.Contains(rules, "10.200.1.2") {
		t.Errorf("after DEL the rules are %s", rules)
	}
	if links := run(t, "ip", "-n", "pod1", "link"); strings.Contains(links, "eth0") {
		t.Errorf("after DEL the pod has %s", links)
	}
}
