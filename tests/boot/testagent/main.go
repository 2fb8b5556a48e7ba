// Command testagent is joist-agent with an engine of one sentence: the first joist.url is the address of a node image
// whose digest and size a plain file beside it states. It lets the boot tests try scout, the fetch and the hand-over
// without enrolment.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"joist/engine/agent/scout"
)

type engine struct{ log *slog.Logger }

// Scout posts the facts and takes the assignment that is the answer.
func (engine) Scout(ctx context.Context, m scout.Machine, become scout.Become) error {
	facts, err := json.Marshal(map[string]any{"facts": m.Facts, "oem": m.OEM, "session": m.Session})
	if err != nil {
		return err
	}
	var image scout.Image
	if err := post(ctx, m.Session.URLs[0]+"/facts", string(facts), &image); err != nil {
		return err
	}
	if err := os.WriteFile(scout.RunDir+"/identity", []byte("test\n"), 0o600); err != nil {
		return err
	}
	m.Report.Say("assigned")
	return become(ctx, image, http.DefaultClient)
}

// Node reports what the node runs on, once, and waits.
func (engine) Node(ctx context.Context, s *scout.Session) error {
	report := map[string]string{}
	for name, script := range map[string]string{
		"root": "findmnt -no FSTYPE,SOURCE /", "lower": "findmnt -no FSTYPE,OPTIONS /run/joist/lower", "pid1": "cat /proc/1/comm",
		"image": "sha256sum /run/joist/image/node.squashfs", "mode": "stat -c %a /run/joist", "write": "echo x > /etc/try && cat /run/joist/upper/data/etc/try",
		"modules": "test -e /lib/modules/$(uname -r)/modules.dep && echo yes", "initramfs": "ls /joist-agent /init 2>&1 | wc -l", "identity": "cat /run/joist/identity",
		"agent": "cat /proc/$PPID/cgroup", "address": "ip -br -4 addr show", "route": "ip route", "resolv": "cat /etc/resolv.conf", "free": "free -m 2>/dev/null || grep MemAvail /proc/meminfo",
		"etcd": "etcd --version | head -1; etcdctl version | head -1", "python": "command -v python3 perl-nothing || echo none", "imagewrite": "echo x > /run/joist/image/x 2>&1; echo $?",
		"modprobe": "modprobe dummy && echo ok", "machineid": "cat /etc/machine-id", "mkfs": "for t in mkfs.ext4 nft jq curl ip; do command -v $t; done | wc -l", "networkd": "systemctl is-enabled systemd-networkd",
	} {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
		out, err := cmd.CombinedOutput()
		report[name] = strings.TrimSpace(string(out))
		if err != nil {
			report[name] += fmt.Sprintf(" (%v)", err)
		}
	}
	for ctx.Err() == nil {
		out, _ := exec.CommandContext(ctx, "systemctl", "is-system-running").Output() // the status says the same
		report["system"] = strings.TrimSpace(string(out))
		if report["system"] != "starting" && report["system"] != "initializing" {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	failed, _ := exec.CommandContext(ctx, "systemctl", "--failed", "--no-legend").Output() // likewise
	report["failed"] = strings.TrimSpace(string(failed))
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	if err := post(ctx, s.URLs[0]+"/node", string(body), nil); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func post(ctx context.Context, url, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func main() {
	os.Exit(scout.Main(os.Args, func(log *slog.Logger) (scout.Engine, error) { return engine{log}, nil }))
}
