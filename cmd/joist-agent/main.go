// Command joist-agent is the program on a machine: as PID 1 of scout its supervisor, as the supervisor's child the
// agent that enrols and fetches a node image, and under that image's systemd the agent that runs steps.
package main

import (
	"log/slog"
	"os"

	"joist/engine/agent/scout"
)

// version is the release, set when it is built.
var version = "dev"

func main() {
	os.Exit(scout.Main(os.Args, func(log *slog.Logger) (scout.Engine, error) { return engine{log: log}, nil }))
}
