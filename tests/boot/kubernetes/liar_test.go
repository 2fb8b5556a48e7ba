package kubernetes_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joist/engine/agent"
	"joist/engine/agent/wire"
	"joist/tests/boot/lab"
)

// TestMain is the tests, or, within a lab's network, the liar that they start there.
func TestMain(m *testing.M) {
	if dir := os.Getenv("JOIST_TEST_LIAR"); dir != "" {
		if err := lie(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// lies is what a liar is to do with an identity that it has.
type lies struct {
	Post   []wire.Result              // results to post, as they are
	Answer map[string]json.RawMessage // outputs for the first request of this instance
	Of     string                     // the instance, as requests name it
}

// told is what the engine answered.
type told struct {
	Posted   []int // status by result
	Answered int
}

// lie posts results as the node whose identity is in dir, and answers one request with outputs of its own.
func lie(dir string) error {
	var l lies
	raw, err := os.ReadFile(filepath.Join(dir, "lies.json"))
	if err == nil {
		err = json.Unmarshal(raw, &l)
	}
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, agent.CertFile), filepath.Join(dir, agent.KeyFile))
	if err != nil {
		return err
	}
	var who agent.Profile
	if raw, err = os.ReadFile(filepath.Join(dir, agent.IdentityFile)); err == nil {
		err = json.Unmarshal(raw, &who)
	}
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	post := func(path string, body any) (*http.Response, error) {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, who.URLs[0]+path, bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		return client.Do(req)
	}
	var answer told
	for _, r := range l.Post {
		resp, err := post(wire.PathResult, r)
		if err != nil {
			return err
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Fprintf(os.Stderr, "%s: %d %s\n", r.ID, resp.StatusCode, text)
		answer.Posted = append(answer.Posted, resp.StatusCode)
	}
	if l.Of != "" {
		resp, err := post(wire.PathStream, wire.Hello{
			Version: wire.Version, Node: who.Node, Incarnation: who.Incarnation, Boot: who.Boot, Kernel: readKernel(dir), Stage: wire.Node, Agent: "liar",
		})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		for in := wire.NewReader(resp.Body); answer.Answered == 0; {
			down, err := in.Next()
			if err != nil {
				return fmt.Errorf("the stream: %w", err)
			}
			if down.Request == nil || down.Request.Instance != l.Of {
				continue
			}
			outputs, err := json.Marshal(l.Answer)
			if err != nil {
				return err
			}
			now := time.Now()
			said, err := post(wire.PathResult, wire.Result{
				ID: down.Request.ID, Instance: down.Request.Instance, Attempt: down.Request.Attempt, OK: true, Outputs: outputs, Started: now, Ended: now,
			})
			if err != nil {
				return err
			}
			said.Body.Close()
			answer.Answered = said.StatusCode
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// readKernel is the boot that the identity belongs to.
func readKernel(dir string) string {
	raw, _ := os.ReadFile(filepath.Join(dir, "kernel"))
	return strings.TrimSpace(string(raw))
}

// liar makes n3 lie: its agent is stopped, and somebody with its identity speaks in its place.
func (l *own) liar() {
	l.Helper()
	dir := l.TempDir()
	for _, file := range []string{agent.KeyFile, agent.CertFile, agent.IdentityFile} {
		l.write(filepath.Join(dir, file), l.on("n3", "cat /run/joist/"+file))
	}
	l.write(filepath.Join(dir, "kernel"), l.on("n3", "cat /proc/sys/kernel/random/boot_id"))
	mine, other := l.spooled("n3", "kube.kubelet"), l.spooled("n2", "kube.kubelet")

	// Results: another node's, its own under a number that was another's, its own with other outputs, its own once more.
	altered := l.spooled("n3", "kube.kubelet_serving_key")
	altered.Outputs = json.RawMessage(`{"path": "/etc/shadow", "csr": "none"}`)
	elsewhere := mine
	elsewhere.ID = strings.Replace(other.ID, "[n2]", "[n3]", 1)
	mark := l.Last("demo")
	said := l.lie(dir, lies{Post: []wire.Result{other, elsewhere, altered, mine}})
	if want := []int{http.StatusConflict, http.StatusConflict, http.StatusConflict, http.StatusConflict}; !slices.Equal(said.Posted, want) {
		l.Errorf("lies were answered %v, want %v: another's result, its own under another's number, its own altered, its own replayed", said.Posted, want)
	}
	for _, r := range []wire.Result{other, elsewhere, altered} {
		l.journalled("lie", r)
	}
	l.journalled("late", mine)
	if now := l.Last("demo"); now != mark {
		l.Errorf("lies changed the cluster's journal: %d events, then %d", mark, now)
	}
	l.Unchanged("demo")

	// It asks for the serving certificate of n2: with n2's request in place of its own.
	var theirs struct {
		Outputs map[string]json.RawMessage
	}
	l.JSON(&theirs, "show", "demo/kube.kubelet_serving_key[n2]")
	if len(theirs.Outputs["csr"]) < 100 {
		l.Fatalf("outputs of n2's key: %s", theirs.Outputs)
	}
	l.on("n3", "systemctl stop joist-agent")
	l.Must("force", "demo/kube.kubelet_serving_key[n3]", "--reason", "a test asks")
	said = l.lie(dir, lies{Of: "demo/kube.kubelet_serving_key[n3]", Answer: theirs.Outputs})
	if said.Answered != http.StatusNoContent {
		l.Errorf("the answer to a request was answered %d", said.Answered)
	}
	e := l.Await("the refusal of n2's key for n3", lab.Patience, func(e *lab.Event) bool {
		return e.Journal == "cluster/demo" && e.Seq > mark && e.Kind == "failed" && e.Final && e.Instance() == "kube.kubelet_serving[n3]"
	})
	if !strings.Contains(e.Error, "its key is that of n2") {
		l.Errorf("why it was refused: %s", e.Error)
	}
	l.Logf("refused: %s", e.Error)

	// The true agent heals it.
	l.on("n3", "systemctl start joist-agent")
	l.Must("force", "demo/kube.kubelet_serving_key[n3]", "--reason", "a test asks")
	l.Must("retry", "demo")
	l.Pursue("converged", "watch", "demo")
	l.Unchanged("demo")
	l.nodes("n2", "n3")
}

// journalled waits for the site's notice of a kind about a result's instance.
func (l *own) journalled(kind string, r wire.Result) {
	l.Helper()
	l.Await("the journal's word on what was said of "+r.Instance, time.Minute, func(e *lab.Event) bool {
		return e.Journal == "site" && e.Fact.Kind == kind && strings.Contains(e.Text, r.Instance)
	})
}

// spooled is a result that a node's agent has kept.
func (l *own) spooled(node, task string) wire.Result {
	l.Helper()
	instance := fmt.Sprintf("demo/%s[%s]", task, node)
	out := l.on(node, `cat /run/joist/spool/r-*`)
	for in := json.NewDecoder(strings.NewReader(out)); ; {
		var record struct {
			Instance string
			Result   *wire.Result
		}
		if err := in.Decode(&record); err != nil {
			l.Fatalf("the spool of %s has no result of %s: %v", node, instance, err)
		}
		if record.Instance == instance && record.Result != nil && record.Result.OK {
			return *record.Result
		}
	}
}

// lie starts the liar in the lab's network.
func (l *own) lie(dir string, what lies) told {
	l.Helper()
	raw, err := json.Marshal(what)
	if err != nil {
		l.Fatal(err)
	}
	l.write(filepath.Join(dir, "lies.json"), string(raw))
	program, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	out := l.MustInside("env", "JOIST_TEST_LIAR="+dir, program)
	var said told
	if i := strings.Index(out, `{"Posted`); i < 0 || json.Unmarshal([]byte(out[i:]), &said) != nil {
		l.Fatalf("the liar: %s", out)
	}
	l.Logf("the engine told the liar: %s", out)
	return said
}

func (l *own) write(path, text string) {
	l.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.Fatal(err)
	}
}
