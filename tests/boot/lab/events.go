package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Event is what a test looks at in an event of a journal.
type Event struct {
	Journal string
	Seq     uint64
	Time    time.Time
	Kind    string `json:"kind"` // of the event, not what its data call so
	Fact
}

// Fact is what a test looks at in an event's data.
type Fact struct {
	Task        string `json:"task"`
	Node        string `json:"node"`
	Action      string `json:"action"`
	Attempt     int    `json:"attempt"`
	Final       bool   `json:"final"`
	Error       string `json:"error"`
	Incarnation string `json:"incarnation"`
	Online      bool   `json:"online"`
	Outcome     string `json:"outcome"`
	Why         string `json:"why"`
	Kind        string `json:"kind"` // of an enrolment, or of a notice
	Machine     string `json:"machine"`
	Text        string `json:"text"`
	Silent      *struct {
		Incarnation string `json:"incarnation"`
	} `json:"silent"`
}

// Instance is what the event is about, as joist writes it, without the cluster.
func (e *Event) Instance() string {
	if e.Node == "" {
		return e.Task
	}
	return e.Task + "[" + e.Node + "]"
}

// listen takes in every event, through restarts of the engine, until ctx ends.
func (l *Lab) listen(ctx context.Context) {
	after := ""
	for ctx.Err() == nil {
		args := []string{"events", "--follow", "-o", "json"}
		if after != "" {
			args = append(args, "--after", after)
		}
		cmd := exec.CommandContext(ctx, l.Joist, args...)
		cmd.Env = append(os.Environ(), "JOIST_SOCKET="+l.Socket)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var e struct {
				Event
				Cursor string
				Data   json.RawMessage
			}
			if json.Unmarshal(lines.Bytes(), &e) != nil || json.Unmarshal(e.Data, &e.Fact) != nil {
				continue
			}
			after = e.Cursor
			l.mu.Lock()
			l.events = append(l.events, e.Event)
			close(l.news)
			l.news = make(chan struct{})
			l.mu.Unlock()
		}
		_ = cmd.Wait()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond): // the engine is down
		}
	}
}

// Each shows every event so far to f.
func (l *Lab) Each(f func(*Event)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.events {
		f(&l.events[i])
	}
}

// Await waits for an event that has happened or will.
func (l *Lab) Await(what string, limit time.Duration, is func(*Event) bool) Event {
	l.Helper()
	deadline := time.After(limit)
	for next := 0; ; {
		l.mu.Lock()
		for ; next < len(l.events); next++ {
			if is(&l.events[next]) {
				e := l.events[next]
				l.mu.Unlock()
				return e
			}
		}
		news := l.news
		l.mu.Unlock()
		select {
		case <-news:
		case <-deadline:
			l.Fatalf("%s has not happened within %s", what, limit)
		}
	}
}

// Is tells the events of a kind about a task.
func Is(cluster, kind, task string) func(*Event) bool {
	return func(e *Event) bool { return e.Journal == "cluster/"+cluster && e.Kind == kind && e.Task == task }
}

// Starts counts the starts of a cluster's actions after an event, by instance, removals with a minus before it.
func (l *Lab) Starts(cluster string, after uint64) map[string]int {
	count := map[string]int{}
	l.Each(func(e *Event) {
		if e.Journal != "cluster/"+cluster || e.Seq <= after || e.Kind != "started" {
			return
		}
		if e.Action == "remove" {
			count["-"+e.Instance()]++
		} else {
			count[e.Instance()]++
		}
	})
	return count
}

// Last is the newest event of a cluster that the engine has; the listener has it too when Last returns.
func (l *Lab) Last(cluster string) uint64 {
	l.Helper()
	var c struct{ Events uint64 }
	l.JSON(&c, "status", cluster)
	l.Await(fmt.Sprintf("event %d of %s", c.Events, cluster), 30*time.Second, func(e *Event) bool {
		return e.Journal == "cluster/"+cluster && e.Seq >= c.Events
	})
	return c.Events
}
