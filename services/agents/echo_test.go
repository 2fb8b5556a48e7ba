package agents

import (
	"fmt"
	"testing"
	"time"
)

// TestEchoEnds: a result may come once more for a minute after it was taken, and what is older is forgotten.
func TestEchoEnds(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	g := &Gateway{cfg: Config{Now: func() time.Time { return now }}, answered: map[string]time.Time{}}
	g.take("a")
	now = now.Add(50 * time.Second)
	if !g.echo("a") || g.echo("b") {
		t.Error("after 50 s it is no echo, or what never came is one")
	}
	now = now.Add(11 * time.Second)
	if g.echo("a") {
		t.Error("after 61 s it is an echo still")
	}
	for i := range 2000 {
		now = now.Add(time.Second)
		g.take(fmt.Sprint(i))
	}
	if n := len(g.answered); n > 1100 {
		t.Errorf("%d results are remembered", n)
	}
}
