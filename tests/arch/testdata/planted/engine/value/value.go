// Package value may know cty.
package value

import _ "github.com/zclconf/go-cty/cty"
