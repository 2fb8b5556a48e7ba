// Package attic stands in a folder of its own.
package attic // want tiers
