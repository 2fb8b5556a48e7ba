package secrets

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"

	"joist/engine/step"
)

const callDraw = "secrets.draw"

// maxDraw bounds a drawn secret, in bytes before its encoding.
const maxDraw = 1024

// Signatures describes the calls of this service.
func Signatures() []step.Signature {
	return []step.Signature{{Call: callDraw, Inputs: map[string]string{"bytes": "number"}, Outputs: map[string]string{"value": "secret(string)"}}}
}

// Handlers are the service's calls by name. secrets.draw yields random bytes in base64, others each time: the step that
// calls it is `once`. Nothing is kept here; whoever takes in a result seals its secrets.
func Handlers(random io.Reader) map[string]step.Handler {
	return map[string]step.Handler{callDraw: step.HandlerFunc(func(_ context.Context, call step.Call) (step.Result, error) {
		if call.Action != step.Apply {
			return step.Result{}, nil
		}
		var in struct {
			Bytes int `json:"bytes"`
		}
		if err := json.Unmarshal(call.Inputs, &in); err != nil {
			return step.Result{}, fmt.Errorf("cannot draw a secret: its inputs do not fit: %w", err)
		}
		if in.Bytes < 16 || in.Bytes > maxDraw {
			return step.Result{}, fmt.Errorf("cannot draw a secret of %d bytes: want 16 to %d", in.Bytes, maxDraw)
		}
		secret := make([]byte, in.Bytes)
		if _, err := io.ReadFull(random, secret); err != nil {
			return step.Result{}, fmt.Errorf("cannot draw a secret: %w", err)
		}
		out, err := json.Marshal(map[string]string{"value": base64.StdEncoding.EncodeToString(secret)})
		return step.Result{Outputs: out}, err
	})}
}
