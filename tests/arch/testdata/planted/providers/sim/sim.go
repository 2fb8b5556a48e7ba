// Package sim is a provider.
package sim

import (
	_ "joist/providers/qemu" // want tiers
	_ "joist/services/power"
)
