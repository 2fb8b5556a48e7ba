// Package zone is pure.
package zone

import _ "github.com/miekg/dns" // want homes
