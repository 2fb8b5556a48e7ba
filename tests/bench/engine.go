package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
)

// engine measures a cluster of nodes × 20 instances: converged through the engine's loop on SQLite, reopened after
// kill -9, planned from a fresh process, and planned again after a change.
func engine(ctx context.Context, s *suite, nodes int) error {
	size := fmt.Sprintf("_%dx%d", nodes, tasksPerNode)
	if err := first(ctx, s, nodes, size); err != nil {
		return err
	}
	a := arguments{Dir: filepath.Join(s.dir, "engine"+size), Nodes: nodes}
	if nodes >= 10_000 {
		a.Profile = filepath.Join(s.results, "converge"+size)
	}
	if err := converged(ctx, s, a, size); err != nil {
		return err
	}
	a.Profile = ""
	if err := reopened(ctx, s, a, size); err != nil {
		return err
	}
	return planned(ctx, s, a, size)
}

// first measures the plan of a goal where nothing has happened yet.
func first(ctx context.Context, s *suite, nodes int, size string) error {
	var wall, cpu, peak []float64
	for i := range 5 {
		var got planning
		a := arguments{Dir: filepath.Join(s.dir, fmt.Sprintf("first%s_%d", size, i)), Nodes: nodes, First: true}
		w, c, err := perform(ctx, "plan", a, &got)
		if err != nil {
			return err
		}
		if want := nodes * tasksPerNode; got.Counts["run"] != want {
			return fmt.Errorf("nothing is there, and the plan says %v", got.Counts)
		}
		wall, cpu, peak = append(wall, w.Seconds()), append(cpu, c.Seconds()), append(peak, got.Peak)
	}
	s.out.value("plan_first"+size, median(wall), "s")
	s.out.value("plan_first_cpu"+size, median(cpu), "s")
	s.out.value("plan_first_peak_memory"+size, median(peak), "MiB")
	return nil
}

// gather measures planning where one task of every node looks at all nodes.
func gather(ctx context.Context, s *suite, nodes int) error {
	size := fmt.Sprintf("_%dx%d_gather", nodes, tasksPerNode)
	a := arguments{Dir: filepath.Join(s.dir, "engine"+size), Nodes: nodes, Gather: true}
	if err := converged(ctx, s, a, size); err != nil {
		return err
	}
	return planned(ctx, s, a, size)
}

// converged runs a new cluster until it rests, says what that took, and kills the process.
func converged(ctx context.Context, s *suite, a arguments, size string) error {
	cmd, err := command(ctx, "", "converge", a)
	if err != nil {
		return err
	}
	p, err := start(cmd)
	if err != nil {
		return err
	}
	defer p.kill()
	var got convergence
	if err := p.hear(&got); err != nil {
		return err
	}
	s.out.value("journalled_completions"+size, got.Completions/got.Seconds, "1/s")
	s.out.value("journalled_events"+size, got.Events/got.Seconds, "1/s")
	s.out.value("converge_peak_memory"+size, memoryOf(strconv.Itoa(p.cmd.Process.Pid), "VmHWM"), "MiB")
	s.out.value("converge_cpu"+size, got.CPU, "s")
	return nil
}

// reopened measures the engine's start on a cluster that was killed.
func reopened(ctx context.Context, s *suite, a arguments, size string) error {
	var times []float64
	for range 3 {
		var got struct{ Settled int }
		wall, _, err := perform(ctx, "resume", a, &got)
		if err != nil {
			return err
		}
		if want := a.Nodes * tasksPerNode; got.Settled != want {
			return fmt.Errorf("after kill -9, %d of %d instances were in place", got.Settled, want)
		}
		times = append(times, wall.Seconds())
	}
	s.out.value("resume_after_kill"+size, median(times), "s")
	return nil
}

// planned measures plans of a converged cluster.
func planned(ctx context.Context, s *suite, a arguments, size string) error {
	var wall, cpu, peak []float64
	parts := map[string][]float64{}
	for range 5 {
		var got planning
		w, c, err := perform(ctx, "plan", a, &got)
		if err != nil {
			return err
		}
		if want := a.Nodes * tasksPerNode; got.Counts["unchanged"] != want {
			return fmt.Errorf("nothing changed, and the plan says %v", got.Counts)
		}
		wall, cpu, peak = append(wall, w.Seconds()), append(cpu, c.Seconds()), append(peak, got.Peak)
		for part, t := range got.Parts {
			parts[part] = append(parts[part], t)
		}
	}
	s.out.value("plan_unchanged"+size, median(wall), "s")
	s.out.value("plan_unchanged_cpu"+size, median(cpu), "s")
	s.out.value("plan_unchanged_peak_memory"+size, median(peak), "MiB")
	for _, part := range planParts {
		s.out.value("plan_unchanged_part_"+part+size, median(parts[part]), "s")
	}
	if a.Nodes >= 10_000 {
		a.Profile = filepath.Join(s.results, "plan"+size)
		if _, _, err := perform(ctx, "plan", a, &planning{}); err != nil {
			return err
		}
		a.Profile = ""
	}
	a.Repeat = 5
	var again replanning
	if _, _, err := perform(ctx, "replan", a, &again); err != nil {
		return err
	}
	if len(again.Joined) == 0 {
		return errors.New("nothing was planned again")
	}
	s.out.value("replan_node_joined"+size, 1000*median(again.Joined), "ms")
	s.out.value("replan_node_joined_with_compile"+size, 1000*median(again.Edited), "ms")
	s.out.value("replan_node_joined_same_model"+size, 1000*median(again.Grown), "ms")
	s.out.value("replan_input_changed"+size, 1000*median(again.Changed), "ms")
	return nil
}
