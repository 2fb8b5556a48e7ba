// Package lab is for tests.
package lab

import _ "joist/cmd/system"
