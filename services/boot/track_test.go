package boot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"joist/services/boot/decide"
	"joist/services/boot/phase"
)

// heard is an Observer that keeps what it is told.
type heard struct{ notices []string }

func (*heard) Reached(decide.MAC, phase.Mark) {}

func (h *heard) Notice(mac decide.MAC, text string) {
	h.notices = append(h.notices, string(mac)+": "+text)
}

// TestForgedNotices: who makes up machines by the thousand gets some notices and no more, and what was left out is counted where
// there is room again. A machine that says the same again is told of once, and spends nothing.
func TestForgedNotices(t *testing.T) {
	h := &heard{}
	tr := newTracker(h)
	now := time.Unix(1e9, 0)
	for range 100 {
		tr.notice("52:54:00:00:00:01", "real", now)
	}
	for i := range 5000 {
		tr.notice(decide.MAC(fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255)), "forged", now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(h.notices) != noticeBurst {
		t.Fatalf("%d notices, want %d", len(h.notices), noticeBurst)
	}
	now = now.Add(3 * time.Minute)
	for _, mac := range []decide.MAC{"52:54:00:00:00:02", "52:54:00:00:00:03"} {
		tr.notice(mac, "no loader", now)
	}
	after := h.notices[noticeBurst:]
	if len(after) != 2 || !strings.Contains(after[0], "no loader (before it, 4981 notices about machines were left out") || strings.Contains(after[1], "left out") {
		t.Errorf("then: %q", after)
	}
	tr.notice("52:54:00:00:00:04", "an hour later", now.Add(24*time.Hour))
	for i := range 2 * noticeBurst {
		tr.notice(decide.MAC(fmt.Sprintf("02:00:00:01:00:%02x", i)), "forged", now.Add(24*time.Hour))
	}
	if got := len(h.notices) - noticeBurst - 2; got != noticeBurst {
		t.Errorf("a day of peace allows %d at once, want %d", got, noticeBurst)
	}
}
