package etcd_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCrashes converges two clusters at the same time on one engine, which is killed three times meanwhile, and cuts one
// machine from power in the middle of its run.
func TestCrashes(t *testing.T) {
	l := newLab(t, 4)
	kill := func(when string) {
		t.Helper()
		l.end("engine", syscall.SIGKILL)
		t.Logf("%s: the engine is killed, load %s", when, load())
		l.up(4)
	}
	l.must("apply", "--no-wait", l.file("red", "proof.etcd", 2, ""))
	l.must("apply", "--no-wait", l.file("blue", "proof.plain", 2, ""))

	l.await("an enrolment", patience, func(e *event) bool { return e.Kind == "enrolment" && e.fact.Kind == "accepted" })
	kill("in the middle of booting")

	l.await("the first mark on a node", patience, is("red", "started", "one"))
	kill("in the middle of steps")

	cut := l.await("the second mark", patience, is("blue", "started", "two"))
	l.end("vm-"+cut.Node, syscall.SIGKILL)
	t.Logf("%s is cut from power", cut.Node)

	l.await("a member's start", patience, is("red", "started", "etcd.member"))
	kill("in the middle of founding")

	l.pursue("converged", "watch", "red")
	l.pursue("converged", "watch", "blue")
	l.unchanged("red")
	l.unchanged("blue")
	red, blue := l.status("red"), l.status("blue")

	again := l.await("a new incarnation of "+cut.Node, time.Minute, func(e *event) bool {
		return e.Journal == "cluster/blue" && e.Kind == "node.seen" && e.Node == cut.Node && e.Online && e.Incarnation != "" && e.Incarnation != cut.Incarnation
	})
	for _, m := range blue.Members {
		if m.Name == cut.Node && m.Incarnation != again.Incarnation {
			t.Errorf("%s has the incarnation %s, its agent spoke of %s", m.Name, m.Incarnation, again.Incarnation)
		}
	}
	l.apart(red, blue)
	l.once("red", red.Members, "one\ntwo\nnote good\nlast good")
	l.once("blue", blue.Members, "one\ntwo\nthree")
	pki := l.clients("red", red.Members)
	l.foreign(pki)

	// Whatever was killed, taking the lab down leaves nothing: the cleanup looks.
	l.end("engine", syscall.SIGKILL)
	l.end("vm-"+red.Members[0].Name, syscall.SIGKILL)
}

// is tells the events of a kind about a task.
func is(cluster, kind, task string) func(*event) bool {
	return func(e *event) bool { return e.Journal == "cluster/"+cluster && e.Kind == kind && e.Task == task }
}

// apart wants two clusters without a machine, an address or a name in common.
func (l *lab) apart(a, b cluster) {
	l.Helper()
	seen := map[string]string{}
	for i, c := range []cluster{a, b} {
		if len(c.Members) != 2 {
			l.Errorf("members: %+v", c.Members)
		}
		for _, m := range c.Members {
			for _, what := range []string{m.Name, m.Address, m.Incarnation} {
				if other, taken := seen[what]; taken {
					l.Errorf("%s belongs to %s and to %s", what, other, m.Name)
				}
				seen[what] = m.Name
			}
		}
		l.names([]string{"red", "blue"}[i], c.Members)
	}
	for service, digest := range a.Digests {
		if b.Digests[service] == digest {
			l.Errorf("both clusters have the same entries in %s", service)
		}
	}
}

// once wants that nothing that was done was done again, as the journal says and, past engine and agent, the nodes. A
// machine that lost its memory does it all again, once.
func (l *lab) once(cluster string, members []member, ticks string) {
	l.Helper()
	l.last(cluster)
	done := map[string]bool{}
	lives := map[string]string{} // incarnation by node
	l.each(func(e *event) {
		if e.Journal != "cluster/"+cluster {
			return
		}
		was := lives[e.Node]
		if e.Kind == "node.seen" && e.Incarnation != "" {
			lives[e.Node] = e.Incarnation
		}
		switch {
		case e.Kind == "node.ended", e.Kind == "node.seen" && was != lives[e.Node]:
			// What was done for an incarnation that has ended may be done again, and nothing else.
			for instance := range done {
				if strings.HasSuffix(instance, "["+e.Node+"]") {
					delete(done, instance)
				}
			}
		case e.Action == "remove":
		case e.Kind == "started" && done[e.instance()]:
			l.Errorf("%s: %s was done and is started again (event %d)", cluster, e.instance(), e.Seq)
		case e.Kind == "succeeded":
			done[e.instance()] = true
		}
	})
	for _, m := range members {
		if got := l.probe(m.Address, "ticks"); got != ticks {
			l.Errorf("%s: what ran on %s:\n%s\nwant each once:\n%s", cluster, m.Name, got, ticks)
		}
	}
}

// foreign wants that a certificate of one cluster opens nothing of another.
func (l *lab) foreign(pki string) {
	l.Helper()
	other := pki + "-blue"
	l.must("cert", "--cluster", "blue", "--dir", other)
	out, err := l.etcdctl(pki, append(withKey(other), "--endpoints=https://etcd.red.lab:2379", "get", "greeting")...)
	if err == nil {
		l.Errorf("red serves a client of blue: %s", out)
	}
	if !slices.ContainsFunc([]string{"bad certificate", "unknown certificate", "context deadline exceeded", "certificate"}, func(s string) bool { return strings.Contains(out, s) }) {
		l.Error(fmt.Errorf("a client of blue at red: %w: %s", err, out))
	}
}
