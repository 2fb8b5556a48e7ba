package agents_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"joist/engine/agent"
)

// fleetProcess runs an agent for each identity directory that the file lists.
func fleetProcess(list string) error {
	raw, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for dir := range strings.FieldsSeq(string(raw)) {
		id, err := agent.LoadIdentity(dir)
		if err != nil {
			return err
		}
		a, err := agent.New(agentConfig(id))
		if err != nil {
			return err
		}
		all.Go(func() { _ = a.Run(context.Background()) })
	}
	all.Wait()
	return nil
}

// BenchmarkIdleAgents measures what a connected agent that does nothing costs the engine: at most 2 GiB for 10,000.
func BenchmarkIdleAgents(b *testing.B) {
	n := 300
	if more, err := strconv.Atoi(os.Getenv("JOIST_BENCH_AGENTS")); err == nil {
		n = more // enrolling them takes most of the time
	}
	for range b.N {
		w := newWorld(b)
		w.keep = 20 * time.Second
		w.restart()
		list := filepath.Join(b.TempDir(), "fleet")
		var dirs []string
		for i := range n {
			w.enrolled(fmt.Sprint("n", i))
			dirs = append(dirs, w.dirs[fmt.Sprint("n", i)])
		}
		if err := os.WriteFile(list, []byte(strings.Join(dirs, "\n")), 0o600); err != nil {
			b.Fatal(err)
		}
		before, goroutines := memory(), runtime.NumGoroutine()
		w.process("", "JOIST_TEST_FLEET="+list)
		w.engine.until(b, "all connections", func(*engine) bool { return len(w.gateway.Connected()) == n })
		b.ReportMetric(float64(memory()-before)/float64(n), "B/agent")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(n), "goroutines/agent")
	}
}

// memory is what the process holds in heap and stacks.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
