package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
)

const agentsMeasured, agentsWanted = 1000, 10_000

var (
	bytesPerAgent      = regexp.MustCompile(`([0-9.]+) B/agent`)
	goroutinesPerAgent = regexp.MustCompile(`([0-9.]+) goroutines/agent`)
)

// idleAgents runs the benchmark of services/agents: agents in a process of their own, each on its own mutually
// authenticated connection, and what they cost the gateway's process in heap and stacks after a collection. Enrolling is
// not part of the figure. The figure for 10,000 is that for each agent times 10,000: it is no measurement.
func idleAgents(ctx context.Context, s *suite) error {
	if !installed("go", "idle agents") {
		return nil
	}
	cmd := inside(ctx, "", "go", "test", "-run", "^$", "-bench", "^BenchmarkIdleAgents$", "-benchtime", "1x", "joist/services/agents")
	cmd.Env = append(os.Environ(), "JOIST_BENCH_AGENTS="+strconv.Itoa(agentsMeasured))
	out, err := cmd.CombinedOutput()
	bytes, goroutines := bytesPerAgent.FindSubmatch(out), goroutinesPerAgent.FindSubmatch(out)
	if err != nil || bytes == nil || goroutines == nil {
		return fmt.Errorf("the benchmark of services/agents failed: %w\n%s", err, out)
	}
	each, err := strconv.ParseFloat(string(bytes[1]), 64)
	if err != nil {
		return err
	}
	s.out.value(fmt.Sprintf("idle_agent_memory_of_%d", agentsMeasured), each/1024, "KiB")
	s.out.value(fmt.Sprintf("idle_agents_memory_extrapolated_to_%d", agentsWanted), each*agentsWanted/(1<<20), "MiB")
	return nil
}
