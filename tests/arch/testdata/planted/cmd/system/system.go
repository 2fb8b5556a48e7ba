// Package system is the composition root.
package system
