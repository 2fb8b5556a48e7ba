package history

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"joist/engine/value"
)

// largest is the size in bytes from which an input is kept in the journal by its digest.
const largest = 1024

// Small gives the form in which an input's JSON is kept in the journal: itself, or its digest if it is large.
func Small(data []byte) json.RawMessage {
	if len(data) < largest {
		return data
	}
	return json.RawMessage(fmt.Sprintf(`{"$large":"%x"}`, sha256.Sum256(data)))
}

// Large reports the digest that stands for a large input, if data is one.
func Large(data []byte) (value.Digest, bool) {
	var ref struct {
		Large *value.Digest `json:"$large"`
	}
	if len(data) > 128 || json.Unmarshal(data, &ref) != nil || ref.Large == nil {
		return value.Digest{}, false
	}
	return *ref.Large, true
}
