// Command joist composes.
package main

import (
	"os"

	_ "joist/cmd/system"
)

func main() { os.Exit(0) }
