package journaltest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"joist/engine/journal"
)

// crashJournals are written by the child at the same time, so that their appends share commits.
const crashJournals = 3

// batchSize is how many records the child appends after a sequence: a function of it, so that whoever reads the journal
// later knows where batches began and ended. Some batches take several chunks.
func batchSize(after uint64) int {
	switch h := after * 0x9e3779b97f4a7c15 >> 32; {
	case h%50 == 0:
		return 900
	default:
		return 1 + int(h%12)
	}
}

// CrashChild appends to several journals until it is killed, and writes a line with journal and sequence for each append
// that was acknowledged. It is the main function of the process that Crash starts.
func CrashChild(ctx context.Context, store journal.Store, out io.Writer) error {
	lines := make(chan string)
	group, ctx := errgroup.WithContext(ctx)
	for i := range crashJournals {
		group.Go(func() error {
			name := fmt.Sprintf("crash%d", i)
			w, err := openWhenFree(ctx, journal.Config{Store: store, Journal: name, Holder: "crash child"})
			if err != nil {
				return err
			}
			for {
				if err := w.Append(ctx, Records(w.Last(), batchSize(w.Last()))); err != nil {
					return err
				}
				select {
				case lines <- fmt.Sprintf("%s %d\n", name, w.Last()):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	group.Go(func() error {
		for {
			select {
			case line := <-lines:
				if _, err := io.WriteString(out, line); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return group.Wait()
}

// openWhenFree opens a journal that the controller killed before may still seem to hold for a moment.
func openWhenFree(ctx context.Context, cfg journal.Config) (*journal.Writer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		w, err := journal.Open(ctx, cfg)
		var held *journal.HeldError
		if !errors.As(err, &held) {
			return w, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Crash starts the child that command makes, kills it with SIGKILL at a random moment, and checks that everything it
// acknowledged is there and no batch is torn, over the same data for each of twenty seeds.
func Crash(t *testing.T, data Data, command func(t *testing.T) *exec.Cmd) {
	t.Helper()
	for seed := range uint64(20) {
		acknowledged := runAndKill(t, command(t), rand.New(rand.NewPCG(seed, 1)))
		h, err := data.Open()
		must(t, err)
		for i := range crashJournals {
			name := fmt.Sprintf("crash%d", i)
			got := ReadAll(t, h.Store, name, 0)
			last := uint64(len(got))
			if last < acknowledged[name] {
				t.Fatalf("seed %d: %s has %d records, and %d were acknowledged", seed, name, last, acknowledged[name])
			}
			if !equal(got, Records(0, int(last))) {
				t.Fatalf("seed %d: %s has other records than were appended", seed, name)
			}
			whole := uint64(0)
			for whole < last {
				whole += uint64(batchSize(whole))
			}
			if whole != last {
				t.Fatalf("seed %d: %s ends at record %d, within a batch that ends at %d", seed, name, last, whole)
			}
		}
		must(t, h.Close())
	}
}

// runAndKill returns the last sequence that the child acknowledged of each journal.
func runAndKill(t *testing.T, cmd *exec.Cmd, random *rand.Rand) map[string]uint64 {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	acknowledged := map[string]uint64{}
	lines := bufio.NewReader(out)
	var kill *time.Timer
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what follows the last line's end was not acknowledged
		}
		var name string
		var seq uint64
		if _, err := fmt.Sscan(line, &name, &seq); err != nil {
			t.Errorf("the child wrote %q", line)
		}
		acknowledged[name] = seq
		if kill == nil {
			kill = time.AfterFunc(time.Duration(random.Int64N(int64(40*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		}
	}
	if kill != nil {
		kill.Stop()
	}
	_ = cmd.Process.Kill() // the pipe has ended, so it is dead or dying
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() || len(acknowledged) == 0 {
		t.Fatalf("the child acknowledged %d journals and ended with %v instead of being killed: %s", len(acknowledged), err, stderr.String())
	}
	return acknowledged
}
