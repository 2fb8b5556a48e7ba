package entries_test

import (
	"testing"

	"joist/engine/entries"
	"joist/engine/entries/entriestest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	entriestest.Run(t, func(*testing.T) entries.Store { return &entries.Memory{} })
}
