package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// ansibleLimit is how long one command of Ansible may take, if the section has that much time left.
	ansibleLimit = 4 * time.Minute
	// atOnce is how many hosts either of them works on at the same time.
	atOnce = 10
)

// ansible measures the same work on the same hosts in Ansible: twenty tasks on each, one process for each task, with local
// connections, so that there is no network in it. joist's scripts run in the agent's sandbox, its journal is durable.
func ansible(ctx context.Context, s *suite) error {
	there := installed("ansible-playbook", "Ansible (Debian's ansible-core)")
	for _, nodes := range []int{10, 50} {
		if err := besideAnsible(ctx, s, nodes, there); err != nil {
			return err
		}
	}
	return nil
}

func besideAnsible(ctx context.Context, s *suite, nodes int, there bool) error {
	size := fmt.Sprintf("_%dx%d", nodes, tasksPerNode)
	var applied, again []float64
	for i := range 3 {
		a := arguments{Dir: filepath.Join(s.dir, fmt.Sprintf("hosts%s-%d", size, i)), Nodes: nodes, Scripts: true}
		t, err := applyOnce(ctx, a)
		if err != nil {
			return err
		}
		var got planning
		wall, _, err := perform(ctx, "plan", a, &got)
		if err != nil {
			return err
		}
		applied, again = append(applied, t.Seconds()), append(again, wall.Seconds())
	}
	apply := line{Name: "scripts" + size, Value: median(applied), Unit: "s"}
	second := line{Name: "scripts_nothing_to_do" + size, Value: median(again), Unit: "s"}
	if !there {
		s.out.line(apply)
		s.out.line(second)
		return nil
	}
	dir := filepath.Join(s.dir, "ansible"+size)
	if err := playbook(dir, nodes); err != nil {
		return err
	}
	// The second time it does everything again: it keeps no account of what it did.
	for _, ours := range []line{apply, second} {
		took, bound, err := ansibleRun(ctx, dir)
		if err != nil {
			return err
		}
		s.out.line(ours.Against("ansible"+bound, took.Seconds()))
		if bound != "" {
			progress("ansible-playbook on %d hosts was stopped after %.0f s, a lower bound", nodes, took.Seconds())
			return nil
		}
	}
	return nil
}

// playbook writes an inventory of hosts with local connections, and a play with as many tasks as ours have, without facts and
// with hosts that do not wait for each other.
func playbook(dir string, nodes int) error {
	var hosts, play strings.Builder
	for _, name := range (workload{nodes: nodes}).names() {
		fmt.Fprintf(&hosts, "%s ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n", name)
	}
	play.WriteString("- hosts: all\n  gather_facts: false\n  strategy: free\n  tasks:\n")
	for i := range tasksPerNode {
		fmt.Fprintf(&play, "  - name: t%02d\n    ansible.builtin.command: /bin/true\n", i+1)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	config := fmt.Sprintf("[defaults]\nforks = %d\nlocal_tmp = %s/tmp\nremote_tmp = %s/tmp\nretry_files_enabled = false\n", atOnce, dir, dir)
	for name, text := range map[string]string{"hosts": hosts.String(), "play.yml": play.String(), "ansible.cfg": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// ansibleRun runs the play. Where it had to be stopped, bound says so: its time is a lower bound.
func ansibleRun(ctx context.Context, dir string) (took time.Duration, bound string, err error) {
	timed, cancel := context.WithTimeout(ctx, ansibleLimit)
	defer cancel()
	cmd := inside(timed, "", "unshare", "--net", "ansible-playbook", "-i", "hosts", "play.yml")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "ANSIBLE_CONFIG="+filepath.Join(dir, "ansible.cfg"))
	cmd.WaitDelay = 10 * time.Second // its workers hold the output open for a moment
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	err = cmd.Run()
	took = time.Since(begun)
	if errors.Is(timed.Err(), context.DeadlineExceeded) {
		return took, " (stopped: lower bound)", nil
	}
	if err != nil {
		said := bytes.TrimSpace(out.Bytes())
		return took, "", fmt.Errorf("ansible-playbook: %w: %s", err, said[max(0, len(said)-2000):])
	}
	return took, "", nil
}
