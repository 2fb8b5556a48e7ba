// Package content reads packs.
package content

import _ "joist/workflows/lang"
