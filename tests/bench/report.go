package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// line is one figure.
type line struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Peer      string  `json:"peer"`       // empty if there is none
	PeerValue float64 `json:"peer_value"` // in the same unit
	Ratio     float64 `json:"ratio"`      // how many times better than the peer; 0 without a peer
}

// less says of which units less is better.
func less(unit string) bool { return unit == "s" || unit == "ms" || unit == "MiB" || unit == "KiB" }

// against adds a peer's figure.
func (l line) against(peer string, v float64) line {
	l.Peer, l.PeerValue = peer, round(v)
	switch {
	case l.Value <= 0 || v <= 0:
	case less(l.Unit):
		l.Ratio = round(v / l.Value)
	default:
		l.Ratio = round(l.Value / v)
	}
	return l
}

// printer prints lines as they come.
type printer struct{ kept io.Writer }

func (p *printer) line(l line) {
	l.Value = round(l.Value)
	data, err := json.Marshal(l)
	if err != nil {
		panic(err) // numbers and strings; infinities are a mistake of this program
	}
	fmt.Printf("%s\n", data)
	fmt.Fprintf(p.kept, "%s\n", data)
}

func (p *printer) value(name string, v float64, unit string) {
	p.line(line{Name: name, Value: v, Unit: unit})
}

// peers prints ours against each peer, or alone if there is none.
func (p *printer) peers(name, unit string, ours float64, peers map[string]float64) {
	if len(peers) == 0 {
		p.value(name, ours, unit)
	}
	names := make([]string, 0, len(peers))
	for peer := range peers {
		names = append(names, peer)
	}
	slices.Sort(names)
	for _, peer := range names {
		p.line(line{Name: name, Value: round(ours), Unit: unit}.against(peer, peers[peer]))
	}
}

// round keeps four digits.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// median of at least one figure.
func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}

func processors() string { return fmt.Sprintf("%d processors", runtime.NumCPU()) }
