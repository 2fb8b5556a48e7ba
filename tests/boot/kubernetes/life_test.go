package kubernetes_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"joist/tests/boot/lab"
)

// allSlots fills the cluster's slots otherwise than the pack does.
const allSlots = `  slots = {
    "kube.runtime" = { step = kubernetes.containerd, with = { runtime = "crun" } }
    "kube.network" = kubernetes.vxlan
  }`

// TestLife is the life of one cluster with data disks: founded while its engine is killed, grown, changed, hurt, left alone,
// shrunk, built anew twice, destroyed. JOIST_TEST_ALONE says how long it is left alone, if not for ten minutes.
func TestLife(t *testing.T) {
	l := newLab(t)
	l.machine("n1", controlMemory)
	l.machine("n2", workerMemory)
	l.machine("n3", workerMemory)
	g := goal{control: []string{"n1"}, worker: []string{"n2", "n3"}, storage: "disk"}
	l.first("bring-up with kills", func(l *own) { l.killed(g) })
	l.sub("nothing twice", (*own).onlyOnce)
	l.sub("secrecy", (*own).secrecy)
	g.more = allSlots
	l.sub("another runtime and network", func(l *own) { l.slots(g) })
	g.worker, g.more, g.sourceless = []string{"n2", "n3", "n4"}, allSlots+"\n  frozen = \"winter\"", true
	l.sub("a worker more from a frozen set", func(l *own) { l.grow(g) })
	g.worker = []string{"n2", "n3"}
	l.sub("a worker less", func(l *own) { l.shrink(g, "n4") })
	l.sub("renewed", (*own).renewed)
	l.sub("left alone", (*own).alone)
	l.sub("renewed in use", (*own).renewedInUse)
	g.control = []string{"n1", "n5", "n6"}
	l.sub("three control members", func(l *own) { l.three(g) })
	l.sub("a power cut", (*own).cut)
	g.control = []string{"n1"}
	l.sub("one control member", func(l *own) { l.one(g) })
	l.sub("redeploy", (*own).redeploy)
	l.sub("destroy", func(l *own) {
		l.Pursue("destroyed", "destroy", "demo", "--yes")
		l.Free("demo", 6)
	})
}

// killed brings the cluster up while its engine is killed twice, and wants nothing done twice.
func (l *own) killed(g goal) {
	l.Must("apply", "--no-wait", l.file(g))
	kill := func(when string) {
		l.End("engine", syscall.SIGKILL)
		l.Logf("%s: the engine is killed, load %s", when, lab.Load())
		l.Up(lab.Machines{})
	}
	l.Await("etcd's start", lab.Patience, lab.Is("demo", "started", "kube.etcd.member"))
	kill("in the middle of founding etcd")
	l.Await("the apiserver's start", lab.Patience, lab.Is("demo", "started", "kube.apiserver"))
	kill("in the middle of the first apiserver's start")
	l.Pursue("converged", "watch", "demo")
	l.retries()
	l.client()
}

// onlyOnce wants that nothing that was done while the cluster came up was done again.
func (l *own) onlyOnce() {
	l.Unchanged("demo")
	l.nodes("n2", "n3")
	l.Last("demo")
	done := map[string]bool{}
	l.Each(func(e *lab.Event) {
		switch {
		case e.Journal != "cluster/demo" || e.Action == "remove":
		case e.Kind == "started" && done[e.Instance()]:
			l.Errorf("%s was done and is started again (event %d)", e.Instance(), e.Seq)
		case e.Kind == "succeeded":
			done[e.Instance()] = true
		}
	})
	for _, once := range []string{"kube.etcd.founders", "kube.encryption", "kube.etcd.member[n1]", "kube.roles"} {
		if !done[once] {
			l.Errorf("%s was never done", once)
		}
	}
	if out := l.members(); len(out) != 1 {
		l.Errorf("members of etcd: %q", out)
	}
}

// members are etcd's voters, as n1 sees them: names.
func (l *own) members() []string {
	l.Helper()
	const ctl = "ETCDCTL_API=3 etcdctl --endpoints https://$(hostname -I | cut -d' ' -f1):2379 --insecure-skip-tls-verify" +
		" --cert /etc/kubernetes/identities/kube-apiserver-etcd/cert.pem --key /var/lib/joist/keys/kube-apiserver-etcd.key"
	out := l.on("n1", ctl+" member list 2>/dev/null")
	var names []string
	for _, line := range strings.Split(out, "\n") {
		f := strings.Split(line, ", ")
		if len(f) == 1 {
			l.Logf("n1: %s", line)
			continue
		}
		if len(f) != 6 || f[1] != "started" || f[5] != "false" {
			l.Errorf("a member of etcd that is no voter: %s", line)
			continue
		}
		names = append(names, f[2])
	}
	slices.Sort(names)
	return names
}

// change makes a goal so, and wants that the plan spoke of what ran, and that nothing else ran than what only matches.
func (l *own) change(g goal, only string) {
	l.Helper()
	file := l.file(g)
	mark := l.Last("demo")
	said := l.verdicts(file)
	l.Logf("the plan: %v", counts(said))
	l.Pursue("converged", "apply", file)
	l.Unchanged("demo")
	l.Last("demo")
	ran := l.Starts("demo", mark)
	may := regexp.MustCompile("^(?:" + only + ")$")
	for instance := range ran {
		name := strings.TrimPrefix(instance, "-")
		if !may.MatchString(name) {
			l.Errorf("%s ran", instance)
		}
		if _, ok := said[name]; !ok {
			l.Errorf("%s ran, and the plan did not say so", instance)
		}
	}
	l.Logf("ran: %v", slices.Sorted(maps.Keys(ran)))
}

func counts(verdicts map[string]string) map[string]int {
	n := map[string]int{}
	for _, v := range verdicts {
		n[v]++
	}
	return n
}

// grow adds the worker n4: its own steps run, and elsewhere only what names all nodes or leads to all pods. All of it comes
// from a frozen set: nothing else is left that it could come from.
func (l *own) grow(g goal) {
	l.Must("mirror", "freeze", "winter", "--cluster", "demo")
	l.Logf("\n%s", l.Must("mirror", "sets"))
	l.Sourceless()
	for _, what := range []string{"mirror", "bootset"} {
		if out := l.Must(what, "list", "-o", "json"); strings.Contains(out, "sha256") {
			l.Errorf("the engine still has, in %s: %s", what, out)
		}
	}
	l.machine("n4", workerMemory)
	l.change(g, `.*\[n4\]|kube\.(hosts|network)\[n[12356]\]`)
	l.nodes("n2", "n3", "n4")
}

// slots changes the container runtime, one worker after the other, and the pods' network on the running cluster, and has it
// try itself.
func (l *own) slots(g goal) {
	l.change(g, `kube\.(runtime|in_service)\[n[23]\]|kube\.network\[n[12356]\]`)
	l.smoke()
	for _, name := range g.worker {
		if out := l.on(name, "grep BinaryName /etc/containerd/config.toml; systemctl is-active containerd kubelet"); !strings.Contains(out, "crun") || strings.Count(out, "active") != 2 {
			l.Errorf("the runtime of %s: %s", name, out)
		}
		if n := l.on(name, "find /run/containerd /run/crun -name status -type f 2>/dev/null | wc -l"); n == "0" {
			l.Errorf("crun has started no container on %s", name)
		}
	}
	for _, name := range append(slices.Clone(g.worker), g.control...) {
		if out := l.on(name, "ip route show proto 201; ip -d link show joist-pods | grep -o 'vxlan id [0-9]*'; ip route show proto 202 | wc -l"); !strings.HasPrefix(out, "vxlan id 77\n") || strings.HasSuffix(out, "\n0") {
			l.Errorf("the ways to pods on %s: %s", name, out)
		}
	}
}

// shrink takes a worker back: out of service, drained, deleted, its certificates revoked, its names and routes withdrawn.
func (l *own) shrink(g goal, name string) {
	mark, address := l.Last("demo"), l.address(name)
	l.change(g, `.*\[`+name+`\]|kube\.(hosts|network)\[n[12356]\]`)
	l.nodes(g.worker...)
	removed := l.Starts("demo", mark)
	for _, task := range []string{"in_service", "member", "name", "kubelet_cert", "kubelet_serving", "proxy_user.cert", "pods"} {
		if removed["-kube."+task+"["+name+"]"] == 0 {
			l.Errorf("%s of %s was not removed: %v", task, name, removed)
		}
	}
	for _, args := range [][]string{{name + ".demo.lab"}, {"-x", address}} {
		if out := l.MustInside(append([]string{"dig", "@10.77.0.1", "+short"}, args...)...); out != "" {
			l.Errorf("%q is still answered with %s", args, out)
		}
	}
	if out := l.on("n1", "ip route show proto 202; cat /etc/hosts"); strings.Contains(out, address) {
		l.Errorf("n1 still knows the way to %s:\n%s", name, out)
	}
}

// three makes the control plane one of three members.
func (l *own) three(g goal) {
	l.machine("n5", controlMemory)
	l.machine("n6", controlMemory)
	l.change(g, `.*\[n[56]\]|kube\.(hosts|network|endpoint|backend|token_keys|token_file|etcd\.hosts)\[n1\]|kube\.(hosts|network|endpoint)\[n[23]\]`)
	l.Logf("\n%s", l.Must("path", "demo"))
	if got := strings.Join(l.members(), " "); got != "n1 n5 n6" {
		l.Errorf("members of etcd: %s", got)
	}
	if n := strings.Count(l.on("n2", "cat /etc/kubernetes/endpoint.cfg"), ":6443 check"); n != 3 {
		l.Errorf("n2's own balancer knows %d members", n)
	}
	l.nodes("n2", "n3")
	l.tokens(g.control)
}

// tokens wants that every apiserver takes a token that any other has signed: it knows the name, which may do nothing (403).
func (l *own) tokens(members []string) {
	l.Helper()
	for _, signer := range members {
		token := l.token(signer)
		for _, asked := range members {
			if got := l.answers(asked, token); got != "403" {
				l.Errorf("%s answers a token that %s has signed with %s", asked, signer, got)
			}
		}
	}
}

// token has a member sign one.
func (l *own) token(signer string) string {
	l.Helper()
	return l.k("--server", "https://"+l.address(signer)+":6443", "create", "token", "default", "--duration=1h")
}

// answers gives the status with which a member answers the bearer of a token.
func (l *own) answers(member, token string) string {
	l.Helper()
	return l.MustInside("curl", "-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Authorization: Bearer "+token,
		"https://"+l.address(member)+":6443/api/v1/namespaces/default/secrets")
}

// poll asks the API through the balancer until it is told to stop; it tells how often that went wrong, and the longest time
// without an answer.
func (l *own) poll() (stop func() (asked, failed int, longest time.Duration)) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var asked, failed int
	var longest time.Duration
	wg.Go(func() {
		last := time.Now()
		for ctx.Err() == nil {
			out, err := l.kubectl("--request-timeout=10s", "get", "--raw", "/api/v1/namespaces/default")
			asked++
			if err != nil {
				failed++
				l.Logf("kubectl at %s: %v %s", time.Now().Format("15:04:05"), err, out)
			} else {
				longest = max(longest, time.Since(last))
				last = time.Now()
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		longest = max(longest, time.Since(last))
	})
	return func() (int, int, time.Duration) {
		cancel()
		wg.Wait()
		return asked, failed, longest
	}
}

// cut takes the power from one of three control-plane machines.
func (l *own) cut() {
	mark := l.Last("demo")
	was := l.Status("demo")
	stop := l.poll()
	time.Sleep(5 * time.Second)
	begun := time.Now()
	l.End("vm-n5", syscall.SIGKILL)
	l.Logf("n5 is cut from power, load %s", lab.Load())
	back := l.Await("n5's return", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/demo" && e.Seq > mark && e.Kind == "node.seen" && e.Node == "n5" && e.Online
	})
	l.Logf("n5 is back after %.0f s", time.Since(begun).Seconds())
	l.Pursue("converged", "watch", "demo")
	asked, failed, longest := stop()
	l.Logf("kubectl was asked %d times through the balancer, %d went wrong, longest without an answer %s", asked, failed, longest)
	if failed > 1 || longest > 30*time.Second { // one may have been on its way to n5
		l.Errorf("kubectl had no answer %d times of %d, for %s", failed, asked, longest)
	}
	l.Last("demo")
	for instance := range l.Starts("demo", mark) {
		if !strings.HasSuffix(instance, "[n5]") { // its disk has what others know of it
			l.Errorf("%s ran because n5 had no power", instance)
		}
	}
	for _, m := range was.Members {
		if m.Name == "n5" && m.Incarnation != back.Incarnation {
			l.Errorf("n5 has its data disk, and is another incarnation: %s, and was %s", back.Incarnation, m.Incarnation)
		}
	}
	l.Unchanged("demo")
	if got := strings.Join(l.members(), " "); got != "n1 n5 n6" {
		l.Errorf("members of etcd: %s", got)
	}
	l.nodes("n2", "n3")
}

// renewed has the kubelet of n2 get new keys and new certificates, both, and wants that neither it nor a pod is started anew
// for them. Clients look for new files every five minutes: renewedInUse asks whether this one did.
func (l *own) renewed() {
	l.podOnN2()
	l.k("wait", "--for=condition=Ready", "pod/kept", "--timeout=120s")
	containers := func() string {
		return l.k("get", "pods", "-A", "--field-selector=spec.nodeName=n2", "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
	}
	const process = "systemctl show kubelet -p MainPID --value; systemctl show joist-kube-proxy -p MainPID --value"
	served := func() string {
		return l.MustInside("sh", "-c", "openssl s_client -connect "+l.address("n2")+":10250 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256")
	}
	mark, pods, processes, serial, client := l.Last("demo"), containers(), l.on("n2", process), served(), l.inUse()
	l.on("n2", "rm "+keyOf("kubelet")+"* "+keyOf("kubelet-serving")+"*") // with their requests
	for _, task := range []string{"kubelet_key", "kubelet_serving_key"} {
		l.Must("force", "demo/kube."+task+"[n2]", "--reason", "a test asks")
	}
	l.Pursue("converged", "watch", "demo")
	l.Unchanged("demo")
	if l.Last("demo"); client == l.inUse() {
		l.Error("the kubelet's client certificate is the one that it was")
	}
	may := regexp.MustCompile(`^kube\.kubelet_(key|cert|files|serving_key|serving|serving_files)\[n2\]$`)
	for instance := range l.Starts("demo", mark) {
		if !may.MatchString(instance) {
			l.Errorf("%s ran for a new certificate", instance)
		}
	}
	begun := time.Now()
	for end := begun.Add(4 * time.Minute); served() == serial; time.Sleep(2 * time.Second) {
		if time.Now().After(end) {
			l.Error("the kubelet still serves with its old certificate")
			break
		}
	}
	l.Logf("the kubelet serves with its new certificate %.0f s after the cluster's rest", time.Since(begun).Seconds())
	if now := containers(); now != pods || now == "" {
		l.Errorf("containers of n2:\n%s\nwere\n%s", now, pods)
	}
	if now := l.on("n2", process); now != processes {
		l.Errorf("processes of kubelet and proxy are %q, were %q", now, processes)
	}
	l.k("logs", "kept") // through the kubelet's new certificate
	l.nodes("n2", "n3")
}

// inUse is the digest of the client certificate that lies ready for n2's kubelet, in hexadecimal digits.
func (l *own) inUse() string {
	l.Helper()
	out := l.on("n2", "openssl x509 -in /etc/kubernetes/identities/kubelet/cert.pem -outform DER | sha256sum | cut -d' ' -f1")
	if len(out) != 64 {
		l.Fatalf("the digest of n2's client certificate: %s", out)
	}
	return out
}

// renewedInUse wants that the apiserver's audit log knows n2's kubelet by its new client certificate.
func (l *own) renewedInUse() {
	want := "X509SHA256=" + l.inUse()
	begun := time.Now()
	for end := begun.Add(8 * time.Minute); ; time.Sleep(10 * time.Second) {
		l.k("delete", "pod", "kept", "--ignore-not-found", "--wait=true", "--timeout=60s") // the kubelet has something to write
		out := l.on("n1", `grep -h '"username":"system:node:n2"' /var/log/kubernetes/audit*.log | grep -o 'X509SHA256=[0-9a-f]*' | tail -n 1`)
		if out == want {
			l.Logf("n2's kubelet uses its new certificate")
			break
		}
		if time.Now().After(end) {
			l.Errorf("n2's kubelet was last known by %s, want %s", out, want)
			break
		}
		l.podOnN2()
	}
}

// podOnN2 starts the pod "kept" there.
func (l *own) podOnN2() {
	l.Helper()
	l.k("run", "kept", "--image=joist.internal/echo:1", "--image-pull-policy=Never", "--restart=Never", `--overrides={"spec":{"nodeName":"n2"}}`, "--", "serve")
}

// alone stops the engine for ten minutes: the cluster goes on without it, and the engine finds nothing to do again.
func (l *own) alone() {
	span := 10 * time.Minute
	if raw := os.Getenv("JOIST_TEST_ALONE"); raw != "" {
		var err error
		if span, err = time.ParseDuration(raw); err != nil {
			l.Fatal(err)
		}
	}
	mark := l.Last("demo")
	n1, n2 := l.address("n1"), l.address("n2")
	before := l.Probe(n1, "systemctl show joist-etcd -p MainPID --value")
	l.End("engine", syscall.SIGTERM)
	begun := time.Now()
	direct := func(args ...string) (string, error) { // the engine's names and balancer are away
		return l.kubectl(append([]string{"--server", "https://" + n1 + ":6443"}, args...)...)
	}
	until := func(what string, f func() error) {
		l.Helper()
		var err error
		for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); time.Sleep(2 * time.Second) {
			if err = f(); err == nil {
				l.Logf("%s, %.0f s after the engine's end", what, time.Since(begun).Seconds())
				return
			}
		}
		l.Errorf("without the engine, not %s: %v", what, err)
	}
	until("a pod is created and ready", func() error {
		out, err := direct("run", "alone", "--image=joist.internal/echo:1", "--image-pull-policy=Never", "--restart=Never", "--", "serve")
		if err != nil && !strings.Contains(out, "already exists") {
			return fmt.Errorf("%w: %s", err, out)
		}
		out, err = direct("wait", "--for=condition=Ready", "pod/alone", "--timeout=20s")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	l.Probe(n1, "kill -9 "+before)
	until("etcd's process on n1 was killed and is back", func() error {
		now := l.Probe(n1, "systemctl is-active joist-etcd; systemctl show joist-etcd -p MainPID --value")
		if !strings.HasPrefix(now, "active") || strings.HasSuffix(now, before) || strings.HasSuffix(now, "\n0") {
			return fmt.Errorf("was %s, is %s", before, now)
		}
		return nil
	})
	kubelet := l.Probe(n2, "systemctl show kubelet -p MainPID --value")
	l.Probe(n2, "systemctl kill -s KILL kubelet")
	until("a kubelet's process was killed and is back", func() error {
		now := l.Probe(n2, "systemctl is-active kubelet; systemctl show kubelet -p MainPID --value")
		if !strings.HasPrefix(now, "active") || strings.HasSuffix(now, "\n"+kubelet) || strings.HasSuffix(now, "\n0") {
			return fmt.Errorf("was %s, is %s", kubelet, now)
		}
		return nil
	})
	looks := 0
	for ; time.Since(begun) < span; time.Sleep(15 * time.Second) {
		looks++
		out, err := direct("get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
		if err != nil || strings.TrimSpace(out) != "n2=True n3=True" {
			l.Errorf("nodes %.0f s after the engine's end: %v %s", time.Since(begun).Seconds(), err, out)
		}
	}
	l.Logf("the engine was away for %.0f s; nodes were Ready %d times", time.Since(begun).Seconds(), looks)
	if out, err := direct("delete", "pod", "alone", "--wait=false"); err != nil {
		l.Errorf("%v %s", err, out)
	}
	l.Up(lab.Machines{})
	l.Unchanged("demo")
	l.Last("demo")
	if again := l.Starts("demo", mark); len(again) > 0 {
		l.Errorf("run again after the engine was started again: %v", again)
	}
	l.nodes("n2", "n3")
}

// one takes two control-plane members back: each leaves etcd first, and the quorum holds.
func (l *own) one(g goal) {
	mark := l.Last("demo")
	l.change(g, `.*\[n[156]\]|kube\.(hosts|network|endpoint)\[n[23]\]`)
	if got := strings.Join(l.members(), " "); got != "n1" {
		l.Errorf("members of etcd: %s", got)
	}
	removed := l.Starts("demo", mark)
	for _, name := range []string{"n5", "n6"} {
		for _, task := range []string{"backend", "etcd.voter", "etcd.seat", "serving", "name"} {
			if removed["-kube."+task+"["+name+"]"] == 0 {
				l.Errorf("%s of %s was not removed: %v", task, name, removed)
			}
		}
	}
	l.nodes("n2", "n3")
	l.smoke()
}

// redeploy builds the cluster anew twice, from blank disks.
func (l *own) redeploy() {
	var re struct {
		Good   bool
		Rounds []struct {
			Seconds float64
			Outcome string
		}
	}
	was := l.Status("demo")
	l.Decode(&re, 40*time.Minute, "redeploy", "demo", "--times", "2", "--yes")
	l.Logf("redeploy: %+v", re)
	if !re.Good || len(re.Rounds) != 2 {
		l.Fatalf("redeploy: %+v", re)
	}
	l.Unchanged("demo")
	now := l.Status("demo")
	for i, m := range now.Members {
		if m.Incarnation == was.Members[i].Incarnation {
			l.Errorf("%s was wiped, and is the incarnation that it was", m.Name)
		}
	}
	l.smoke()
	l.client()
	l.nodes("n2", "n3")
}
