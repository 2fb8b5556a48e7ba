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
)

// member is a node as status shows it.
type member struct {
	Name, Address, Incarnation, Level string
	Online                            bool
}

type cluster struct {
	Outcome string
	Members []member
	Digests map[string]string
	States  map[string]int
}

func (l *lab) status(name string) cluster {
	l.Helper()
	var c cluster
	l.json(&c, "status", name)
	return c
}

// unchanged wants a plan in which nothing is to be done, and tells how long that took.
func (l *lab) unchanged(cluster string) {
	l.Helper()
	begun := time.Now()
	var p struct {
		Changes bool
		Counts  map[string]int
	}
	l.json(&p, "plan", "--cluster", cluster)
	took := time.Since(begun)
	l.Logf("plan: %v in %s", p.Counts, took)
	if p.Changes {
		l.Errorf("a plan after converging has changes:\n%s", l.must("plan", "--cluster", cluster))
	}
	if took > 5*time.Second {
		l.Errorf("the plan took %s", took)
	}
}

// TestFirstPath is the life of one cluster: founded by three machines of two kinds of firmware, used, left alone by its
// engine, grown, shrunk with a machine that is dead, changed and changed back, destroyed.
func TestFirstPath(t *testing.T) {
	l := newLab(t, 3)
	file := l.file("demo", "proof.etcd", 3, "")
	l.pursue("converged", "apply", file)
	l.sameHost("during")
	l.unchanged("demo")
	founded := l.status("demo")
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

	l.pursue("destroyed", "destroy", "demo", "--yes")
	l.free("demo", 5)
}

// etcdctl runs etcd's client in the lab, with the operator's certificate in dir, or with none.
func (l *lab) etcdctl(dir string, args ...string) (string, error) {
	argv := []string{"env", "ETCDCTL_API=3", "etcdctl", "--dial-timeout=5s", "--command-timeout=20s", "--cacert=" + filepath.Join(dir, "ca.pem")}
	return l.inside(append(argv, args...)...)
}

func withKey(dir string) []string {
	return []string{"--cert=" + filepath.Join(dir, "cert.pem"), "--key=" + filepath.Join(dir, "key.pem")}
}

func (l *lab) mustEtcdctl(dir string, args ...string) string {
	l.Helper()
	out, err := l.etcdctl(dir, append(withKey(dir), args...)...)
	if err != nil {
		l.Fatalf("etcdctl %q: %v\n%s", args, err, out)
	}
	return out
}

// clients uses the cluster as a client outside of it, through the balancer and directly, and without a certificate.
func (l *lab) clients(name string, members []member) (pki string) {
	l.Helper()
	pki = filepath.Join(l.data, "..", name+"-pki")
	l.must("cert", "--cluster", name, "--dir", pki)
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
func (l *lab) healthy(pki, endpoint string, n int) {
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
func (l *lab) names(cluster string, members []member) {
	l.Helper()
	for _, m := range members {
		fqdn := m.Name + "." + cluster + ".lab"
		if out := l.mustInside("dig", "@10.77.0.1", "+short", fqdn); out != m.Address {
			l.Errorf("%s is %q, want %s", fqdn, out, m.Address)
		}
		if out := l.mustInside("dig", "@10.77.0.1", "+short", "-x", m.Address); out != fqdn+"." {
			l.Errorf("%s is %q, want %s", m.Address, out, fqdn)
		}
	}
}

// explained wants of every instance a chain of causes that ends in an event of the journal.
func (l *lab) explained(cluster string) {
	l.Helper()
	var p struct{ Items []struct{ Instance string } }
	l.json(&p, "plan", "--cluster", cluster)
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
		l.json(&why, "why", cluster+"/"+it.Instance)
		if n := len(why.Chain); n == 0 || why.Chain[n-1].Seq == 0 || why.Chain[n-1].Says == "" {
			l.Errorf("why %s ends without a fact: %+v", it.Instance, why.Chain)
		}
	}
}

// alone stops the engine: the cluster serves, a member that dies comes back, and the engine finds nothing to do again.
func (l *lab) alone(cluster string, members []member, pki string) {
	l.Helper()
	mark := l.last(cluster)
	pid := l.etcd(members[0].Address)["MainPID"]
	l.end("engine", syscall.SIGTERM)
	get := func(m member) (string, error) {
		// Without the engine there is nobody to ask for names outside the cluster.
		fqdn := m.Name + "." + cluster + ".lab"
		return l.inside("curl", "-sS", "--max-time", "20", "--resolve", fqdn+":2379:"+m.Address, "--cacert", filepath.Join(pki, "ca.pem"),
			"--cert", filepath.Join(pki, "cert.pem"), "--key", filepath.Join(pki, "key.pem"), "https://"+fqdn+":2379/health")
	}
	for _, m := range members {
		if out, err := get(m); err != nil || !strings.Contains(out, `"health":"true"`) {
			l.Errorf("%s without the engine: %v %s", m.Name, err, out)
		}
	}
	if out := l.probe(members[0].Address, "kill"); !strings.Contains(out, "killed") {
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
	l.up(3)
	l.unchanged(cluster)
	l.last(cluster)
	if again := l.starts(cluster, mark); len(again) > 0 {
		l.Errorf("run again after the engine was started again: %v", again)
	}
}

// etcd gives what systemd says of the member's service.
func (l *lab) etcd(address string) map[string]string {
	l.Helper()
	all := map[string]string{}
	for _, line := range strings.Split(l.probe(address, "etcd"), "\n") {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			all[name] = v
		}
	}
	return all
}

// founders gives each founder's process and what ran on it, as the nodes themselves say.
func (l *lab) founders(members []member) map[string]string {
	l.Helper()
	all := map[string]string{}
	for _, m := range members {
		all[m.Name] = l.etcd(m.Address)["MainPID"] + " " + l.probe(m.Address, "ticks")
	}
	return all
}

func (l *lab) grow(cluster string, was cluster, pki string) {
	l.Helper()
	mark := l.last(cluster)
	l.up(5)
	l.pursue("converged", "apply", l.file(cluster, "proof.etcd", 5, ""))
	l.unchanged(cluster)
	now := l.status(cluster)
	l.healthy(pki, "https://etcd."+cluster+".lab:2379", 5)
	l.names(cluster, now.Members)
	for _, m := range was.Members {
		if !slices.Contains(now.Members, m) {
			l.Errorf("%+v is another node now: %+v", m, now.Members)
		}
	}
	l.last(cluster)
	// The names of all members are in each one's /etc/hosts; nothing else of a founder depends on who else there is.
	onFounder := regexp.MustCompile(`^etcd\.hosts\[n[123]\]$`)
	for instance := range l.starts(cluster, mark) {
		if !strings.HasSuffix(instance, "[n4]") && !strings.HasSuffix(instance, "[n5]") && !onFounder.MatchString(instance) {
			l.Errorf("%s ran because the cluster grew", instance)
		}
	}
}

// shrink takes back what grow added, after one of the two machines has died.
func (l *lab) shrink(cluster string, was cluster, pki string) {
	l.Helper()
	mark := l.last(cluster)
	leaving := l.status(cluster).Members[3:]
	l.end("vm-"+leaving[0].Name, syscall.SIGKILL)
	l.pursue("converged", "apply", l.file(cluster, "proof.etcd", 3, ""))
	l.unchanged(cluster)
	l.healthy(pki, "https://etcd."+cluster+".lab:2379", 3)
	now := l.status(cluster)
	if !maps.Equal(was.Digests, now.Digests) || len(now.Digests) != 3 {
		l.Errorf("services have the digests %v, and had %v", now.Digests, was.Digests)
	}
	l.last(cluster)
	removed := l.starts(cluster, mark)
	for _, m := range leaving {
		for _, task := range []string{"etcd.name", "etcd.cert", "etcd.backend", "etcd.seat"} {
			if removed["-"+task+"["+m.Name+"]"] == 0 {
				l.Errorf("%s[%s] was not removed: %v", task, m.Name, removed)
			}
		}
		if out := l.mustInside("dig", "@10.77.0.1", "+short", m.Name+"."+cluster+".lab"); out != "" {
			l.Errorf("%s still has the address %s", m.Name, out)
		}
		if out := l.mustInside("dig", "@10.77.0.1", "+short", "-x", m.Address); out != "" {
			l.Errorf("%s still has the name %s", m.Address, out)
		}
	}
	l.free("", 2)
}

// takenBack changes an input so that a step fails half-way, and takes that back: what was started runs again, the rest
// does not.
func (l *lab) takenBack(cluster string) {
	l.Helper()
	good := l.last(cluster)
	o := l.pursue("stopped", "apply", l.file(cluster, "proof.etcd", 3, `, motto = "bad idea"`))
	if len(o.Failed) == 0 || !strings.Contains(o.Failed[0].Error, "the motto bad idea is refused") {
		l.Errorf("what failed: %+v", o.Failed)
	}
	bad := l.last(cluster)
	begun := l.starts(cluster, good)
	l.pursue("converged", "apply", l.file(cluster, "proof.etcd", 3, ""))
	l.last(cluster)
	again := l.starts(cluster, bad)
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
	for _, m := range l.status(cluster).Members {
		if out := l.probe(m.Address, "ticks"); !strings.HasSuffix(out, "note good\nlast good\nnote bad idea\nnote good") {
			l.Errorf("what ran on %s:\n%s", m.Name, out)
		}
	}
}

// free wants n machines that are off and nobody's, and, if a cluster is named, services without anything of it.
func (l *lab) free(cluster string, n int) {
	l.Helper()
	var list []struct{ Name, Cluster, Power string }
	l.json(&list, "node", "list")
	free := 0
	for _, m := range list {
		var one struct{ Power string }
		l.json(&one, "node", "show", m.Name)
		if m.Cluster == "" && one.Power == "off" {
			free++
		}
	}
	if free != n {
		l.Errorf("%d machines are off and free, want %d: %+v", free, n, list)
	}
	if cluster == "" {
		return
	}
	if d := l.status(cluster).Digests; len(d) > 0 {
		l.Errorf("services have entries of a cluster that is destroyed: %v", d)
	}
}
