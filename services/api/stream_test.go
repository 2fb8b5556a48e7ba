package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// collect streams until n events came.
func collect(t *testing.T, c *client.Client, f client.Filter, n int) []v1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []v1.Event
	enough := fmt.Errorf("enough")
	err := c.Stream(ctx, f, 0, func(e v1.Event) error {
		got = append(got, e)
		if len(got) == n {
			return enough
		}
		return nil
	})
	if err != enough { //nolint:errorlint // the very error
		t.Fatalf("the stream ended with %v after %d events", err, len(got))
	}
	return got
}

func places(events []v1.Event) map[string]int {
	seen := map[string]int{}
	for _, e := range events {
		seen[fmt.Sprintf("%s:%d", e.Journal, e.Seq)]++
	}
	return seen
}

// TestStreamResumes has a reader come back with the last id it saw: nothing is missed, nothing comes twice.
func TestStreamResumes(t *testing.T) {
	f := newFake()
	_, path := serve(t, newServer(t, f))
	c := client.New(path)
	defer c.Close()
	all := collect(t, c, client.Filter{}, 1)
	f.happen("site", "cluster/demo", "cluster/new")
	for len(all) < 5 {
		all = append(all, collect(t, c, client.Filter{After: all[len(all)-1].Cursor}, 1)...)
	}
	seen := places(all)
	for _, want := range []string{"site:1", "site:2", "cluster/demo:1", "cluster/demo:2", "cluster/new:1"} {
		if seen[want] != 1 {
			t.Errorf("%s came %d times", want, seen[want])
		}
	}
	last := all[len(all)-1].Cursor
	if last != "cluster/demo:2,cluster/new:1,site:2" {
		t.Errorf("the last cursor is %s", last)
	}
	// The same through the header that browsers send.
	go func() { f.happen("site") }()
	h, _ := serve(t, newServer(t, f))
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://joist/v1/events?journal=all&after=site:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", last)
	resp, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	found := fmt.Errorf("found")
	if err := client.ReadStream(resp.Body, func(m client.Message) error {
		if m.Data == "" {
			return nil
		}
		if m.ID != "cluster/demo:2,cluster/new:1,site:3" || m.Event != "x" {
			t.Errorf("the first message has id %s, event %s", m.ID, m.Event)
		}
		return found
	}); err != found { //nolint:errorlint // the very error
		t.Error(err)
	}
}

// TestStreamFindsNewJournals follows everything while a cluster is made.
func TestStreamFindsNewJournals(t *testing.T) {
	f := newFake()
	_, path := serve(t, newServer(t, f))
	c := client.New(path)
	defer c.Close()
	go func() {
		time.Sleep(30 * time.Millisecond)
		f.happen("cluster/late")
	}()
	if seen := places(collect(t, c, client.Filter{}, 3)); seen["cluster/late:1"] != 1 {
		t.Errorf("got %v", seen)
	}
}

// TestStreamBeats has a quiet stream say that it is alive.
func TestStreamBeats(t *testing.T) {
	h, _ := serve(t, newServer(t, newFake()))
	resp, err := h.Get("http://joist/v1/events?journal=site&after=now&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 4096)
	text := ""
	for !strings.Contains(text, "\n: ") {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatal(err, text)
		}
		text += string(buf[:n])
	}
}

// TestFollowGivesUp has an engine go away for good.
func TestFollowGivesUp(t *testing.T) {
	c := client.New("/no/such/socket")
	lost := 0
	err := c.Follow(t.Context(), client.Following{Patience: 50 * time.Millisecond, Pause: 10 * time.Millisecond, Lost: func(error) { lost++ }}, func(v1.Event) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "cannot reach the engine at /no/such/socket") || lost != 1 {
		t.Errorf("%v, told %d times", err, lost)
	}
}
