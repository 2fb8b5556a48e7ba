// Package power is a contract.
package power
