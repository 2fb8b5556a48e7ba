// Package cli is joist's command line. Remote verbs speak to an engine through services/api/client; what works on this
// machine alone (packs, boot sets, the lab, the engine itself) comes from functions that the program wires in.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"joist/cmd/joist/author"
	"joist/cmd/joist/forget"
	"joist/cmd/joist/lab"
	"joist/cmd/joist/layout"
	"joist/cmd/joist/redeploy"
	"joist/cmd/joist/supply"
	"joist/cmd/joist/verify"
	"joist/cmd/system/findings"
	"joist/services/api/client"
	v1 "joist/services/api/v1"
	"joist/workflows/format"
	"joist/workflows/lang/diag"
)

// The exit codes.
const (
	OK          = 0
	Failed      = 1   // something did not work, and was not changed or not finished
	Usage       = 2   // the command line makes no sense
	HasChanges  = 3   // plan --detailed-exitcode: there is something to do; verify: something has drifted
	Stopped     = 4   // converging stopped with failures
	Unreachable = 5   // no engine answers
	Interrupted = 130 // Ctrl-C
)

// ExitError ends the program with a code. A nil Err says that everything was said already.
type ExitError struct {
	Code int
	Err  error
}

// Error implements error.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap gives the cause.
func (e *ExitError) Unwrap() error { return e.Err }

func usage(format string, args ...any) error {
	return &ExitError{Usage, fmt.Errorf(format, args...)}
}

// ServeOptions is what joist serve was told.
type ServeOptions struct {
	Data, Socket      string
	Interface, Subnet string
	Address, BootSets string
	RunDir, Bridge    string // of the lab's virtual machines; empty for none
	Moved             bool   // the engine serves at another address than before
	LogLevel          string // debug, info, warn, error
	LogJSON           bool
}

// Local is what commands need that is not behind the API. A function that is nil makes its command say that this
// program was built without it.
type Local struct {
	// Serve runs an engine until ctx ends.
	Serve func(ctx context.Context, o ServeOptions) error
	// Source reads a cluster file and the packs that it names as folders.
	Source func(file string) (*v1.Source, error)
	// Adapted is Source of a cluster file that is given another name and other inputs first.
	Adapted func(file string, as format.Cluster) (*v1.Source, error)
	// Replay runs the core again over a cluster's journal in a data folder, without an engine and without writing. An empty
	// name means the only cluster there is.
	Replay func(ctx context.Context, data, cluster string, q v1.ReplayQuery) (*v1.Replay, error)
	// Wanted lists what artifacts the packs of a cluster file name.
	Wanted func(file string) ([]supply.Wanted, error)
	// Simulate runs a cluster file on simulated machines.
	Simulate func(ctx context.Context, o author.Options) (*author.Simulated, error)
	// LockPacks writes the lock of a cluster file.
	LockPacks func(o author.LockOptions) (*author.Locked, error)
	// TestPack runs the tests of a pack's folder that have only in their names.
	TestPack func(ctx context.Context, dir, only string) (*author.PackTests, error)
	// Check checks a pack's folder, CheckCluster a cluster file with its packs.
	Check, CheckCluster func(path string) (diag.Diagnostics, error)
	// Format gives the canonical form of a source.
	Format func(name string, src []byte) ([]byte, error)
	// Build builds a boot set and gives its folder.
	Build func(ctx context.Context, o supply.BuildOptions, progress func(stage, detail string)) (folder string, err error)
	// Lab gives the lab of a data folder.
	Lab func(data, subnet string) (*lab.Lab, error)
}

// Env is the world around one run of the program.
type Env struct {
	Args    []string // without the program's name
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Getenv  func(string) string
	Version string
	Local   Local
	Now     func() time.Time // nil for time.Now
}

// app is one run.
type app struct {
	Env
	socket  string
	cluster string
	output  string
	api     *client.Client
}

// Run runs the program and gives its exit code. ctx ends when the user interrupts.
func Run(ctx context.Context, env Env) int {
	if env.Getenv == nil {
		env.Getenv = os.Getenv
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	a := &app{Env: env}
	defer func() {
		if a.api != nil {
			a.api.Close()
		}
	}()
	root := a.root()
	root.SetArgs(env.Args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	code := codeOf(ctx, err)
	var exit *ExitError
	silent := errors.As(err, &exit) && exit.Err == nil || code == Interrupted && exit == nil && !a.asJSON()
	if err != nil && !silent {
		a.complain(code, err)
	}
	return code
}

func codeOf(ctx context.Context, err error) int {
	var exit *ExitError
	var unreachable *client.UnreachableError
	var name *client.NameError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &exit):
		return exit.Code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return Interrupted
	case errors.As(err, &unreachable):
		return Unreachable
	case errors.As(err, &name), strings.HasPrefix(err.Error(), "unknown command"):
		return Usage
	}
	return Failed
}

// asJSON reports whether the output is for programs, also where the command line could not be read to its end.
func (a *app) asJSON() bool {
	if a.output == "json" {
		return true
	}
	for i, arg := range a.Args {
		switch {
		case arg == "--":
			return false
		case arg == "-ojson", arg == "-o=json", arg == "--output=json":
			return true
		case (arg == "-o" || arg == "--output") && i+1 < len(a.Args) && a.Args[i+1] == "json":
			return true
		}
	}
	return false
}

// problem gives an error of this program the form of the engine's. Its status is 0: no engine answered.
func problem(code int, err error) *v1.Problem {
	p := &v1.Problem{Type: v1.ProblemPrefix + "failed", Title: "joist failed", Detail: longText(err), Findings: findings.Of(err)}
	switch code {
	case Usage:
		p.Type, p.Title = v1.ProblemPrefix+"usage", "The command line makes no sense"
	case Unreachable:
		p.Type, p.Title = v1.ProblemPrefix+"unreachable", "The engine cannot be reached"
	case Interrupted:
		p.Type, p.Title = v1.ProblemPrefix+"interrupted", "Interrupted"
	}
	return p
}

// complain writes an error for people, or as a problem where everything is JSON.
func (a *app) complain(code int, err error) {
	var p *v1.Problem
	if a.asJSON() {
		if !errors.As(err, &p) {
			p = problem(code, err)
		}
		e := json.NewEncoder(a.Err)
		e.SetEscapeHTML(false)
		_ = e.Encode(p)
		return
	}
	if errors.As(err, &p) {
		text := p.Detail
		if text == "" {
			text = p.Title
		}
		fmt.Fprintln(a.Err, "joist: "+strings.TrimRight(text, "\n"))
		if p.Advice != "" {
			fmt.Fprintln(a.Err, "  "+p.Advice)
		}
		return
	}
	fmt.Fprintln(a.Err, "joist: "+strings.TrimRight(longText(err), "\n"))
}

// longText gives an error's text; diagnostics in their long form, with the places, the sources and advice. Joined errors
// follow each other.
func longText(err error) string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var texts []string
		for _, one := range joined.Unwrap() {
			texts = append(texts, longText(one))
		}
		return strings.Join(texts, "\n")
	}
	var long interface {
		error
		Text() string
	}
	if errors.As(err, &long) {
		return long.Text()
	}
	return err.Error()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "joist",
		Short: "From powered-off machines to a running cluster, and kept so",
		Long: `joist takes machines from power-on to a running cluster, and keeps it converged.

Exit codes: 0 fine; 1 failed; 2 the command line makes no sense; 3 the plan has changes (with --detailed-exitcode);
4 converging stopped with failures; 5 the engine cannot be reached; 130 interrupted. To follow what is cancelled ends with 1.

With -o json a command writes one JSON document to its output (events: one in each line). What fails is told on the error
output as a problem object (RFC 9457) whatever the command; with the codes 3 and 4 the result itself says it. Consoles,
lab exec, completion and help are text.

The engine is reached through its Unix socket: --socket, else JOIST_SOCKET, else ` + client.DefaultSocket + `.`,
		Example:       "  joist apply demo.hcl\n  joist status\n  joist why 'demo/member[n1]'",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.prepare() },
		Args:              known,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		Version:           a.Version,
	}
	root.SetVersionTemplate("joist {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.socket, "socket", "", "the engine's Unix socket (default JOIST_SOCKET, else "+client.DefaultSocket+")")
	f.StringVarP(&a.output, "output", "o", "text", "form of the output: text or json")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	simulate := a.author().SimulateCommand()
	simulate.GroupID = "content"
	root.AddCommand(simulate)
	root.AddGroup(&cobra.Group{ID: "cluster", Title: "Clusters:"}, &cobra.Group{ID: "machine", Title: "Machines:"}, &cobra.Group{ID: "content", Title: "Packs and boot sets:"}, &cobra.Group{ID: "engine", Title: "The engine:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("cluster", a.planCommand(), a.applyCommand(), a.statusCommand(), a.watchCommand(), a.whyCommand(), a.pathCommand(), a.replayCommand(), a.showCommand(), a.outputsCommand(),
		a.retryCommand(), a.cancelCommand(), a.forceCommand(), a.skipCommand(), a.approveCommand(), a.breakerCommand(), completing(verify.Command(a.verifying()), a.completeVerified), completing(redeploy.Command(a.wiping()), a.completeClusters), a.destroyCommand(), completing(forget.Command(a.forgetting()), a.completeClusters), a.ciCommand(), a.certCommand(), a.kubeconfigCommand())
	add("machine", a.nodeCommand(), a.labCommand())
	add("content", a.packCommand(), a.fmtCommand(), supply.BootSets(group, a.supply()), supply.Command(group, a.supply()))
	add("engine", a.serveCommand(), a.eventsCommand(), a.versionCommand())
	usageErrors(root)
	return root
}

// known refuses a command that there is none of, and names those that may be meant.
func known(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unknown command %q for %q%s", args[0], c.CommandPath(), meant(c, args[0]))
}

// meant names the commands that a mistyped one may be; empty if none is near.
func meant(c *cobra.Command, typed string) string {
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(typed); len(near) > 0 {
		return "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return ""
}

func (a *app) supply() *supply.Program {
	return &supply.Program{
		Out: a.Out, Err: a.Err, Now: a.Now, Client: func() *client.Client { a.connect(); return a.api }, JSON: a.json, Usage: usage, Pick: a.pick,
		Table: func(rows [][]string) { layout.Table(a.Out, rows) }, Clusters: a.completeClusterFlag, Wanted: a.Local.Wanted, Build: a.Local.Build,
		Quiet: func() bool { return a.output == "json" },
	}
}

func (a *app) labCommand() *cobra.Command {
	p := &lab.Program{Getenv: a.Getenv, JSON: a.json, Printf: a.printf, Usage: usage, Exit: func(code int) error { return &ExitError{Code: code} }, Group: group, Open: a.Local.Lab}
	if p.Open == nil {
		p.Open = func(string, string) (*lab.Lab, error) { return nil, missing("make labs") }
	}
	return lab.Commands(p)
}

// usageErrors makes every complaint about arguments one about usage, with the way to the help.
func usageErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usage("%w; see %s --help", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

func must(err error) {
	if err != nil {
		panic("internal error: " + err.Error())
	}
}

func (a *app) prepare() error {
	if a.output != "text" && a.output != "json" {
		return usage("there is no output form %q: use text or json", a.output)
	}
	a.connect()
	return nil
}

func (a *app) connect() {
	socket := a.socket
	if socket == "" {
		socket = a.Getenv("JOIST_SOCKET")
	}
	if a.api == nil {
		a.api = client.New(socket)
	}
}

// json reports whether the output is for programs, and writes v if so.
func (a *app) json(v any) (bool, error) {
	if a.output != "json" {
		return false, nil
	}
	e := json.NewEncoder(a.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return true, e.Encode(v)
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.Out, format, args...) }

// missing says that this program was built without a part.
func missing(what string) error {
	return fmt.Errorf("this joist cannot %s yet", what)
}

// terminal gives the size of the terminal that w is, or false.
func terminal(w io.Writer) (width, height int, ok bool) {
	f, is := w.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return width, height, err == nil && width > 0
}

// pick gives the cluster that is meant: the one named, or the only one that there is.
func (a *app) pick(ctx context.Context, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	list, err := a.api.Clusters(ctx)
	if err != nil {
		return "", err
	}
	var names []string
	for _, c := range list {
		if c.Outcome != "destroyed" {
			names = append(names, c.Name)
		}
	}
	switch {
	case len(names) == 1:
		return names[0], nil
	case len(list) == 0:
		return "", errors.New("there is no cluster yet: joist apply FILE makes one")
	case len(names) == 0:
		for _, c := range list {
			names = append(names, c.Name)
		}
		return "", usage("every cluster is destroyed; name the one you mean: %s", layout.Some(names, 10))
	}
	return "", usage("there are several clusters; name one of them: %s", strings.Join(names, ", "))
}
