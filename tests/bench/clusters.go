package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"joist/engine/history"
	"joist/engine/journal/sqlstore"
	"joist/engine/model"
)

// Of many small clusters on one engine, each has so many nodes.
const nodesOfSmall = 5

// crowd measures many small clusters that converge at the same time on one engine and one database.
func crowd(ctx context.Context, s *suite, clusters int) error {
	size := fmt.Sprintf("_%dx%dx%d", clusters, nodesOfSmall, tasksPerNode)
	cmd, err := command(ctx, "", "crowd", arguments{Dir: filepath.Join(s.dir, "crowd"), Nodes: nodesOfSmall, Clusters: clusters})
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
	s.out.value("clusters_converged"+size, float64(clusters)/got.Seconds, "1/s")
	s.out.value("clusters_completions"+size, got.Completions/got.Seconds, "1/s")
	s.out.value("clusters_cpu"+size, got.CPU, "s")
	s.out.value("clusters_peak_memory"+size, memoryOf(strconv.Itoa(p.cmd.Process.Pid), "VmHWM"), "MiB")
	return nil
}

// convergeMany takes new clusters from nothing to rest, all at once.
func convergeMany(ctx context.Context, a arguments) error {
	w := workload{nodes: a.Nodes, knob: "one"}
	m, err := w.compile()
	if err != nil {
		return err
	}
	db, err := sqlstore.Open(ctx, sqlstore.Config{Dir: a.Dir, Holder: "bench"})
	if err != nil {
		return err
	}
	begun, cpu := time.Now(), processorTime()
	failed := make([]error, a.Clusters)
	var all sync.WaitGroup
	for i := range failed {
		all.Go(func() { failed[i] = small(ctx, db, fmt.Sprintf("load-%04d", i), w, m) })
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	got := convergence{
		Completions: float64(a.Clusters * a.Nodes * tasksPerNode), Seconds: time.Since(begun).Seconds(), CPU: (processorTime() - cpu).Seconds(),
	}
	if err := say(got); err != nil {
		return err
	}
	untilTold()
	return db.Close()
}

// small takes one cluster from nothing to rest. Its loop stays, as an engine's does.
func small(ctx context.Context, db *sqlstore.DB, name string, w workload, m *model.Model) error {
	c, err := loop(ctx, db, name, m, crew{reporters: nodesOfSmall})
	if err != nil {
		return err
	}
	var events []history.Event
	for i, node := range w.names() {
		events = append(events, seen(i, node))
	}
	if err := c.Happen(ctx, events...); err != nil {
		return err
	}
	if err := c.Pursue(ctx, w.goal(m)); err != nil {
		return err
	}
	return rested(ctx, c, 200*time.Millisecond)
}
