package supervisor

import (
	"testing"
	"time"
)

func TestHealth(t *testing.T) {
	type event struct {
		at   time.Duration
		fail string // "" is a success
	}
	tests := []struct {
		name    string
		events  []event
		at      time.Duration
		expired bool
	}{
		{"nothing happened", nil, time.Hour, false},
		{"failing for less", []event{{0, "x"}}, 14*time.Minute + 59*time.Second, false},
		{"failing for long", []event{{0, "x"}}, 15 * time.Minute, true},
		{"each failure is of one series", []event{{0, "x"}, {10 * time.Minute, "y"}}, 15 * time.Minute, true},
		{"a success ends the series", []event{{0, "x"}, {14 * time.Minute, ""}, {14 * time.Minute, "x"}}, 20 * time.Minute, false},
		{"and a new one begins", []event{{0, "x"}, {14 * time.Minute, ""}, {14 * time.Minute, "x"}}, 29 * time.Minute, true},
		{"failing since the kernel started", []event{{time.Second, "x"}}, 15*time.Minute + time.Second, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h health
			for _, e := range tt.events {
				if e.fail == "" {
					h.ok()
				} else {
					h.fail(e.at, e.fail)
				}
			}
			if got := h.expired(tt.at); got != tt.expired {
				t.Errorf("expired %v, want %v", got, tt.expired)
			}
		})
	}
}

func TestHealthShowsARepeatedMessageOnceAMinute(t *testing.T) {
	var h health
	for _, step := range []struct {
		at      time.Duration
		message string
		show    bool
	}{{0, "a", true}, {time.Second, "a", false}, {2 * time.Second, "b", true}, {3 * time.Second, "b", false}, {62 * time.Second, "b", true}} {
		if got := h.fail(step.at, step.message); got != step.show {
			t.Errorf("at %s %q: show %v, want %v", step.at, step.message, got, step.show)
		}
	}
	if left := h.left(5 * time.Minute); left != 10*time.Minute {
		t.Errorf("%s left, want 10m", left)
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 4: 16 * time.Second, 5: 30 * time.Second, 1000: 30 * time.Second} {
		if got := backoff(n); got != want {
			t.Errorf("backoff(%d) = %s, want %s", n, got, want)
		}
	}
}
