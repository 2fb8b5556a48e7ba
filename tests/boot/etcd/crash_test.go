package etcd_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/tests/boot/lab"
)

// TestCrashes converges two clusters at the same time on one engine, which is killed three times meanwhile, and cuts one
// machine from power in the middle of its run.
func TestCrashes(t *testing.T) {
	l := newLab(t, 4)
	kill := func(when string) {
		t.Helper()
		l.End("engine", syscall.SIGKILL)
		t.Logf("%s: the engine is killed, load %s", when, lab.Load())
		l.Up(rack(4))
	}
	l.Must("apply", "--no-wait", l.file("red", "proof.etcd", 2, ""))
	l.Must("apply", "--no-wait", l.file("blue", "proof.plain", 2, ""))

	l.Await("an enrolment", lab.Patience, func(e *lab.Event) bool { return e.Kind == "enrolment" && e.Fact.Kind == "accepted" })
	kill("in the middle of booting")

	l.Await("the first mark on a node", lab.Patience, lab.Is("red", "started", "one"))
	kill("in the middle of steps")

	cut := l.Await("the second mark", lab.Patience, lab.Is("blue", "started", "two"))
	l.End("vm-"+cut.Node, syscall.SIGKILL)
	t.Logf("%s is cut from power", cut.Node)

	l.Await("a member's start", lab.Patience, lab.Is("red", "started", "etcd.member"))
	kill("in the middle of founding")

	l.Pursue("converged", "watch", "red")
	l.Pursue("converged", "watch", "blue")
	l.Unchanged("red")
	l.Unchanged("blue")
	red, blue := l.Status("red"), l.Status("blue")

	again := l.Await("a new incarnation of "+cut.Node, time.Minute, func(e *lab.Event) bool {
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
	l.End("engine", syscall.SIGKILL)
	l.End("vm-"+red.Members[0].Name, syscall.SIGKILL)
}

// apart wants two clusters without a machine, an address or a name in common.
func (l own) apart(a, b lab.Cluster) {
	l.Helper()
	seen := map[string]string{}
	for i, c := range []lab.Cluster{a, b} {
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
func (l own) once(cluster string, members []lab.Member, ticks string) {
	l.Helper()
	l.Last(cluster)
	done := map[string]bool{}
	lives := map[string]string{} // incarnation by node
	l.Each(func(e *lab.Event) {
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
		case e.Kind == "started" && done[e.Instance()]:
			l.Errorf("%s: %s was done and is started again (event %d)", cluster, e.Instance(), e.Seq)
		case e.Kind == "succeeded":
			done[e.Instance()] = true
		}
	})
	for _, m := range members {
		if got := l.Probe(m.Address, "ticks"); got != ticks {
			l.Errorf("%s: what ran on %s:\n%s\nwant each once:\n%s", cluster, m.Name, got, ticks)
		}
	}
}

// foreign wants that a certificate of one cluster opens nothing of another.
func (l own) foreign(pki string) {
	l.Helper()
	other := pki + "-blue"
	l.Must("cert", "--cluster", "blue", "--dir", other)
	out, err := l.etcdctl(pki, append(withKey(other), "--endpoints=https://etcd.red.lab:2379", "get", "greeting")...)
	if err == nil {
		l.Errorf("red serves a client of blue: %s", out)
	}
	if !slices.ContainsFunc([]string{"bad certificate", "unknown certificate", "context deadline exceeded", "certificate"}, func(s string) bool { return strings.Contains(out, s) }) {
		l.Error(fmt.Errorf("a client of blue at red: %w: %s", err, out))
	}
}
