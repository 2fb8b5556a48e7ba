package etcd_test

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/journal/sqlstore"
	"joist/tests/boot/lab"
)

// TestContinuousIntegration runs two throw-away clusters at the same time, and one whose run is killed: each is made, tried and
// taken away, by its run or by the engine when its time is over, and nothing is left of them but their journals.
func TestContinuousIntegration(t *testing.T) {
	l := newLab(t, 2)
	before := l.belongings()
	file := l.file("ci", "proof.etcd", 1, "")

	runs := map[string]<-chan error{}
	for _, name := range []string{"ci-a", "ci-b"} {
		done := make(chan error, 1)
		runs[name] = done
		go func() {
			out, err := l.Ask(2*lab.Patience, l.ciRun(file, name, "30m")...)
			l.Logf("joist ci run of %s:\n%s", name, out)
			done <- err
		}()
	}
	for name, done := range runs {
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name := range runs {
		l.green(name)
	}
	l.together("ci-a", "ci-b")
	l.gone(before, "ci-a", "ci-b")

	l.Sub("killed", func(s *lab.Lab) { own{s}.killed(file, before) })
}

func (l own) ciRun(file, name, ttl string) []string {
	return []string{
		"ci", "run", file, "--name", name, "--with", "domain=" + name + ".lab", "--ttl", ttl, "--check", "etcd.front",
		"--junit", l.report(name), "--plain",
	}
}

func (l own) report(name string) string { return filepath.Join(l.Data, "..", name+".xml") }

// green wants a report in which all went well, about each instance and each part of the run.
func (l own) green(name string) {
	l.Helper()
	var report struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Skipped  int `xml:"skipped,attr"`
		Cases    []struct {
			Class string `xml:"classname,attr"`
			Name  string `xml:"name,attr"`
		} `xml:"testsuite>testcase"`
	}
	raw, err := os.ReadFile(l.report(name))
	if err == nil {
		err = xml.Unmarshal(raw, &report)
	}
	if err != nil {
		l.Errorf("the report of %s: %v", name, err)
		return
	}
	var said []string
	for _, c := range report.Cases {
		said = append(said, c.Class+" "+strings.NewReplacer("[n1]", "[n]", "[n2]", "[n]").Replace(c.Name))
	}
	for _, want := range []string{
		".etcd.member etcd.member[n]", ".check etcd.front", ".run converge", ".run teardown", ".run nothing is left",
	} {
		if !slices.Contains(said, name+want) {
			l.Errorf("the report of %s has no %q: %q", name, name+want, said)
		}
	}
	if _, issued := l.certified(name); issued == 0 {
		l.Errorf("no certificate was issued for %s", name)
	}
	if report.Failures+report.Skipped > 0 || report.Tests < 15 {
		l.Errorf("the report of %s is not green:\n%s", name, raw)
	}
}

// together wants both clusters to have been there at once.
func (l own) together(a, b string) {
	l.Helper()
	span := func(cluster string) (begin, end time.Time) {
		l.Each(func(e *lab.Event) {
			if e.Journal != "cluster/"+cluster {
				return
			}
			if begin.IsZero() {
				begin = e.Time
			}
			if e.Outcome == "converged" {
				end = e.Time
			}
		})
		return begin, end
	}
	beginA, endA := span(a)
	beginB, endB := span(b)
	if !beginA.Before(endB) || !beginB.Before(endA) {
		l.Errorf("%s was made from %s to %s, %s from %s to %s: not at once", a, beginA, endA, b, beginB, endB)
	}
}

// killed is a run that dies without a word once its cluster has begun: the engine takes that away when its time is over, whether
// the machine still boots by then or everything is in place.
func (l own) killed(file string, before map[string]bool) {
	cmd := exec.Command(l.Joist, l.ciRun(file, "ci-k", "90s")...)
	cmd.Env = append(os.Environ(), "JOIST_DATA="+l.Data, "JOIST_SOCKET="+l.Socket)
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	l.Await("the front of the cluster", time.Minute, lab.Is("ci-k", "succeeded", "etcd.front"))
	if err := cmd.Process.Kill(); err != nil {
		l.Errorf("the run: %v", err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := os.Stat(l.report("ci-k")); err == nil {
		l.Error("a run that was killed has written a report")
	}
	l.Await("the end of the cluster", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/ci-k" && e.Outcome == "destroyed"
	})
	var c struct{ Goal struct{ By string } }
	l.JSON(&c, "status", "ci-k")
	if c.Goal.By != "its time was over" {
		l.Errorf("the cluster of a run that was killed was destroyed by %q", c.Goal.By)
	}
	l.gone(before, "ci-k")
}

// gone wants nothing of clusters that were destroyed: not with a service, not in the network, and in no file but the journals,
// the logs and the ledger of certificates, which says of each that it is revoked.
func (l own) gone(before map[string]bool, clusters ...string) {
	l.Helper()
	for _, name := range clusters {
		l.Free(name, 2)
		for _, fqdn := range []string{"etcd", "n1", "n2"} {
			if out := l.MustInside("dig", "@10.77.0.1", "+short", fqdn+"."+name+".lab"); out != "" {
				l.Errorf("%s.%s.lab still has the address %s", fqdn, name, out)
			}
		}
		if open, issued := l.certified(name); len(open) > 0 {
			l.Errorf("%d certificates were issued for %s, and not revoked is what %q have", issued, name, open)
		}
	}
	var more, less []string
	for range 20 { // the engine looks every five seconds for keys of clusters that are destroyed
		now := l.belongings()
		more, less = nil, nil
		for what := range now {
			if !before[what] {
				more = append(more, what)
			}
		}
		for what := range before {
			if !now[what] {
				less = append(less, what)
			}
		}
		if len(more)+len(less) == 0 {
			return
		}
		time.Sleep(time.Second)
	}
	slices.Sort(more)
	slices.Sort(less)
	l.Errorf("after %v there is, and was not before:\n%s\nand is not any more:\n%s", clusters, strings.Join(more, "\n"), strings.Join(less, "\n"))
}

// belongings are what an engine and its network have that clusters could leave something in: files, addresses that are set
// aside or leased, entries of services, and the network's addresses, routes and listeners.
func (l own) belongings() map[string]bool {
	l.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir(l.Data, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(l.Data, path)
		switch {
		case os.IsNotExist(err): // it was about to go
			return nil
		case err != nil:
			return err
		case strings.HasPrefix(rel, "joist.db") || strings.HasPrefix(rel, "machines/"): // looked into below; the machines' own
			return nil
		}
		all["file "+rel] = true
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
	for _, ask := range [][]string{{"ip", "-br", "address"}, {"ip", "route", "show", "table", "all"}, {"ss", "-Hltn"}} {
		for line := range strings.Lines(l.MustInside(ask...)) {
			line = strings.Join(strings.Fields(line), " ")
			if !strings.HasPrefix(line, "vm-") && !strings.Contains(line, "fe80:") && !strings.Contains(line, "ff00:") { // the machines' own
				all[ask[0]+" "+line] = true
			}
		}
	}
	for _, row := range l.rows("SELECT 'reserved ' || address || ' ' || mac FROM address_reservations UNION ALL " +
		"SELECT 'leased ' || address || ' ' || mac FROM address_leases WHERE expires > strftime('%s', 'now') * 1000000 UNION ALL " +
		"SELECT 'entry ' || service || ' ' || cluster || ' ' || entry_key FROM service_entries") {
		all[row] = true
	}
	return all
}

// rows asks the engine's database for texts.
func (l own) rows(query string) []string {
	l.Helper()
	db, err := sqlstore.OpenReadOnly(l.Context(), l.Data)
	if err != nil {
		l.Fatal(err)
	}
	defer db.Close()
	var rows []string
	if err := db.Gorm().Raw(query).Scan(&rows).Error; err != nil {
		l.Fatal(err)
	}
	return rows
}

// certified counts the certificates that were issued for a cluster, and gives the owners of those that are not revoked.
func (l own) certified(cluster string) (owners []string, issued int) {
	l.Helper()
	f, err := os.Open(filepath.Join(l.Data, "ca/ledger.jsonl"))
	if err != nil {
		l.Fatal(err)
	}
	defer f.Close()
	open := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var line struct {
			Issued  *struct{ Issuer, Serial, Owner string }
			Revoked []struct{ Issuer, Serial string }
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			l.Fatal(err)
		}
		if i := line.Issued; i != nil && strings.HasPrefix(i.Owner, cluster+"/") {
			open[i.Issuer+" "+i.Serial] = i.Owner
			issued++
		}
		for _, r := range line.Revoked {
			delete(open, r.Issuer+" "+r.Serial)
		}
	}
	return slices.Collect(maps.Values(open)), issued
}
