// Package lang is the language.
package lang

import _ "joist/content" // want tiers
