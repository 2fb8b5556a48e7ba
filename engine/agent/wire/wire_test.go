package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

func valid() Request {
	return Request{
		ID: "c/a@d/apply/1", Cluster: "c", Instance: "c/a", Attempt: 1, Epoch: 1, Action: Apply, Step: "d", Script: []byte("true"),
		Files: []File{{Name: "lib/x.sh", Data: []byte("x")}}, Inputs: json.RawMessage(`{"a":1}`), Timeout: time.Minute,
	}
}

func TestValidate(t *testing.T) {
	good := valid()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	file := func(name string) func(*Request) { return func(r *Request) { r.Files[0].Name = name } }
	needed := Artifact{Name: "kubelet", Digest: "sha256:" + strings.Repeat("ab", 32), Size: 1, URLs: []string{"http://engine"}}
	needs := func(spoil func(*Artifact)) func(*Request) {
		return func(r *Request) { a := needed; spoil(&a); r.Artifacts = []Artifact{a} }
	}
	good.Artifacts = []Artifact{needed}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoils := range map[string][]func(*Request){
		"id is empty":           {func(r *Request) { r.ID = "" }, func(r *Request) { r.ID = strings.Repeat("x", MaxID+1) }},
		"instance is empty":     {func(r *Request) { r.Instance = "" }},
		"unknown action":        {func(r *Request) { r.Action = "destroy" }, func(r *Request) { r.Action = "" }},
		"unknown stage":         {func(r *Request) { r.Stage = "moon" }},
		"either a script":       {func(r *Request) { r.Script = nil }, func(r *Request) { r.Builtin = "key" }},
		"time-out or grace":     {func(r *Request) { r.Timeout = -1 }, func(r *Request) { r.Grace = MaxTimeout + 1 }},
		"not a JSON object":     {func(r *Request) { r.Inputs = json.RawMessage(`[]`) }, func(r *Request) { r.Inputs = json.RawMessage(`null`) }, func(r *Request) { r.Inputs = json.RawMessage(`{`) }},
		"inputs are larger":     {func(r *Request) { r.Inputs = make(json.RawMessage, MaxInputs+1) }},
		"clean relative path":   {file(""), file("/etc/passwd"), file("../x"), file(".."), file("."), file("a/../b"), file("a//b"), file("a\x00b"), file("x/")},
		"reserved for":          {file("inputs.json"), file("step"), file("outputs.json/x"), file("artifacts/x")},
		"its verify":            {func(r *Request) { r.Verify = &Check{} }, func(r *Request) { r.Verify = &Check{Script: []byte("x"), Files: []File{{Name: "../x"}}} }, func(r *Request) { r.Verify = &Check{Script: []byte("x"), Timeout: -1} }},
		"it verifies, and asks": {func(r *Request) { r.Action, r.Verify = Remove, &Check{Builtin: "key"} }},
		"two files named":       {func(r *Request) { r.Files = append(r.Files, r.Files[0]) }},
		"more than 64 files":    {func(r *Request) { r.Files = make([]File, MaxFiles+1) }},
		"files are larger than": {func(r *Request) { r.Verify = &Check{Script: make([]byte, MaxBody)} }},
		"not a file name":       {needs(func(a *Artifact) { a.Name = "a/b" }), needs(func(a *Artifact) { a.Name = ".." }), needs(func(a *Artifact) { a.Name = "" })},
		"is not a SHA-256":      {needs(func(a *Artifact) { a.Digest = a.Digest[7:] }), needs(func(a *Artifact) { a.Digest = "sha256:" + strings.Repeat("AB", 32) }), needs(func(a *Artifact) { a.Digest += "00" })},
		"no size or no":         {needs(func(a *Artifact) { a.Size = 0 }), needs(func(a *Artifact) { a.URLs = nil })},
		"two artifacts named":   {func(r *Request) { r.Artifacts = []Artifact{needed, needed} }},
		"more than 64 arti":     {func(r *Request) { r.Artifacts = make([]Artifact, MaxFiles+1) }},
		"scripts and files are": {func(r *Request) { r.Files[0].Data = make([]byte, MaxBody) }},
	} {
		for i, spoil := range spoils {
			r := valid()
			spoil(&r)
			if err := r.Validate(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s (%d): error %v", want, i, err)
			}
		}
	}
}

func TestLargestRequestFits(t *testing.T) {
	r := valid()
	r.Script = make([]byte, MaxBody-1)
	r.Inputs = json.RawMessage(`{"a":"` + strings.Repeat("x", MaxInputs-8) + `"}`)
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(Down{Request: &r})
	if err != nil || len(line) >= MaxMessage {
		t.Fatalf("%v, %d bytes", err, len(line))
	}
	got, err := NewReader(bytes.NewReader(append(line, '\n'))).Next()
	if err != nil || !reflect.DeepEqual(*got.Request, r) {
		t.Errorf("error %v, or another request", err)
	}
}

func TestReader(t *testing.T) {
	in := NewReader(strings.NewReader(`{"cancel":{"id":"x"}}` + "\n\n" + `{"probe":"p","of a later version":{"a":[1]}}` + "\n" + `{"target":{"kind":"idle"}}`))
	if d, err := in.Next(); err != nil || d.Cancel.ID != "x" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := in.Next(); err != nil || d != (Down{}) {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := in.Next(); err != nil || d.Probe != "p" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := in.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a line was taken for a message: %+v, %v", d, err)
	}
	if _, err := in.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
	for _, line := range []string{"{", `{"cancel":{}}`, `{"cancel":{"id":"x"},"target":{}}`, `[]`, strings.Repeat(" ", MaxMessage+1)} {
		if d, err := NewReader(strings.NewReader(line + "\n")).Next(); err == nil {
			t.Errorf("%.40q is %+v", line, d)
		}
	}
}

func TestDecodeResult(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"id":"x","ok":true}`:                   true,
		`{"id":"x","ok":true,"outputs":{"a":1}}`: true,
		`{"id":"x","reason":"failed"}`:           true,
		`{"id":"x","reason":"failed","more":1}`:  true,
		`{"ok":true}`:                            false,
		`{"id":"x"}`:                             false,
		`{"id":"x","ok":true,"reason":"failed"}`: false,
		`{"id":"x","ok":true,"outputs":[1]}`:     false,
		`{"id":"x","ok":true,"tail":"` + strings.Repeat("x", MaxTail+1) + `"}`:           false,
		`{"id":"` + strings.Repeat("x", MaxID+1) + `","ok":true}`:                        false,
		`{"id":"x","ok":true,"outputs":{"a":"` + strings.Repeat("x", MaxOutputs) + `"}}`: false,
	} {
		if r, err := DecodeResult([]byte(body)); (err == nil) != ok {
			t.Errorf("%.60s is %+v, %v", body, r, err)
		}
	}
}

// Whatever an engine sends, reading it ends, and a message that was read says at most one thing.
func FuzzReader(f *testing.F) {
	r := valid()
	line, err := json.Marshal(Down{Request: &r, Probe: "p"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(line, '\n'))
	f.Add([]byte("\n\n{\"cancel\":{\"id\":\"x\",\"epoch\":18446744073709551615}}\n"))
	f.Add([]byte("{\"target\":{\"kind\":\"image\",\"image\":{\"url\":\"http://x/\",\"size\":-1}}}\n{"))
	f.Add([]byte("{\"request\":{\"files\":[{\"name\":\"../../etc/passwd\",\"mode\":4294967295}]}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := NewReader(bytes.NewReader(data))
		for {
			d, err := in.Next()
			if err != nil {
				return
			}
			if d.Request != nil && (d.Cancel != nil || d.Target != nil) {
				t.Fatal("two things at once")
			}
			if d.Request == nil || d.Request.Validate() != nil {
				continue
			}
			for _, file := range d.Request.Files {
				if strings.HasPrefix(file.Name, "/") || strings.HasPrefix(file.Name, "..") && !strings.HasPrefix(file.Name, "...") && file.Name[2:3] == "/" {
					t.Fatalf("the file name %q is valid", file.Name)
				}
			}
			again, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeDown(again); err != nil {
				t.Fatalf("what was read cannot be read again: %v", err)
			}
		}
	})
}

// Whatever an agent sends as its result, what was accepted keeps its limits.
func FuzzDecodeResult(f *testing.F) {
	f.Add([]byte(`{"id":"x","ok":true,"outputs":{"a":[1,{"b":null}]},"valid_until":"2030-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"id":"x","reason":"failed","error":"no","exit_code":-1,"log_bytes":9223372036854775807}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeResult(data)
		if err != nil {
			return
		}
		if r.ID == "" || r.OK != (r.Reason == "") || len(r.Tail) > MaxTail {
			t.Fatalf("accepted %+v", r)
		}
	})
}
