// Package client speaks to the engine's API over its Unix socket. It is all that the command line needs for remote verbs.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"joist/engine/addr"
	v1 "joist/services/api/v1"
)

// DefaultSocket is where an engine listens if nothing else is said.
const DefaultSocket = "/run/joist/joist.sock"

// UnreachableError says that no engine answers.
type UnreachableError struct {
	Socket string
	Lost   bool // it was reached, and went away before it had answered
	Err    error
}

// Error says where it was looked for and what to do.
func (e *UnreachableError) Error() string {
	if e.Lost {
		return fmt.Sprintf("lost the engine at %s before it had answered: %v; what was asked may have been done: see joist status, and start joist serve again if it has ended", e.Socket, e.Err)
	}
	return fmt.Sprintf("cannot reach the engine at %s: %v; is joist serve running, and is --socket (or JOIST_SOCKET) its socket?", e.Socket, e.Err)
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Client speaks to one engine. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client of the engine at a Unix socket. Nothing is connected yet.
func New(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", socket)
			if err != nil {
				return nil, &UnreachableError{Socket: socket, Err: err}
			}
			return conn, nil
		},
		MaxIdleConns: 4, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}}
}

// Socket is the path of the engine's socket.
func (c *Client) Socket() string { return c.socket }

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request.
type call struct {
	method, path string // the names in it escaped
	query        url.Values
	header       http.Header
	body         io.Reader
	size         int64 // of body, if known
}

// send sends a request and gives the response if its status says that all is well. Errors of the API are *v1.Problem.
func (c *Client) send(ctx context.Context, r call) (*http.Response, error) {
	if err := checkPath(r.path); err != nil {
		return nil, err
	}
	address := "http://joist" + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, r.body)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.size > 0 {
		req.ContentLength = r.size
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var unreachable *UnreachableError
		switch {
		case errors.As(err, &unreachable):
			return nil, unreachable
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, &UnreachableError{Socket: c.socket, Lost: true, Err: err}
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problem(resp)
}

func problem(resp *http.Response) error {
	p := &v1.Problem{Status: resp.StatusCode, Title: resp.Status}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != v1.ProblemMedia || json.Unmarshal(data, p) != nil {
		p.Detail = "the engine answered " + resp.Status
	}
	return p
}

// do sends a request with an optional JSON body and reads a JSON answer into out.
func (c *Client) do(ctx context.Context, r call, in, out any) error {
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("cannot encode the request: %w", err)
		}
		r.body, r.header = bytes.NewReader(data), http.Header{"Content-Type": {"application/json"}}
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &UnreachableError{Socket: c.socket, Lost: true, Err: fmt.Errorf("its answer broke off: %w", err)}
	}
	return nil
}

func ask[T any](ctx context.Context, c *Client, r call, in any) (*T, error) {
	var out T
	if err := c.do(ctx, r, in, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

func list[T any](ctx context.Context, c *Client, r call, in any) ([]T, error) {
	l, err := ask[[]T](ctx, c, r, in)
	if err != nil {
		return nil, err
	}
	return *l, nil
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	return ask[T](ctx, c, call{method: "GET", path: path}, nil)
}

func cluster(name, rest string) string { return "/v1/clusters/" + url.PathEscape(name) + rest }

func machine(name, rest string) string { return "/v1/machines/" + url.PathEscape(name) + rest }

func frozenSet(name string) string { return "/v1/mirror/sets/" + url.PathEscape(name) }

// NameError says that something cannot be a name. The engine was not asked.
type NameError struct{ What, Name string }

// Error says how names are written.
func (e *NameError) Error() string {
	if e.What == "instance" {
		return fmt.Sprintf("%.120q is no instance: write cluster/task[node], or cluster/task for a single one", e.Name)
	}
	return fmt.Sprintf("%.80q cannot be the name of a %s: names have lower-case letters, digits and hyphens", e.Name, e.What)
}

// checkPath refuses a path in which something stands for a name that is none: it would mean another path.
func checkPath(path string) error {
	parts := strings.Split(path, "/")
	for i, part := range parts[1:] {
		name, err := url.PathUnescape(part)
		if err != nil {
			return fmt.Errorf("internal error: cannot read the path %q: %w", path, err)
		}
		switch what := parts[i]; what {
		case "clusters", "machines", "sets":
			if !v1.IsName(name) {
				return &NameError{map[string]string{"clusters": "cluster", "machines": "machine", "sets": "frozen set"}[what], name}
			}
		case "instances":
			if _, _, ok := addr.ParsePath(name); !ok {
				return &NameError{"instance", name}
			}
		}
	}
	return nil
}

// Status gives the engine at a glance.
func (c *Client) Status(ctx context.Context) (*v1.Status, error) {
	return get[v1.Status](ctx, c, "/v1/status")
}

// Preview plans what would be applied and changes nothing.
func (c *Client) Preview(ctx context.Context, a v1.Apply) (*v1.Plan, error) {
	return ask[v1.Plan](ctx, c, call{method: "POST", path: "/v1/plan"}, a)
}

// Clusters lists the clusters.
func (c *Client) Clusters(ctx context.Context) ([]v1.Cluster, error) {
	list, err := get[[]v1.Cluster](ctx, c, "/v1/clusters")
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// Cluster gives one cluster.
func (c *Client) Cluster(ctx context.Context, name string) (*v1.ClusterDetail, error) {
	return get[v1.ClusterDetail](ctx, c, cluster(name, ""))
}

// Plan gives the plan of the goal that a cluster pursues.
func (c *Client) Plan(ctx context.Context, name string) (*v1.Plan, error) {
	return get[v1.Plan](ctx, c, cluster(name, "/plan"))
}

// PlanDestroy gives the plan of a cluster's destruction, as it would be with policies overridden, and changes nothing.
func (c *Client) PlanDestroy(ctx context.Context, name string, overrides ...v1.Override) (*v1.Plan, error) {
	q := overriding(overrides)
	q.Set("destroy", "1")
	return ask[v1.Plan](ctx, c, call{method: "GET", path: cluster(name, "/plan"), query: q}, nil)
}

// overriding is a query that overrides policies, all for one reason.
func overriding(list []v1.Override) url.Values {
	q := url.Values{}
	for _, o := range list {
		q.Add("override", o.Policy)
		q.Set("reason", o.Reason)
	}
	return q
}

// Outputs gives what a cluster's workflow yields.
func (c *Client) Outputs(ctx context.Context, name string) (*v1.Outputs, error) {
	return get[v1.Outputs](ctx, c, cluster(name, "/outputs"))
}

// Apply makes a declaration the goal.
func (c *Client) Apply(ctx context.Context, a v1.Apply) (*v1.Accepted, error) {
	return ask[v1.Accepted](ctx, c, call{method: "POST", path: "/v1/clusters"}, a)
}

// Destroy makes nothing the cluster's goal, whatever the named policies say; all of them are overridden for one reason.
func (c *Client) Destroy(ctx context.Context, name string, overrides ...v1.Override) (*v1.Accepted, error) {
	return c.DestroyRun(ctx, name, "", overrides...)
}

// DestroyRun is Destroy of a cluster that has its goal from the named run's Apply; a conflict if it has not.
func (c *Client) DestroyRun(ctx context.Context, name, run string, overrides ...v1.Override) (*v1.Accepted, error) {
	q := overriding(overrides)
	if run != "" {
		q.Set("run", run)
	}
	return ask[v1.Accepted](ctx, c, call{method: "DELETE", path: cluster(name, ""), query: q}, nil)
}

// Act passes a person's word on.
func (c *Client) Act(ctx context.Context, name string, a v1.Action) (*v1.Accepted, error) {
	return ask[v1.Accepted](ctx, c, call{method: "POST", path: cluster(name, "/actions")}, a)
}

// Verify has instances of a cluster verified; none for all.
func (c *Client) Verify(ctx context.Context, name string, v v1.Verify) (*v1.Verification, error) {
	return ask[v1.Verification](ctx, c, call{method: "POST", path: cluster(name, "/verify")}, v)
}

// Verified says how far that is, without the first skip of what has ended.
func (c *Client) Verified(ctx context.Context, name string, id uint64, skip int) (*v1.Verification, error) {
	q := url.Values{"id": {strconv.FormatUint(id, 10)}, "skip": {strconv.Itoa(skip)}}
	return ask[v1.Verification](ctx, c, call{method: "GET", path: cluster(name, "/verify"), query: q}, nil)
}

// Why explains an instance, named task[node] or task.
func (c *Client) Why(ctx context.Context, name, instance string) (*v1.Why, error) {
	return ask[v1.Why](ctx, c, call{method: "GET", path: cluster(name, "/why"), query: url.Values{"instance": {instance}}}, nil)
}

// Replay runs the core again over a cluster's journal, in the engine.
func (c *Client) Replay(ctx context.Context, name string, q v1.ReplayQuery) (*v1.Replay, error) {
	query := url.Values{}
	if q.Run > 0 {
		query.Set("run", strconv.FormatUint(q.Run, 10))
	}
	if q.At > 0 {
		query.Set("at", strconv.FormatUint(q.At, 10))
	}
	return ask[v1.Replay](ctx, c, call{method: "GET", path: cluster(name, "/replay"), query: query}, nil)
}

// Instance gives the history of an instance and the log of its last attempt.
func (c *Client) Instance(ctx context.Context, name, instance string) (*v1.Instance, error) {
	return get[v1.Instance](ctx, c, cluster(name, "/instances/"+url.PathEscape(instance)))
}

// Certify asks for an operator's client certificate.
func (c *Client) Certify(ctx context.Context, name string, r v1.CertificateRequest) (*v1.Certificate, error) {
	return ask[v1.Certificate](ctx, c, call{method: "POST", path: cluster(name, "/certificate")}, r)
}

// Machines lists the site's machines.
func (c *Client) Machines(ctx context.Context) ([]v1.Machine, error) {
	list, err := get[[]v1.Machine](ctx, c, "/v1/machines")
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// Machine gives one machine with its facts.
func (c *Client) Machine(ctx context.Context, name string) (*v1.Machine, error) {
	return get[v1.Machine](ctx, c, machine(name, ""))
}

// Approve confirms a machine's key.
func (c *Client) Approve(ctx context.Context, name string, a v1.Approve) (*v1.Machine, error) {
	return ask[v1.Machine](ctx, c, call{method: "POST", path: machine(name, "/approve")}, a)
}

// DefineMachine makes a virtual machine, or changes one.
func (c *Client) DefineMachine(ctx context.Context, spec v1.MachineSpec) (*v1.Machine, error) {
	return ask[v1.Machine](ctx, c, call{method: "POST", path: "/v1/machines"}, spec)
}

// UndefineMachine removes a virtual machine.
func (c *Client) UndefineMachine(ctx context.Context, name string) error {
	resp, err := c.send(ctx, call{method: "DELETE", path: machine(name, "")})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Power switches a machine and returns once that was read back.
func (c *Client) Power(ctx context.Context, name, action string) (*v1.Machine, error) {
	return ask[v1.Machine](ctx, c, call{method: "POST", path: machine(name, "/power")}, v1.Power{Action: action})
}

// Wipe erases the data disks of a machine that no cluster has, and returns once that was read back: that may take minutes.
func (c *Client) Wipe(ctx context.Context, name string) (*v1.Wiped, error) {
	return ask[v1.Wiped](ctx, c, call{method: "POST", path: machine(name, "/wipe")}, v1.Wipe{})
}

// Console copies a machine's console to w: its last tail bytes (all if negative), and with follow what comes after.
func (c *Client) Console(ctx context.Context, name string, w io.Writer, tail int64, follow bool) error {
	q := url.Values{}
	if tail >= 0 {
		q.Set("tail", strconv.FormatInt(tail, 10))
	}
	if follow {
		q.Set("follow", "1")
	}
	resp, err := c.send(ctx, call{method: "GET", path: machine(name, "/console"), query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the console broke off: %w", err)
	}
	return ctx.Err()
}

func artifact(digest string) string { return "/v1/artifacts/" + url.PathEscape(digest) }

// HasArtifact gives what is stored under a digest, nil if it is not there or not whole.
func (c *Client) HasArtifact(ctx context.Context, digest string) (*v1.Artifact, error) {
	resp, err := c.send(ctx, call{method: "HEAD", path: artifact(digest)})
	var p *v1.Problem
	switch {
	case err == nil:
		return &v1.Artifact{Digest: digest, Size: resp.ContentLength}, resp.Body.Close()
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		return nil, nil
	}
	return nil, err
}

// PutArtifact stores a file of a given size under its digest. A file that is there already, and whole, is not sent.
func (c *Client) PutArtifact(ctx context.Context, digest string, r io.Reader, size int64) (*v1.Artifact, error) {
	if a, err := c.HasArtifact(ctx, digest); a != nil || err != nil {
		return a, err
	}
	return ask[v1.Artifact](ctx, c, call{method: "PUT", path: artifact(digest), body: r, size: size}, nil)
}

// Artifact copies a stored file to w.
func (c *Client) Artifact(ctx context.Context, digest string, w io.Writer) error {
	resp, err := c.send(ctx, call{method: "GET", path: artifact(digest)})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err == nil && n != resp.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("cannot copy artifact %s: %w", digest, err)
	}
	return nil
}

// Mirror lists what clusters can use.
func (c *Client) Mirror(ctx context.Context) ([]v1.MirrorEntry, error) {
	return list[v1.MirrorEntry](ctx, c, call{method: "GET", path: "/v1/mirror"}, nil)
}

// AddToMirror enters files that were put before, all or none, and gives the whole list.
func (c *Client) AddToMirror(ctx context.Context, a v1.MirrorAdd) ([]v1.MirrorEntry, error) {
	return list[v1.MirrorEntry](ctx, c, call{method: "POST", path: "/v1/mirror"}, a)
}

// VerifyMirror reads every file again that the mirror or a frozen set names.
func (c *Client) VerifyMirror(ctx context.Context) ([]v1.MirrorFinding, error) {
	return list[v1.MirrorFinding](ctx, c, call{method: "POST", path: "/v1/mirror/verify"}, nil)
}

// CollectMirror removes what nothing names.
func (c *Client) CollectMirror(ctx context.Context, m v1.MirrorCollect) (*v1.MirrorCollected, error) {
	return ask[v1.MirrorCollected](ctx, c, call{method: "POST", path: "/v1/mirror/gc"}, m)
}

// FrozenSets lists the frozen sets.
func (c *Client) FrozenSets(ctx context.Context) ([]v1.FrozenSet, error) {
	return list[v1.FrozenSet](ctx, c, call{method: "GET", path: "/v1/mirror/sets"}, nil)
}

// FrozenSet gives one with its files.
func (c *Client) FrozenSet(ctx context.Context, name string) (*v1.FrozenSet, error) {
	return get[v1.FrozenSet](ctx, c, frozenSet(name))
}

// Freeze freezes everything that a cluster uses.
func (c *Client) Freeze(ctx context.Context, f v1.Freeze) (*v1.FrozenSet, error) {
	return ask[v1.FrozenSet](ctx, c, call{method: "POST", path: "/v1/mirror/sets"}, f)
}

// Thaw forgets a frozen set.
func (c *Client) Thaw(ctx context.Context, name string) error {
	resp, err := c.send(ctx, call{method: "DELETE", path: frozenSet(name)})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// BootSets lists the registered boot sets.
func (c *Client) BootSets(ctx context.Context) ([]v1.BootSet, error) {
	list, err := get[[]v1.BootSet](ctx, c, "/v1/bootsets")
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// RegisterBootSet makes a boot set known whose files were stored before.
func (c *Client) RegisterBootSet(ctx context.Context, manifest json.RawMessage) (*v1.BootSet, error) {
	return ask[v1.BootSet](ctx, c, call{method: "POST", path: "/v1/bootsets"}, manifest)
}

// Page gives a page of events after a cursor.
func (c *Client) Page(ctx context.Context, f Filter) (*v1.Events, error) {
	q := f.query()
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return ask[v1.Events](ctx, c, call{method: "GET", path: "/v1/events", query: q}, nil)
}

// Filter says which events are wanted.
type Filter struct {
	Journals []string // empty: all
	After    string   // cursor; empty for the beginning, "now" for the end
	Limit    int      // of a page; 0 for the engine's default
}

func (f Filter) query() url.Values {
	q := url.Values{}
	if len(f.Journals) > 0 {
		q.Set("journal", strings.Join(f.Journals, ","))
	}
	if f.After != "" {
		q.Set("after", f.After)
	}
	return q
}

// Stream calls f for each event after the filter's cursor, then for each further one, until f fails, the stream breaks
// off or ctx ends. silence is how long the engine may say nothing at all, 0 for 45 s; its heartbeats come every 10 s.
func (c *Client) Stream(ctx context.Context, filter Filter, silence time.Duration, f func(v1.Event) error) error {
	return c.stream(ctx, filter, silence, func() {}, f)
}

// stream is Stream that tells of everything it hears, heartbeats included.
func (c *Client) stream(ctx context.Context, filter Filter, silence time.Duration, heard func(), f func(v1.Event) error) error {
	if silence == 0 {
		silence = 45 * time.Second
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.send(ctx, call{method: "GET", path: "/v1/events", query: filter.query(), header: http.Header{"Accept": {"text/event-stream"}}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	watchdog := time.AfterFunc(silence, func() {
		cancel(&UnreachableError{Socket: c.socket, Err: fmt.Errorf("it said nothing for %s", silence)})
	})
	defer watchdog.Stop()
	err = ReadStream(resp.Body, func(e Message) error {
		watchdog.Reset(silence)
		heard()
		if e.Data == "" {
			return nil
		}
		var event v1.Event
		if err := json.Unmarshal([]byte(e.Data), &event); err != nil {
			return fmt.Errorf("cannot read an event: %w", err)
		}
		return f(event)
	})
	switch cause := context.Cause(ctx); {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &UnreachableError{Socket: c.socket, Err: errors.New("the stream of events ended")}
	case cause != nil:
		return cause
	}
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, net.ErrClosed) {
		return &UnreachableError{Socket: c.socket, Err: err}
	}
	return err
}

// Message is one message of a Server-Sent Events stream. A comment comes as a message without data.
type Message struct{ ID, Event, Data string }

// maxLine bounds one line of a stream, in bytes: an event's data is one line.
const maxLine = 40 << 20

// ReadStream reads a stream of Server-Sent Events (WHATWG HTML § 9.2.6) and calls f for each message. An incomplete last
// message is dropped.
func ReadStream(r io.Reader, f func(Message) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	var m Message
	var data []string
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" {
			m.Data = strings.Join(data, "\n")
			if err := f(m); err != nil {
				return err
			}
			m, data = Message{ID: m.ID}, nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			if err := f(Message{}); err != nil {
				return err
			}
		case "id":
			m.ID = value
		case "event":
			m.Event = value
		case "data":
			data = append(data, value)
		}
	}
	return lines.Err()
}
