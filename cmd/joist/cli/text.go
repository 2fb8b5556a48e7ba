package cli

import (
	"io"
	"strings"
	"time"

	"joist/cmd/joist/layout"
	"joist/services/boot/phase"
)

// colour says whether an output takes colours: a terminal does, unless NO_COLOR is set or it is a dumb one.
func (a *app) colour(w io.Writer) layout.Paint {
	_, _, ok := terminal(w)
	return layout.Paint(ok && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb")
}

// when gives a time as people want it: how long ago, and the clock's time.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	now := a.Now()
	if t.After(now) {
		return "in " + strings.TrimSuffix(phase.Ago(t.Sub(now)), " ago") + " (" + layout.Clock(t, now) + ")"
	}
	return phase.Ago(now.Sub(t)) + " (" + layout.Clock(t, now) + ")"
}
