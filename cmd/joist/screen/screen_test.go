package screen

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"joist/cmd/joist/progress"
	v1 "joist/services/api/v1"
)

// TestPicture draws a cluster as the live view does, without colours.
func TestPicture(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 1, 30, 0, time.UTC)
	tr := progress.New("demo", 3, []string{"n1", "n2"})
	event := func(seq uint64, at time.Duration, kind, data string) {
		tr.Take(v1.Event{Journal: "cluster/demo", Seq: seq, Time: now.Add(-at), Kind: kind, Data: json.RawMessage(data)})
	}
	event(3, 90*time.Second, "goal", `{"by":"me","roles":{"member":["n1","n2"]}}`)
	event(4, 12*time.Second, "started", `{"task":"member","node":"n1","attempt":2}`)
	l := &live{t: tr, detail: &v1.ClusterDetail{
		Cluster: v1.Cluster{Name: "demo", Outcome: "converging", States: map[string]int{"in place": 3, "running": 1, "waiting": 2}},
		Members: []v1.Member{
			{Name: "n1", Online: true, States: map[string]int{"in place": 3, "running": 1, "absent": 4}},
			{Name: "n2", Boot: "kernel fetched 3 s ago", States: map[string]int{"waiting": 2}},
		},
		Running: []v1.Item{{Instance: "member[n1]", Task: "member", Node: "n1", Attempt: 2}},
	}}
	want := `cluster demo  converging  1:30  1 running, 2 waiting, 3 in place
  n1    3/4 in place  member (attempt 2) 12 s
  n2    0/2 in place  kernel fetched 3 s ago`
	if got := strings.Join(l.picture(now, 40), "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for i := range 100 {
		l.detail.Members = append(l.detail.Members, v1.Member{Name: fmt.Sprintf("m%d", i)})
	}
	l.detail.Members[101].States = map[string]int{"failed": 1}
	lines := l.picture(now, 24)
	if len(lines) > 20 || !strings.Contains(strings.Join(lines[:3], "\n"), "m99") || !strings.Contains(lines[len(lines)-1], "and 90 more nodes") {
		t.Errorf("102 nodes in 24 lines:\n%s", strings.Join(lines, "\n"))
	}
}
