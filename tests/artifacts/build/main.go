// Build builds the artifacts of a Kubernetes cluster from source; see package artifacts.
//
//	go run ./tests/artifacts/build -out build/artifacts
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"joist/tests/artifacts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	start := time.Now()
	var config artifacts.Config
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	flags.StringVar(&config.Source, "source", "tests/artifacts", "folder of the package artifacts")
	flags.StringVar(&config.Out, "out", "build/artifacts", "folder that receives builds")
	flags.StringVar(&config.Cache, "cache", "", "folder that keeps finished programs (default OUT/.cache)")
	flags.StringVar(&config.Arch, "arch", "", "architecture, as Go names it (default this machine's)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config.Progress = func(stage, detail string) {
		fmt.Fprintf(os.Stderr, "%7s  %-8s %s\n", time.Since(start).Round(100*time.Millisecond), stage, detail)
	}
	set, err := artifacts.Build(ctx, config)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, a := range set.Artifacts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f MB\t%s\n", a.Kind, a.Name, a.Version, float64(a.Size)/1e6, a.SHA256[:16])
	}
	return w.Flush()
}
