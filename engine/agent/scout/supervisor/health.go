package supervisor

import "time"

// giveUp is how long scout may fail without any success before the machine reboots.
const giveUp = 15 * time.Minute

// health decides, from what the agent reports, when the machine has failed for so long that a reboot is the better
// chance. It is pure: the caller says what time it is, on a clock that is not set.
type health struct {
	failing bool
	since   time.Duration
	last    string // what was shown last
	shown   time.Duration
}

// fail notes a failure and tells whether to show it: each new message at once, a repeated one every minute.
func (h *health) fail(now time.Duration, message string) (show bool) {
	if !h.failing {
		h.failing, h.since = true, now
	}
	if message == h.last && now-h.shown < time.Minute {
		return false
	}
	h.last, h.shown = message, now
	return true
}

// ok notes a success, which ends the series of failures.
func (h *health) ok() { *h = health{} }

// expired tells whether to reboot.
func (h *health) expired(now time.Duration) bool { return h.failing && now-h.since >= giveUp }

// left is the time until expiry; the whole period while nothing fails.
func (h *health) left(now time.Duration) time.Duration {
	if !h.failing {
		return giveUp
	}
	return max(0, giveUp-(now-h.since))
}

// backoff is the wait before the agent's n-th restart in a row, n from 0: 1 s doubling to 30 s.
func backoff(n int) time.Duration {
	if n >= 5 {
		return 30 * time.Second
	}
	return time.Second << n
}
