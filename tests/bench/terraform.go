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

// terraformLimit is how long one command of Terraform may take, if the run has that much time left.
const terraformLimit = 10 * time.Minute

// terraform measures the same graph in Terraform: twenty terraform_data for each node, each fed by the one before it. Its
// provider is built in, so that nothing but Terraform's own engine works. It runs without a network.
func terraform(ctx context.Context, s *suite) error {
	there := installed("terraform", "Terraform")
	for _, nodes := range []int{50, 250} {
		if err := besideTerraform(ctx, s, nodes, there); err != nil {
			return err
		}
	}
	return nil
}

func besideTerraform(ctx context.Context, s *suite, nodes int, there bool) error {
	size := fmt.Sprintf("_%dx%d", nodes, tasksPerNode)
	a := arguments{Dir: filepath.Join(s.dir, "joist"+size), Nodes: nodes}
	var applied, planned []float64
	for i := range 3 {
		a.Dir = filepath.Join(s.dir, fmt.Sprintf("joist%s-%d", size, i))
		t, err := applyOnce(ctx, a)
		if err != nil {
			return err
		}
		var got planning
		wall, _, err := perform(ctx, "plan", a, &got)
		if err != nil {
			return err
		}
		applied, planned = append(applied, t.Seconds()), append(planned, wall.Seconds())
	}
	apply := line{Name: "apply" + size, Value: median(applied), Unit: "s"}
	plan := line{Name: "plan" + size, Value: median(planned), Unit: "s"}
	if !there {
		s.out.line(apply)
		s.out.line(plan)
		return nil
	}
	dir := filepath.Join(s.dir, "terraform"+size)
	if err := terraformSource(dir, nodes); err != nil {
		return err
	}
	if _, _, err := terraformRun(ctx, dir, "init", "-input=false"); err != nil {
		return err
	}
	took, bound, err := terraformRun(ctx, dir, "apply", "-input=false", "-auto-approve", "-refresh=false")
	if err != nil {
		return err
	}
	s.out.line(apply.Against("terraform"+bound, took.Seconds()))
	if bound != "" {
		progress("terraform's apply of %d nodes was stopped after %.0f s, a lower bound; its plan is not measured", nodes, took.Seconds())
		s.out.line(plan)
		return nil
	}
	took, bound, err = terraformRun(ctx, dir, "plan", "-input=false")
	if err != nil {
		return err
	}
	s.out.line(plan.Against("terraform"+bound, took.Seconds()))
	return nil
}

// applyOnce converges a new cluster from a fresh process, the process's start included.
func applyOnce(ctx context.Context, a arguments) (time.Duration, error) {
	cmd, err := command(ctx, "", "converge", a)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	p, err := start(cmd)
	if err != nil {
		return 0, err
	}
	defer p.kill()
	var got convergence
	err = p.hear(&got)
	return time.Since(begun), err
}

// terraformSource writes a resource for each instance, so that Terraform has the same edges, and no more.
func terraformSource(dir string, nodes int) error {
	var b strings.Builder
	for _, node := range (workload{nodes: nodes}).names() {
		fmt.Fprintf(&b, "resource \"terraform_data\" \"%s_01\" {\n  input = \"%s.load.lab\"\n}\n", node, node)
		for i := 2; i <= tasksPerNode; i++ {
			fmt.Fprintf(&b, "resource \"terraform_data\" \"%s_%02d\" {\n  input = terraform_data.%s_%02d.output\n}\n", node, i, node, i-1)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "main.tf"), []byte(b.String()), 0o600)
}

// terraformRun runs Terraform. Where it had to be stopped, bound says so: its time is a lower bound.
func terraformRun(ctx context.Context, dir string, args ...string) (took time.Duration, bound string, err error) {
	timed, cancel := context.WithTimeout(ctx, terraformLimit)
	defer cancel()
	cmd := inside(timed, "", "unshare", append([]string{"--net", "terraform"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	err = cmd.Run()
	took = time.Since(begun)
	if errors.Is(timed.Err(), context.DeadlineExceeded) {
		return took, " (stopped: lower bound)", nil
	}
	if err != nil {
		return took, "", fmt.Errorf("terraform %s: %w: %s", args[0], err, bytes.TrimSpace(out.Bytes()))
	}
	return took, "", nil
}
