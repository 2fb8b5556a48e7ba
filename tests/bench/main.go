// Command bench measures what design and README promise about speed, and prints one JSON line for each figure:
//
//	{"name":…,"value":…,"unit":…,"peer":…,"peer_value":…,"ratio":…}
//
// A peer is measured in the same run, on the same machine, with the same client. The ratio is always "how many times
// better than the peer", whatever the unit. Progress, skipped peers and reasons go to standard error. It listens on
// loopback and in network namespaces of its own only; the parts that need those need root.
//
// The program starts itself again for whatever has to be a process of its own (see roles).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// section is a group of figures that are measured together.
type section struct {
	name   string
	run    func(context.Context, *suite) error
	leaves time.Duration // of the whole time, for the sections after it
}

// sections in the order in which they run: what is bounded by its work first, and Terraform, which may need to be stopped,
// last; machines, which only run when they are asked for, after that.
func sections() []section {
	return []section{
		{"engine-1000", func(ctx context.Context, s *suite) error { return engine(ctx, s, 1000) }, 12 * time.Minute},
		{"engine-100", func(ctx context.Context, s *suite) error { return engine(ctx, s, 100) }, 12 * time.Minute},
		{"gather-1000", func(ctx context.Context, s *suite) error { return gather(ctx, s, 1000) }, 11 * time.Minute},
		{"clusters-1000", func(ctx context.Context, s *suite) error { return crowd(ctx, s, 1000) }, 9 * time.Minute},
		{"simulate-1000", func(ctx context.Context, s *suite) error { return simulations(ctx, s, 1000) }, 9 * time.Minute},
		{"dhcp", dhcpRates, 9 * time.Minute},
		{"dns", dnsRates, 9 * time.Minute},
		{"tftp", tftpRates, 9 * time.Minute},
		{"http", httpRates, 9 * time.Minute},
		{"agents", idleAgents, 8 * time.Minute},
		{"ansible", ansible, 4 * time.Minute},
		{"engine-10000", func(ctx context.Context, s *suite) error { return engine(ctx, s, 10_000) }, 3 * time.Minute},
		{"gather-10000", func(ctx context.Context, s *suite) error { return gather(ctx, s, 10_000) }, 3 * time.Minute},
		{"terraform", terraform, 0},
		{"kubernetes", bringups, 0},
	}
}

// suite is one run of the program.
type suite struct {
	out     *printer
	dir     string    // for data, removed at the end
	results string    // for profiles, kept
	ends    time.Time // when everything must be over
	control []int     // of clusters of Kubernetes to bring up on virtual machines
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		return
	}
	only := flag.String("only", "", "run the sections whose name matches this regular expression")
	results := flag.String("out", "build/bench", "folder for profiles and results.jsonl")
	control := flag.String("control", "", "numbers of control-plane machines, such as 1,3, with which Kubernetes is brought up on virtual machines; empty for not at all")
	limit := flag.Duration("limit", 20*time.Minute, "time for everything; what does not fit is cut short and says so")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	machines, err := parseControl(*control)
	if err == nil {
		err = measure(ctx, &suite{results: *results, control: machines}, *only, *limit)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measure runs the sections of a suite, of which results and control are given.
func measure(ctx context.Context, s *suite, only string, limit time.Duration) (err error) {
	choice, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if s.results, err = filepath.Abs(s.results); err != nil {
		return err
	}
	if err := os.MkdirAll(s.results, 0o755); err != nil {
		return err
	}
	kept, err := os.Create(filepath.Join(s.results, "results.jsonl"))
	if err != nil {
		return err
	}
	// On the disk of the results, not in /tmp, which may be memory: an fsync there would cost nothing.
	if s.dir, err = os.MkdirTemp(s.results, "data-"); err != nil {
		return errors.Join(err, kept.Close())
	}
	s.out, s.ends = &printer{kept: kept}, time.Now().Add(limit)
	defer func() { err = errors.Join(err, kept.Close(), os.RemoveAll(s.dir)) }()
	progress("load average %s on %s", loadAverage(), processors())
	for _, part := range sections() {
		if !choice.MatchString(part.name) {
			continue
		}
		begun := time.Now()
		until := s.ends
		if limit > part.leaves {
			until = until.Add(-part.leaves)
		}
		timed, cancel := context.WithDeadline(ctx, until)
		failed := part.run(timed, s)
		if failed != nil && timed.Err() != nil && ctx.Err() == nil {
			failed = errors.Join(errors.New("cut short: it took longer than its share of the time"), failed)
		}
		cancel()
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", part.name, failed))
			progress("%s FAILED: %v", part.name, failed)
		}
		progress("%s took %.1f s; load average %s", part.name, time.Since(begun).Seconds(), loadAverage())
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return err
}
