// Package agent enrols, for which there is an exception.
package agent

import _ "joist/pki/enrol"
