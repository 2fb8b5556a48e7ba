// Package qemu is a provider.
package qemu

import _ "joist/services/names" // want tiers
