// Package cache belongs to names.
package cache
