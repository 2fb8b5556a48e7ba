package secrets

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"joist/engine/step"
)

func TestDraw(t *testing.T) {
	draw := Handlers(strings.NewReader(strings.Repeat("x", 32)))[callDraw]
	r, err := draw.Call(t.Context(), step.Call{Action: step.Apply, Inputs: json.RawMessage(`{"bytes":32}`)})
	if want := `{"value":"eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg="}`; err != nil || string(r.Outputs) != want {
		t.Errorf("%s, %v; want %s", r.Outputs, err, want)
	}
	for _, in := range []string{`{"bytes":15}`, `{"bytes":1025}`, `{}`, `[]`, `{"bytes":32}`} { // the last: randomness has ended
		if r, err := draw.Call(t.Context(), step.Call{Action: step.Apply, Inputs: json.RawMessage(in)}); err == nil {
			t.Errorf("%s gave %s", in, bytes.TrimSpace(r.Outputs))
		}
	}
	if _, err := draw.Call(t.Context(), step.Call{Action: step.Remove}); err != nil {
		t.Errorf("a secret that is not wanted any more: %v", err)
	}
}
