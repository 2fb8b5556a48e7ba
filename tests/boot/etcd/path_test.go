package etcd_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"joist/tests/boot/lab"
)

// TestFirstPath is the life of one cluster: founded by three machines of two kinds of firmware, used, left alone by its
// engine, grown, shrunk with a machine that is dead, changed and changed back, destroyed.
func TestFirstPath(t *testing.T) {
	l := newLab(t, 3)
	file := l.file("demo", "proof.etcd", 3, "")
	l.Pursue("converged", "apply", file)
	l.SameHost("during")
	l.Unchanged("demo")
	founded := l.Status("demo")
	pki := l.clients("demo", founded.Members)
	l.names("demo", founded.Members)
	l.explained("demo")
	l.alone("demo", founded.Members, pki)

	before := l.founders(founded.Members)
	l.grow("demo", founded, pki)
	l.shrink("demo", founded, pki)
	if after := l.founders(founded.Members); !maps.Equal(before, after) {
		t.Errorf("founders were restarted: %v, then %v", before, after)
	}
	l.takenBack("demo")

	l.Pursue("destroyed", "destroy", "demo", "--yes")
	l.Free("demo", 5)
}

// etcdctl runs etcd's client in the lab, with the operator's certificate in dir, or with none.
func (l own) etcdctl(dir string, args ...string) (string, error) {
	argv := []string{"env", "ETCDCTL_API=3", "etcdctl", "--dial-timeout=5s", "--command-timeout=20s", "--cacert=" + filepath.Join(dir, "ca.pem")}
	return l.Inside(append(argv, args...)...)
}

func withKey(dir string) []string {
	return []string{"--cert=" + filepath.Join(dir, "cert.pem"), "--key=" + filepath.Join(dir, "key.pem")}
}

func (l own) mustEtcdctl(dir string, args ...string) string {
	l.Helper()
	out, err := l.etcdctl(dir, append(withKey(dir), args...)...)
	if err != nil {
		l.Fatalf("etcdctl %q: %v\n%s", args, err, out)
	}
	return out
}

// clients uses the cluster as a client outside of it, through the balancer and directly, and without a certificate.
func (l own) clients(name string, members []lab.Member) (pki string) {
	l.Helper()
	pki = filepath.Join(l.Data, "..", name+"-pki")
	l.Must("cert", "--cluster", name, "--dir", pki)
	front := fmt.Sprintf("https://etcd.%s.lab:2379", name)
	l.healthy(pki, front, len(members))
	l.mustEtcdctl(pki, "--endpoints="+front, "put", "greeting", "hello")
	for _, m := range members {
		if m.Level != "vouched" {
			l.Errorf("%s is trusted as %q", m.Name, m.Level)
		}
		direct := fmt.Sprintf("https://%s.%s.lab:2379", m.Name, name)
		if out := l.mustEtcdctl(pki, "--endpoints="+direct, "get", "--print-value-only", "greeting"); out != "hello" {
			l.Errorf("%s has %q", direct, out)
		}
		if out, err := l.etcdctl(pki, "--endpoints="+direct, "get", "greeting"); err == nil {
			l.Errorf("%s answers without a certificate: %s", direct, out)
		}
	}
	if out, err := l.etcdctl(pki, "--endpoints="+front, "get", "greeting"); err == nil {
		l.Errorf("the balancer answers without a certificate: %s", out)
	}
	return pki
}

// healthy wants exactly n members, all of them voters that answer.
func (l own) healthy(pki, endpoint string, n int) {
	l.Helper()
	var health []struct {
		Endpoint string
		Health   bool
	}
	out, err := l.etcdctl(pki, append(withKey(pki), "--endpoints="+endpoint, "endpoint", "health", "--cluster", "-w", "json")...)
	if i := strings.Index(out, "[{"); i < 0 || json.Unmarshal([]byte(out[i:]), &health) != nil || err != nil || len(health) != n {
		l.Errorf("health of %d members: %v\n%s", n, err, out)
	}
	for _, h := range health {
		if !h.Health {
			l.Errorf("%s is not healthy", h.Endpoint)
		}
	}
	list := l.mustEtcdctl(pki, "--endpoints="+endpoint, "member", "list")
	if started := strings.Count(list, ", started, "); started != n || strings.Count(list, "\n") != n-1 || strings.Contains(list, ", true") {
		l.Errorf("members, want %d voters:\n%s", n, list)
	}
}

// names asks joist's name server, forward and reverse.
func (l own) names(cluster string, members []lab.Member) {
	l.Helper()
	for _, m := range members {
		fqdn := m.Name + "." + cluster + ".lab"
		if out := l.MustInside("dig", "@10.77.0.1", "+short", fqdn); out != m.Address {
			l.Errorf("%s is %q, want %s", fqdn, out, m.Address)
		}
		if out := l.MustInside("dig", "@10.77.0.1", "+short", "-x", m.Address); out != fqdn+"." {
			l.Errorf("%s is %q, want %s", m.Address, out, fqdn)
		}
	}
}

// explained wants of every instance a chain of causes that ends in an event of the journal.
func (l own) explained(cluster string) {
	l.Helper()
	var p struct{ Items []struct{ Instance string } }
	l.JSON(&p, "plan", "--cluster", cluster)
	if len(p.Items) < 30 {
		l.Errorf("only %d instances", len(p.Items))
	}
	for _, it := range p.Items {
		var why struct {
			Chain []struct {
				Says string
				Seq  uint64
			}
		}
		l.JSON(&why, "why", cluster+"/"+it.Instance)
		if n := len(why.Chain); n == 0 || why.Chain[n-1].Seq == 0 || why.Chain[n-1].Says == "" {
			l.Errorf("why %s ends without a fact: %+v", it.Instance, why.Chain)
		}
	}
}

// alone stops the engine: the cluster serves, a member that dies comes back, and the engine finds nothing to do again.
func (l own) alone(cluster string, members []lab.Member, pki string) {
	l.Helper()
	mark := l.Last(cluster)
	pid := l.etcd(members[0].Address)["MainPID"]
	l.End("engine", syscall.SIGTERM)
	get := func(m lab.Member) (string, error) {
		// Without the engine there is nobody to ask for names outside the cluster.
		fqdn := m.Name + "." + cluster + ".lab"
		return l.Inside("curl", "-sS", "--max-time", "20", "--resolve", fqdn+":2379:"+m.Address, "--cacert", filepath.Join(pki, "ca.pem"),
			"--cert", filepath.Join(pki, "cert.pem"), "--key", filepath.Join(pki, "key.pem"), "https://"+fqdn+":2379/health")
	}
	for _, m := range members {
		if out, err := get(m); err != nil || !strings.Contains(out, `"health":"true"`) {
			l.Errorf("%s without the engine: %v %s", m.Name, err, out)
		}
	}
	if out := l.Probe(members[0].Address, "kill"); !strings.Contains(out, "killed") {
		l.Fatalf("the member's process was not killed: %s", out)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		out, err := get(members[0])
		if err == nil && strings.Contains(out, `"health":"true"`) {
			break
		}
		if time.Now().After(deadline) {
			l.Fatalf("the member did not come back without the engine: %v %s", err, out)
		}
		time.Sleep(time.Second)
	}
	if now := l.etcd(members[0].Address)["MainPID"]; now == pid || now == "0" {
		l.Errorf("the member's process was %s and is %s", pid, now)
	}
	l.Up(rack(3))
	l.Unchanged(cluster)
	l.Last(cluster)
	if again := l.Starts(cluster, mark); len(again) > 0 {
		l.Errorf("run again after the engine was started again: %v", again)
	}
}

// etcd gives what systemd says of the member's service.
func (l own) etcd(address string) map[string]string {
	l.Helper()
	all := map[string]string{}
	for _, line := range strings.Split(l.Probe(address, "etcd"), "\n") {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			all[name] = v
		}
	}
	return all
}

// founders gives each founder's process and what ran on it, as the nodes themselves say.
func (l own) founders(members []lab.Member) map[string]string {
	l.Helper()
	all := map[string]string{}
	for _, m := range members {
		all[m.Name] = l.etcd(m.Address)["MainPID"] + " " + l.Probe(m.Address, "ticks")
	}
	return all
}

func (l own) grow(cluster string, was lab.Cluster, pki string) {
	l.Helper()
	mark := l.Last(cluster)
	l.Up(rack(5))
	l.Pursue("converged", "apply", l.file(cluster, "proof.etcd", 5, ""))
	l.Unchanged(cluster)
	now := l.Status(cluster)
	l.healthy(pki, "https://etcd."+cluster+".lab:2379", 5)
	l.names(cluster, now.Members)
	for _, m := range was.Members {
		if !slices.Contains(now.Members, m) {
			l.Errorf("%+v is another node now: %+v", m, now.Members)
		}
	}
	l.Last(cluster)
	// The names of all members are in each one's /etc/hosts; nothing else of a founder depends on who else there is.
	onFounder := regexp.MustCompile(`^etcd\.hosts\[n[123]\]$`)
	for instance := range l.Starts(cluster, mark) {
		if !strings.HasSuffix(instance, "[n4]") && !strings.HasSuffix(instance, "[n5]") && !onFounder.MatchString(instance) {
			l.Errorf("%s ran because the cluster grew", instance)
		}
	}
}

// shrink takes back what grow added, after one of the two machines has died.
func (l own) shrink(cluster string, was lab.Cluster, pki string) {
	l.Helper()
	mark := l.Last(cluster)
	leaving := l.Status(cluster).Members[3:]
	l.End("vm-"+leaving[0].Name, syscall.SIGKILL)
	l.Pursue("converged", "apply", l.file(cluster, "proof.etcd", 3, ""))
	l.Unchanged(cluster)
	l.healthy(pki, "https://etcd."+cluster+".lab:2379", 3)
	now := l.Status(cluster)
	if !maps.Equal(was.Digests, now.Digests) || len(now.Digests) != 3 {
		l.Errorf("services have the digests %v, and had %v", now.Digests, was.Digests)
	}
	l.Last(cluster)
	removed := l.Starts(cluster, mark)
	for _, m := range leaving {
		for _, task := range []string{"etcd.name", "etcd.cert", "etcd.backend", "etcd.seat"} {
			if removed["-"+task+"["+m.Name+"]"] == 0 {
				l.Errorf("%s[%s] was not removed: %v", task, m.Name, removed)
			}
		}
		if out := l.MustInside("dig", "@10.77.0.1", "+short", m.Name+"."+cluster+".lab"); out != "" {
			l.Errorf("%s still has the address %s", m.Name, out)
		}
		if out := l.MustInside("dig", "@10.77.0.1", "+short", "-x", m.Address); out != "" {
			l.Errorf("%s still has the name %s", m.Address, out)
		}
	}
	l.Free("", 2)
}

// takenBack changes an input so that a step fails half-way, and takes that back: what was started runs again, the rest
// does not.
func (l own) takenBack(cluster string) {
	l.Helper()
	good := l.Last(cluster)
	o := l.Pursue("stopped", "apply", l.file(cluster, "proof.etcd", 3, `, motto = "bad idea"`))
	if len(o.Failed) == 0 || !strings.Contains(o.Failed[0].Error, "the motto bad idea is refused") {
		l.Errorf("what failed: %+v", o.Failed)
	}
	bad := l.Last(cluster)
	begun := l.Starts(cluster, good)
	l.Pursue("converged", "apply", l.file(cluster, "proof.etcd", 3, ""))
	l.Last(cluster)
	again := l.Starts(cluster, bad)
	if !slices.Equal(slices.Sorted(maps.Keys(begun)), slices.Sorted(maps.Keys(again))) {
		l.Errorf("started with the bad motto %v, and with the good one again %v", begun, again)
	}
	for _, task := range []string{"note", "strict"} {
		for _, node := range []string{"n1", "n2", "n3"} {
			if again[task+"["+node+"]"] != 1 {
				l.Errorf("%s[%s] was started and is not run again: %v", task, node, again)
			}
		}
	}
	for _, m := range l.Status(cluster).Members {
		if out := l.Probe(m.Address, "ticks"); !strings.HasSuffix(out, "note good\nlast good\nnote bad idea\nnote good") {
			l.Errorf("what ran on %s:\n%s", m.Name, out)
		}
	}
}
