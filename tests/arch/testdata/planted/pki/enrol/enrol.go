// Package enrol stands beside.
package enrol

import _ "joist/dhcp-dns/zone" // want tiers
