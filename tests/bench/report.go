package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"joist/tests/bench/figure"
)

// line is one figure.
type line = figure.Line

func round(v float64) float64 { return figure.Round(v) }

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
		p.line(line{Name: name, Value: round(ours), Unit: unit}.Against(peer, peers[peer]))
	}
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
