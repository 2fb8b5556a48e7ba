// Package ci has joist ci run: a cluster that is made to be tried, and taken away again whatever happens.
package ci

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"joist/cmd/joist/redeploy"
	v1 "joist/services/api/v1"
	"joist/workflows/format"
)

// Program is what the command needs of the program that it is part of; all of it is required.
type Program struct {
	redeploy.Program
	// Source reads a cluster file, gives it another name and other inputs, and gathers the packs that it names.
	Source func(file string, as format.Cluster) (*v1.Source, error)
	Now    func() time.Time
	// Exit ends the program with a code; a nil error says that all was said.
	Exit func(code int, err error) error
}

// The codes by which the program ends.
const (
	exitFailed      = 1
	exitStopped     = 4
	exitInterrupted = 130
)

// clusterName is what an engine takes for a cluster's name.
var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// options is what joist ci run was told.
type options struct {
	name, junit   string
	run           string // random: what the engine knows this run by
	ttl, teardown time.Duration
	with          []string
	checks        []string
	plain         bool
}

// leastTTL is the shortest time that a cluster may live.
const leastTTL = time.Second

// Command is joist ci; group makes a command out of others.
func Command(group func(use, short string, commands ...*cobra.Command) *cobra.Command, p Program) *cobra.Command {
	o := options{ttl: 30 * time.Minute, teardown: 15 * time.Minute}
	run := &cobra.Command{
		Use:   "run FILE",
		Short: "Make a cluster, try it, and take it away whatever happens",
		Long: `run makes the cluster of a cluster file under a name of its own, waits until it has converged, tries it, and
destroys it: also if something failed, and if it is interrupted. If it is killed, or loses the engine, the engine destroys the cluster
by itself when its time, --ttl, is over. Several may run at the same time, each with another --name and with other names in DNS
(--with domain=…). A value of --with that begins with [ or { is a list or an object, as JSON or HCL, and one in double quotes a string
whatever it looks like; others are true, false, a number, or a string as it stands.

Once the cluster has converged, everything that its workflow has on demand is run, one by one, such as smoke of the Kubernetes pack.
With --check only what is named is: that, or an instance, which runs once more.

Exit codes: 0 all went well, and nothing is left; 1 it could not begin, or something is left; 4 something failed, or the time was over;
5 the engine cannot be reached; 130 interrupted.`,
		Example: "  joist ci run demo.hcl --name ci-17 --with domain=ci-17.lab --ttl 30m --junit out.xml\n  joist ci run demo.hcl --name ci-17 --check smoke --check front -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.ttl < leastTTL || o.teardown < leastTTL {
				return p.Usage("--ttl and --teardown are times such as 30m")
			}
			s, name, err := p.adapted(args[0], o)
			if err != nil { // whoever reads reports alone learns of it as well
				called := cmp.Or(o.name, strings.TrimSuffix(filepath.Base(args[0]), ".hcl"))
				return p.conclude(&Report{Cluster: called, Begun: p.Now(), Outcome: refused, Left: []string{}, Cases: []Case{}}, o, err)
			}
			return p.run(cmd.Context(), *s, name, o)
		},
	}
	f := run.Flags()
	f.StringVar(&o.name, "name", "", "the cluster's name (default that of the file)")
	f.DurationVar(&o.ttl, "ttl", o.ttl, "when the engine destroys the cluster by itself; what is not done by then has failed")
	f.DurationVar(&o.teardown, "teardown", o.teardown, "how long to wait until it is destroyed")
	f.StringVar(&o.junit, "junit", "", "write a report in JUnit's form to this file")
	f.StringArrayVar(&o.with, "with", nil, "an input of the workflow, as KEY=VALUE; lists and objects as JSON or HCL")
	f.StringArrayVar(&o.checks, "check", nil, "what is run on demand, or an instance that is run once more, after the cluster has converged (default all that runs on demand)")
	f.BoolVar(&o.plain, "plain", false, "one line for each thing that happens, also on a terminal")
	return group("ci", "Clusters for continuous integration", run)
}

// adapted reads the cluster file, and gives it the run's name and inputs.
func (p Program) adapted(file string, o options) (*v1.Source, string, error) {
	with := map[string]string{}
	for _, w := range o.with {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, "", p.Usage("--with %q is not KEY=VALUE", w)
		}
		with[key] = value
	}
	s, err := p.Source(file, format.Cluster{Name: o.name, With: with})
	if err != nil {
		return nil, "", err
	}
	name := o.name
	if name == "" {
		if name, err = format.ClusterName(s.FileName, s.File); err != nil {
			return nil, "", fmt.Errorf("cannot tell the cluster's name: %w", err)
		}
	}
	if !clusterName.MatchString(name) {
		return nil, "", p.Usage("cannot use %q as a cluster's name: use lower-case letters, digits and hyphens", name)
	}
	return s, name, nil
}
