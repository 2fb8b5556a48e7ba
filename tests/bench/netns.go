package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// wire is a server's network namespace (interface "srv", 10.76.0.1/15, and loopback) and a client's ("cli", 10.76.0.2/15).
type wire struct{ srv, cli string }

// newWire makes the namespaces, as root.
func newWire(ctx context.Context) (wire, error) {
	if os.Geteuid() != 0 {
		return wire{}, errors.New("this part makes network namespaces: run it as root")
	}
	w := wire{fmt.Sprintf("jbench%ds", os.Getpid()), fmt.Sprintf("jbench%dc", os.Getpid())}
	for _, command := range []string{
		"ip netns add " + w.srv, "ip netns add " + w.cli,
		"ip -n " + w.srv + " link set lo up",
		"ip -n " + w.srv + " link add srv type veth peer name cli netns " + w.cli,
		"ip -n " + w.srv + " address add 10.76.0.1/15 dev srv", "ip -n " + w.cli + " address add 10.76.0.2/15 dev cli",
		"ip -n " + w.srv + " link set srv up", "ip -n " + w.cli + " link set cli up",
	} {
		words := strings.Fields(command)
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return w, errors.Join(fmt.Errorf("%s: %w: %s", command, err, out), w.remove())
		}
	}
	return w, nil
}

// remove deletes the namespaces; nothing may run in them any more.
func (w wire) remove() error {
	var errs []error
	for _, ns := range []string{w.srv, w.cli} {
		if out, err := exec.Command("ip", "netns", "delete", ns).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("cannot delete namespace %s: %w: %s", ns, err, out))
		}
	}
	return errors.Join(errs...)
}

// candidate is a server to measure: joist's, which comes first, or a peer's.
type candidate struct {
	name  string
	start func() (*server, error)
}

// installed reports whether a program is there, and says so if it is not.
func installed(program, what string) bool {
	if _, err := exec.LookPath(program); err != nil {
		progress("skipped: %s, because %s is not installed", what, program)
		return false
	}
	return true
}
