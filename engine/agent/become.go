package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"joist/engine/agent/wire"
)

// becoming works towards the target of a machine in the discovery image, one at a time, the newest one always.
type becoming struct {
	agent *Agent
	next  chan wire.Target // the newest target; holds one
	done  sync.WaitGroup

	mu    sync.Mutex
	image wire.Target // the newest target that named an image, whether it is to be reached yet or not
}

func newBecoming(a *Agent) *becoming { return &becoming{agent: a, next: make(chan wire.Target, 1)} }

// want replaces the target. Only the session's reader calls it.
func (b *becoming) want(t wire.Target) {
	if t.Message != "" {
		b.agent.cfg.Console(t.Message)
	}
	if b.agent.cfg.Stage != wire.Scout || b.agent.cfg.Become == nil {
		return // a running system changes by a reboot
	}
	if t.Image != nil {
		b.mu.Lock()
		b.image = t
		b.mu.Unlock()
	}
	select {
	case <-b.next:
	default:
	}
	b.next <- t
}

// tools gives how scripts find their root in the discovery image, which has no shell of its own: in the node image that the
// machine is for. Nil where they have the agent's own.
func (a *Agent) tools() func(ctx context.Context) (string, error) {
	if a.cfg.Stage != wire.Scout || a.cfg.Tools == nil {
		return nil
	}
	return func(ctx context.Context) (string, error) {
		a.become.mu.Lock()
		image := a.become.image
		a.become.mu.Unlock()
		if image.Image == nil {
			return "", errors.New("the engine has not said which node image this machine is for, and a script runs with the tools of that")
		}
		return a.cfg.Tools(ctx, image)
	}
}

// start works until ctx ends or a target is reached, and then calls reached.
func (b *becoming) start(ctx context.Context, reached func()) {
	b.done.Go(func() {
		if b.work(ctx) {
			reached()
		}
	})
}

func (b *becoming) wait() { b.done.Wait() }

// work pursues one target after another; it reports whether one is reached.
func (b *becoming) work(ctx context.Context) bool {
	back := backoff{first: 2 * time.Second, limit: time.Minute}
	var target wire.Target
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case t := <-b.next:
			if sameTarget(t, target) {
				continue
			}
			target = t
			back.reset()
		case <-again:
		}
		again = nil
		if target.Kind != wire.NodeImage {
			continue
		}
		err := b.agent.cfg.Become(ctx, target)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		text := "cannot become a node: " + err.Error()
		b.agent.cfg.Console(text)
		b.agent.report(text)
		again = time.After(back.next())
	}
}

func sameTarget(a, b wire.Target) bool {
	if a.Kind != b.Kind || (a.Image == nil) != (b.Image == nil) {
		return false
	}
	return a.Image == nil || *a.Image == *b.Image
}
