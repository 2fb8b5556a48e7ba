// Package names is a service.
package names

import (
	"joist/engine/drive"

	_ "joist/services/names/cache"
	_ "joist/services/power" // want tiers
)

func change() {
	drive.Exported = 1 // want state
}
