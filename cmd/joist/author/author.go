// Package author has the commands for authors of packs: simulate, pack check and pack test.
package author

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"joist/cmd/joist/layout"
	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

// Options is what joist simulate was told.
type Options struct {
	Source   v1.Source
	Nodes    int
	Seed     uint64
	Faults   []string
	Recorded []byte
	Again    int
	Check    bool
	Progress func(Progress)
	Events   func(v1.Event) error // takes the journal in the end; nil for nobody
}

// Progress is how far a simulation has come.
type Progress struct {
	Events         uint64
	Runs, Failures int
	Crashes        int
	Virtual        time.Duration
}

// Simulated is what came of a simulation.
type Simulated struct {
	Cluster   string    `json:"cluster"`
	Workflow  string    `json:"workflow"`
	Nodes     int       `json:"nodes"`
	Instances int       `json:"instances"`
	Seed      uint64    `json:"seed"`
	Faults    []string  `json:"faults"`
	Outcome   string    `json:"outcome"` // converged or stopped
	Detail    string    `json:"detail,omitempty"`
	Goals     int       `json:"goals"`    // 1, and one more for each time the goal was set again after it had stopped
	Events    uint64    `json:"events"`   // of the journal
	Runs      int       `json:"runs"`     // attempts that ended
	Failures  int       `json:"failures"` // of them, badly
	Crashes   int       `json:"crashes"`  // of machines and of the engine
	Virtual   float64   `json:"virtual_seconds"`
	Real      float64   `json:"real_seconds"`
	Path      []Link    `json:"critical_path"`
	Failed    []v1.Item `json:"failed"`                // what failed for good, at most 20
	More      int       `json:"more_failed,omitempty"` // besides
	// Blocked is what is at the bottom of all that was left, if it did not converge: as joist status has it.
	Blocked  []v1.Blockage `json:"blocked"`
	Diverged int           `json:"diverged"` // decisions that a replay makes otherwise
	Digest   string        `json:"digest"`   // of the journal: the same for the same simulation
}

// Link is one action of the critical path.
type Link struct {
	Instance string  `json:"instance"`
	Waited   float64 `json:"waited"` // seconds since the link before had ended
	Took     float64 `json:"took"`   // seconds, over all attempts
	Attempts int     `json:"attempts"`
	Rollout  string  `json:"rollout,omitempty"`
}

// PackTests is what came of a pack's tests.
type PackTests struct {
	Dir      string           `json:"dir"`
	Passed   bool             `json:"passed"`
	Tests    []PackTest       `json:"tests"`
	Findings diag.Diagnostics `json:"findings,omitempty"`
}

// PackTest is one test.
type PackTest struct {
	Name    string  `json:"name"`
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Passed  bool    `json:"passed"`
	Runs    int     `json:"runs"`
	Events  uint64  `json:"events"`
	Digest  string  `json:"digest"`
	Virtual float64 `json:"virtual_seconds"`
	Real    float64 `json:"real_seconds"`
}

// Tools is what the commands are made of.
type Tools struct {
	Out, Err   io.Writer
	Red, Green func(string) string // colours of Out, where it has any
	Faint      func(string) string
	Table      func(w io.Writer, rows [][]string)
	Text       func() bool                            // whether the output is for people
	Terminal   func() bool                            // whether Err is a terminal
	JSON       func(v any) error                      // writes v
	Source     func(string) (*v1.Source, error)       // reads a cluster file with its packs
	Usage      func(format string, args ...any) error // an error about the command line
	Stopped    error                                  // ends the program where a simulation did not converge

	// CheckPack checks a pack's folder, CheckCluster a cluster file with its packs.
	CheckPack, CheckCluster func(path string) (diag.Diagnostics, error)
	// Simulate runs a cluster file on simulated machines.
	Simulate func(ctx context.Context, o Options) (*Simulated, error)
	// TestPack runs the tests of a pack's folder that have only in their names.
	TestPack func(ctx context.Context, dir, only string) (*PackTests, error)
}

func (a *Tools) printf(format string, args ...any) { fmt.Fprintf(a.Out, format, args...) }

// SimulateCommand is joist simulate.
func (a *Tools) SimulateCommand() *cobra.Command {
	o := Options{}
	var recorded, journal string
	c := &cobra.Command{
		Use:   "simulate FILE",
		Short: "Run a cluster file on simulated machines in virtual time",
		Long: `simulate runs a cluster file without an engine and without machines: its core decides as it would, and simulated machines
and services perform, in virtual time. Scripts do not run: each step yields values of its declared types, or with
--recorded what it yielded in a real run, as joist events -o json wrote it. With --nodes the largest role without a limit
grows. Faults: crash (machines lose power, the engine is killed), partition, slow, lie (undeclared outputs), fail, lose and
duplicate (messages).

The same file, nodes, faults and seed give the same journal, whose digest is printed. It exits with 4 if the cluster did
not converge.`,
		Example: "  joist simulate demo.hcl --nodes 1000 --seed 7 --faults crash,partition,slow,lie\n  joist simulate demo.hcl -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("nodes") && o.Nodes < 1 {
				return a.Usage("--nodes is %d: write a number from 1 up", o.Nodes)
			}
			s, err := a.Source(args[0])
			if err != nil {
				return err
			}
			o.Source = *s
			if recorded != "" {
				if o.Recorded, err = os.ReadFile(recorded); err != nil {
					return fmt.Errorf("cannot read what was recorded: %w", err)
				}
			}
			return a.simulate(cmd.Context(), o, journal)
		},
	}
	f := c.Flags()
	f.IntVar(&o.Nodes, "nodes", 0, "machines in all (default: those that the file wants)")
	f.Uint64Var(&o.Seed, "seed", 1, "what everything random follows from")
	f.StringSliceVar(&o.Faults, "faults", nil, "what goes wrong: crash,partition,slow,lie,fail,lose,duplicate")
	f.StringVar(&recorded, "recorded", "", "answer with the outputs in this file, as joist events -o json writes it")
	f.StringVar(&journal, "journal", "", "write the journal into this file, one event in each line")
	f.IntVar(&o.Again, "again", 3, "how often the goal is set again after it has stopped")
	f.BoolVar(&o.Check, "check", false, "replay the journal in the end, and compare every decision")
	faults := cobra.FixedCompletions([]string{"crash", "partition", "slow", "lie", "fail", "lose", "duplicate"}, cobra.ShellCompDirectiveNoFileComp)
	if err := c.RegisterFlagCompletionFunc("faults", faults); err != nil {
		panic("internal error: " + err.Error())
	}
	return c
}

func (a *Tools) simulate(ctx context.Context, o Options, journal string) (err error) {
	if a.Terminal() && a.Text() {
		o.Progress = func(p Progress) {
			fmt.Fprintf(a.Err, "\r%s of virtual time: %d runs, %d failures, %d events \x1b[K", p.Virtual.Round(time.Second), p.Runs, p.Failures, p.Events)
		}
		defer fmt.Fprint(a.Err, "\r\x1b[K")
	}
	if journal != "" {
		f, failed := os.Create(journal)
		if failed != nil {
			return fmt.Errorf("cannot write the journal: %w", failed)
		}
		defer func() {
			if closed := f.Close(); err == nil && closed != nil {
				err = fmt.Errorf("cannot write the journal: %w", closed)
			}
		}()
		enc := json.NewEncoder(f)
		o.Events = func(e v1.Event) error { return enc.Encode(e) }
	}
	s, err := a.Simulate(ctx, o)
	if err != nil {
		return err
	}
	if a.Text() {
		a.writeSimulated(s)
	} else if err := a.JSON(s); err != nil {
		return err
	}
	switch {
	case s.Diverged > 0:
		return fmt.Errorf("internal error: a replay makes %d decisions otherwise; please report the file and the seed", s.Diverged)
	case s.Outcome != "converged":
		return a.Stopped
	}
	return nil
}

func (a *Tools) writeSimulated(s *Simulated) {
	if len(s.Path) > 0 {
		rows := [][]string{{"CRITICAL PATH", "WAITED", "TOOK", "", ""}}
		for _, l := range s.Path {
			attempts, place := "", ""
			if l.Attempts > 1 {
				attempts = strconv.Itoa(l.Attempts) + " attempts"
			}
			if l.Rollout != "" {
				place = "in rollout " + l.Rollout
			}
			rows = append(rows, []string{l.Instance, fmt.Sprintf("%.1f s", l.Waited), fmt.Sprintf("%.1f s", l.Took), attempts, place})
		}
		a.Table(a.Out, shortened(rows, 24))
		a.printf("\n")
	}
	for _, it := range s.Failed {
		a.printf("%s %s: %s\n", a.Red("failed"), it.Instance, strings.TrimSpace(it.Error))
	}
	if s.More > 0 {
		a.printf("%s %d more\n", a.Red("failed"), s.More)
	}
	layout.Blocked(a.Out, a.Red, s.Blocked)
	outcome := a.Green(s.Outcome)
	if s.Outcome != "converged" {
		outcome = a.Red(s.Outcome)
	}
	a.printf("cluster %s (%s) %s", s.Cluster, s.Workflow, outcome)
	if s.Detail != "" {
		a.printf(": %s", s.Detail)
	}
	a.printf("\n")
	rows := [][]string{
		{"  machines, instances", fmt.Sprintf("%d, %d", s.Nodes, s.Instances)},
		{"  runs", fmt.Sprintf("%d, of them %d failed; %d crashes", s.Runs, s.Failures, s.Crashes)},
	}
	if s.Goals > 1 {
		rows = append(rows, []string{"  goal set again", layout.Counted(s.Goals-1, "time") + ", after it had stopped"})
	}
	if len(s.Faults) > 0 {
		rows = append(rows, []string{"  faults", strings.Join(s.Faults, ", ")})
	}
	a.Table(a.Out, append(rows, [][]string{
		{"  virtual time", (time.Duration(s.Virtual*1000) * time.Millisecond).Round(time.Second).String()},
		{"  real time", fmt.Sprintf("%.2f s", s.Real)},
		{"  seed", strconv.FormatUint(s.Seed, 10)},
		{"  journal", fmt.Sprintf("%d events, digest %s", s.Events, s.Digest)},
	}...))
}

// shortened leaves out the middle of a long table.
func shortened(rows [][]string, most int) [][]string {
	if len(rows) <= most {
		return rows
	}
	half := most / 2
	gap := make([]string, len(rows[0]))
	gap[0] = fmt.Sprintf("… %d more", len(rows)-2*half)
	return append(append(append([][]string{}, rows[:half]...), gap), rows[len(rows)-half:]...)
}

// PackTestCommand is joist pack test.
func (a *Tools) PackTestCommand() *cobra.Command {
	var only string
	c := &cobra.Command{
		Use: "test DIR...", Short: "Run the tests of packs on simulated machines",
		Long: `test runs what stands in DIR/tests/*.hcl: clusters of simulated machines in virtual time, whose steps are answered by
fakes, and what is expected of their plans, order, outputs and removals. docs/authors.md says how to write them.`,
		Example: "  joist pack test content/etcd\n  joist pack test content/etcd --only joins", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.testPacks(cmd.Context(), args, only)
		},
	}
	c.Flags().StringVar(&only, "only", "", "only tests with this in their names")
	return c
}

func (a *Tools) testPacks(ctx context.Context, dirs []string, only string) error {
	all := []PackTests{}
	ran, bad := 0, 0
	for _, dir := range dirs {
		p, err := a.TestPack(ctx, dir, only)
		if err != nil {
			return err
		}
		all = append(all, *p)
		failed := 0
		for _, t := range p.Tests {
			word := a.Green("pass")
			if !t.Passed {
				failed++
				word = a.Red("FAIL")
			}
			if a.Text() {
				a.printf("%s  %s  %s\n", word, t.Name, a.Faint(fmt.Sprintf("%s:%d, %d runs in %s of virtual time, %.3f s", t.File, t.Line, t.Runs, time.Duration(t.Virtual*float64(time.Second)).Round(time.Second), t.Real)))
			}
		}
		ran += len(p.Tests)
		if !p.Passed {
			bad += max(failed, 1)
		}
		if a.Text() {
			_ = p.Findings.WriteText(a.Err)
		}
	}
	if !a.Text() {
		if err := a.JSON(all); err != nil {
			return err
		}
	}
	switch {
	case bad > 0:
		return fmt.Errorf("%d of %d tests failed", bad, max(ran, bad))
	case ran == 0 && only != "":
		return fmt.Errorf("no test has %q in its name", only)
	case a.Text():
		a.printf("%s passed\n", layout.Counted(ran, "test"))
	}
	return nil
}
