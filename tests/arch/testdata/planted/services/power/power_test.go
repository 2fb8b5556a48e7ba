package power_test

import (
	_ "joist/providers/sim"
	_ "joist/services/names" // want tiers
)
