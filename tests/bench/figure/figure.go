// Package figure is what measurements print: one JSON line for each figure, and the figures of a cluster's bring-up, computed
// from its journal. It measures nothing itself.
package figure

import "math"

// Line is one figure.
type Line struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Peer      string  `json:"peer"`       // empty if there is none
	PeerValue float64 `json:"peer_value"` // in the same unit
	Ratio     float64 `json:"ratio"`      // how many times better than the peer; 0 without a peer
}

// less says of which units less is better.
func less(unit string) bool { return unit == "s" || unit == "ms" || unit == "MiB" || unit == "KiB" }

// Against adds a peer's figure.
func (l Line) Against(peer string, v float64) Line {
	l.Peer, l.PeerValue = peer, Round(v)
	switch {
	case l.Value <= 0 || v <= 0:
	case less(l.Unit):
		l.Ratio = Round(v / l.Value)
	default:
		l.Ratio = Round(l.Value / v)
	}
	return l
}

// Round keeps four digits.
func Round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
