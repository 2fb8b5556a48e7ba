package pace

import (
	"fmt"
	"testing"
	"time"

	"joist/engine/history"
)

// TestRenewal: a success expires when a third of its life is left, and up to a tenth of that life before, at no time that others share.
func TestRenewal(t *testing.T) {
	done := time.Unix(1_000_000, 0)
	row := &history.Row{Done: done, Due: done.Add(30 * time.Hour)}
	early, late := 0, 0
	for i := range 1000 {
		at := Renewal(history.Target{Task: "cert", Node: fmt.Sprintf("n%d", i)}, row).Sub(done)
		switch {
		case at <= 17*time.Hour || at > 20*time.Hour:
			t.Fatalf("what lives for 30 h is renewed after %v", at)
		case at < 18*time.Hour:
			early++
		case at > 19*time.Hour:
			late++
		}
	}
	if early < 200 || late < 200 {
		t.Errorf("of 1000, %d are renewed in the first third of the time for that and %d in the last", early, late)
	}
	row.Due = done.Add(time.Second)
	if at := Renewal(history.Target{Task: "cert", Node: "n1"}, row); !at.Equal(done.Add(shortestLife)) {
		t.Errorf("what hardly lives is renewed after %v", at.Sub(done))
	}
}
