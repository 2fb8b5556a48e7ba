package scout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"joist/engine/agent/scout/cmdline"
	"joist/engine/agent/scout/supervisor"
)

// Main is the agent program, whichever of its parts the process is: PID 1 of the initramfs is the supervisor, "scout"
// its child, "node" the agent under the node image's systemd. newEngine makes the engine's side. It returns the
// process's exit status.
func Main(args []string, newEngine func(log *slog.Logger) (Engine, error)) int {
	if os.Getpid() == 1 {
		supervisor.Run(supervisor.Config{})
	}
	stage := ""
	if len(args) == 2 {
		stage = args[1]
	}
	if stage != "scout" && stage != "node" {
		fmt.Fprintln(os.Stderr, "usage: joist-agent scout|node\n\nThe agent is started by scout's supervisor (scout) and by systemd in a node image (node).")
		return 2
	}
	log := slog.New(slog.NewTextHandler(logTo(), &slog.HandlerOptions{ReplaceAttr: shortTime}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	engine, err := newEngine(log)
	if err == nil && stage == "node" {
		err = RunNode(ctx, engine, log)
	}
	if stage == "scout" {
		report := NewReporter()
		if err == nil {
			err = RunScout(ctx, engine, report, log)
		}
		if err != nil {
			report.Fail(err)
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Error("the agent ends", "stage", stage, "error", err)
		return 1
	}
	return 0
}

// logTo is standard error and, if the command line names one, a second terminal.
func logTo() io.Writer {
	// Half a command line is enough here; RunScout reports what is wrong with the rest.
	params, _ := cmdline.Parse(readText("/proc/cmdline"))
	if params.Log == "" {
		return os.Stderr
	}
	f, err := os.OpenFile("/dev/"+params.Log, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return os.Stderr
	}
	return io.MultiWriter(os.Stderr, terminal{f})
}

// terminal writes whole lines to a terminal that adds no carriage returns of its own, and never fails: a console
// that nobody reads must not silence the other.
type terminal struct{ w io.Writer }

func (t terminal) Write(p []byte) (int, error) {
	_, _ = io.WriteString(t.w, strings.ReplaceAll(string(p), "\n", "\r\n")) // see above
	return len(p), nil
}

// shortTime leaves out the date: a console line is short, and scout's clock may be wrong anyhow.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 {
		return slog.String("up", fmt.Sprintf("%.2f", bootClock().Seconds()))
	}
	return a
}
