package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"joist/engine/addr"
	v1 "joist/services/api/v1"
)

// decode reads one JSON object into into. Unknown fields, a second value and anything that is not an object are refused.
func decode(data []byte, into any) error {
	malformed := func(err error) error {
		return Fail(v1.Malformed, fmt.Errorf("cannot read the request's JSON: %w", err), "send one JSON object with the documented fields only")
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return malformed(errors.New("it is not an object"))
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return malformed(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return malformed(errors.New("something follows the object"))
	}
	return nil
}

// read reads a request's body, at most limit bytes, into into.
func read(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	if media := r.Header.Get("Content-Type"); media != "" {
		if t, _, err := mime.ParseMediaType(media); err != nil || t != "application/json" {
			return Fail(v1.Malformed, fmt.Errorf("cannot read a body of type %.80q", media), "send application/json")
		}
	}
	var data bytes.Buffer
	if r.ContentLength > 0 { // at once: growing with what comes would take several times the memory
		data.Grow(int(min(r.ContentLength, limit)) + bytes.MinRead)
	}
	if _, err := data.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return Fail(v1.Malformed, fmt.Errorf("cannot read the request: %w", err), "send it again")
	}
	return decode(data.Bytes(), into)
}

// digestForm is how the digest of an artifact is written in an address.
var digestForm = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// maxInstance bounds an instance's path, in bytes.
const maxInstance = 600

func checkName(what, name string) error {
	if v1.IsName(name) {
		return nil
	}
	return Fail(v1.Malformed, fmt.Errorf("%.80q cannot be the name of a %s", name, what), "names have lower-case letters, digits and hyphens")
}

// checkInstance accepts what addr.Path writes and, for who copies a whole address, cluster/task[node] of the same cluster.
func checkInstance(cluster, text string) (string, error) {
	text = strings.TrimPrefix(text, cluster+"/")
	if _, _, ok := addr.ParsePath(text); !ok || len(text) > maxInstance {
		return "", Fail(v1.Malformed, fmt.Errorf("%.120q is no instance", text), `write task[node], or task for a single one, and for one item of several task[node][item] or task["item"]`)
	}
	return text, nil
}
