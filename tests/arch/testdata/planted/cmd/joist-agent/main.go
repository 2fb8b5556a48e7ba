// Command joist-agent composes itself.
package main

import _ "joist/cmd/system" // want tiers

func main() {}
