// Package helpers has no noun.
package helpers // want names
