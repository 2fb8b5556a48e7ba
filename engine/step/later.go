package step

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Later is the result of an attempt that came to no end yet. It is no failure: it uses up none of the step's attempts,
// opens no breaker, and is tried again. A service's handler returns it as its error; a script writes it to $JOIST_LATER.
type Later struct {
	Kind   LaterKind
	After  time.Duration // of RetryAfter: when to try again, between LeastAfter and MostAfter
	Reason string        // what is awaited, or why, for people
}

// LaterKind says which of the two it is.
type LaterKind string

// The kinds of Later.
const (
	RetryAfter LaterKind = "retry after" // the step knows when it makes sense to try again
	WaitingFor LaterKind = "waiting for" // it waits for something outside: the engine tries again, less and less often
)

// The bounds of what a step may ask for.
const (
	LeastAfter = time.Second
	MostAfter  = time.Hour
	mostReason = 1 << 10
)

// Error gives the result as a phrase.
func (l *Later) Error() string {
	if l.Kind == RetryAfter {
		return fmt.Sprintf("%s %s: %s", l.Kind, l.After, l.Reason)
	}
	return fmt.Sprintf("%s %s", l.Kind, l.Reason)
}

// ParseLater reads what a script says: one line, "retry after DURATION: REASON" or "waiting for REASON", where a duration is
// one of Go's, such as 30s. The bounds apply silently: a step cannot know them.
func ParseLater(text string) (*Later, error) {
	line, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if strings.TrimSpace(rest) != "" {
		return nil, errors.New("more than one line")
	}
	line = strings.TrimSpace(strings.ToValidUTF8(line, "\uFFFD"))
	if reason, ok := strings.CutPrefix(line, string(WaitingFor)+" "); ok {
		return newLater(WaitingFor, 0, reason)
	}
	after, ok := strings.CutPrefix(line, string(RetryAfter)+" ")
	if !ok {
		return nil, fmt.Errorf("%.60q begins with neither %q nor %q", line, RetryAfter, WaitingFor)
	}
	duration, reason, ok := strings.Cut(after, ":")
	if !ok {
		return nil, errors.New("there is no reason: write \"retry after 30s: REASON\"")
	}
	d, err := time.ParseDuration(strings.TrimSpace(duration))
	if err != nil || d < 0 {
		return nil, fmt.Errorf("%.60q is no duration such as 30s", strings.TrimSpace(duration))
	}
	return newLater(RetryAfter, d, reason)
}

func newLater(kind LaterKind, after time.Duration, reason string) (*Later, error) {
	if reason = strings.TrimSpace(reason); reason == "" {
		return nil, errors.New("the reason is empty")
	}
	if len(reason) > mostReason {
		reason = strings.ToValidUTF8(reason[:mostReason], "")
	}
	if kind == RetryAfter {
		after = min(max(after, LeastAfter), MostAfter)
	}
	return &Later{Kind: kind, After: after, Reason: reason}, nil
}
