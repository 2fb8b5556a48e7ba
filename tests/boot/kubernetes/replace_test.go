package kubernetes_test

import (
	"strings"
	"testing"
)

// TestReplace replaces one of three control-plane machines that were founded together: what the one that left has signed is taken by
// all, also by the one that never saw it.
func TestReplace(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"n1", "n5", "n6"} {
		l.machine(name, controlMemory)
	}
	l.machine("n2", workerMemory)
	l.first("three founders", func(l *own) {
		o := l.Pursue("converged", "apply", l.file(goal{control: []string{"n1", "n5", "n6"}, worker: []string{"n2"}}))
		l.Logf("%d steps done, %d attempts failed", o.Done, o.Failures)
		l.retries()
		l.Unchanged("demo")
		l.client()
		l.tokens([]string{"n1", "n5", "n6"})
	})
	l.sub("another one", func(l *own) {
		token := l.token("n6")
		l.machine("n7", controlMemory)
		l.Pursue("converged", "apply", l.file(goal{control: []string{"n1", "n5", "n7"}, worker: []string{"n2"}}))
		l.Unchanged("demo")
		if got := strings.Join(l.members(), " "); got != "n1 n5 n7" {
			l.Errorf("members of etcd: %s", got)
		}
		l.tokens([]string{"n1", "n5", "n7"})
		for _, asked := range []string{"n1", "n5", "n7"} {
			if got := l.answers(asked, token); got != "403" {
				l.Errorf("%s answers a token that n6 has signed, which left, with %s", asked, got)
			}
		}
	})
	l.sub("destroy", func(l *own) {
		l.Pursue("destroyed", "destroy", "demo", "--yes")
		l.Free("demo", 5)
	})
}
