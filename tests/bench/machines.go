package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// bringups has Kubernetes brought up on virtual machines from power-on, once for each number of control-plane machines, by
// the test that does it, and keeps the figures that it prints.
func bringups(ctx context.Context, s *suite) error {
	if len(s.control) == 0 {
		progress("Kubernetes on virtual machines is left out: it takes 15 to 40 minutes; -control 1,3 -limit 2h measures it")
		return nil
	}
	for _, n := range s.control {
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout", "2h", "-run", "TestCluster$", "./tests/boot/kubernetes")
		cmd.Env = append(os.Environ(), "JOIST_BENCH_CONTROL="+strconv.Itoa(n))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		found := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if l, ok := printed(lines.Text()); ok {
				s.out.line(l)
				found++
			} else {
				progress("%s", lines.Text())
			}
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%d control-plane machines: %w", n, err)
		}
		if found == 0 {
			return fmt.Errorf("%d control-plane machines: the test printed no figure", n)
		}
	}
	return nil
}

// printed reads a figure from a line of a test's output.
func printed(text string) (line, bool) {
	var l line
	ok := strings.HasPrefix(text, `{"name":`) && json.Unmarshal([]byte(text), &l) == nil && l.Name != ""
	return l, ok
}

// parseControl reads numbers of control-plane machines, such as 1,3.
func parseControl(text string) ([]int, error) {
	var list []int
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n%2 == 0 {
			return nil, fmt.Errorf("-control: %q is no number of control-plane machines; 1, 3 and 5 are", part)
		}
		list = append(list, n)
	}
	return list, nil
}
