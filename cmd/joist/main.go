// Command joist takes machines from power-on to a running cluster: the engine (joist serve) and the command line that
// speaks to it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"joist/cmd/joist/cli"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	code := cli.Run(ctx, cli.Env{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version,
		Local: local(),
	})
	stop()
	os.Exit(code)
}
