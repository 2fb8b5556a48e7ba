package simulate

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/step"
	"joist/engine/value"
)

// Answers says what steps yield where nobody declared a fake: what was recorded of a real run, else values of the declared
// types that follow from the instance and its inputs.
type Answers struct {
	// Recorded are the outputs of a real run, by instance; may be nil.
	Recorded map[history.Target]json.RawMessage

	byTask map[string]json.RawMessage
	csr    string
	cert   value.Value
}

// NewAnswers makes them. The certificate and the request that every step of those types yields are the same each time.
func NewAnswers(recorded map[history.Target]json.RawMessage) (*Answers, error) {
	a := &Answers{Recorded: recorded, byTask: map[string]json.RawMessage{}}
	for _, t := range slices.SortedFunc(maps.Keys(recorded), func(x, y history.Target) int { return strings.Compare(x.String(), y.String()) }) {
		if a.byTask[t.Task] == nil {
			a.byTask[t.Task] = recorded[t]
		}
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // everybody's: nothing is secured by it
	name := pkix.Name{CommonName: "simulated"}
	request, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: name}, key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a simulated certificate request: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	leaf, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a simulated certificate: %w", err)
	}
	a.csr = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
	text := value.Text(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})))
	a.cert = value.Dict(map[string]value.Value{"leaf": text, "chain": value.Text(""), "root": text})
	return a, nil
}

// ReadRecorded reads events as joist events -o json writes them, and gives the outputs of each instance's last success.
func ReadRecorded(data []byte) (map[history.Target]json.RawMessage, error) {
	out := map[history.Target]json.RawMessage{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 32<<20)
	for n := 1; lines.Scan(); n++ {
		var e struct {
			Kind string `json:"kind"`
			Data struct {
				history.Target
				Action  step.Action     `json:"action"`
				Outputs json.RawMessage `json:"outputs"`
			} `json:"data"`
		}
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var kind struct {
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(lines.Bytes(), &kind); err != nil {
			return nil, fmt.Errorf("cannot read recorded events: line %d: %w; record them with joist events -o json", n, err)
		}
		if kind.Kind != "succeeded" {
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("cannot read recorded events: line %d: %w", n, err)
		}
		if e.Data.Action == step.Apply && len(e.Data.Outputs) > 0 {
			out[e.Data.Target] = e.Data.Outputs
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read recorded events: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("cannot use the recorded events: nothing in them succeeded")
	}
	return out, nil
}

// Answer gives the outputs of an apply of a step.
func (a *Answers) Answer(s *model.Step, ask Ask) (json.RawMessage, error) {
	if out := a.Recorded[ask.Target]; out != nil {
		return out, nil
	}
	if out := a.byTask[ask.Task]; out != nil {
		return out, nil
	}
	out := map[string]value.Value{}
	for _, f := range s.Outputs {
		out[f.Name] = a.Field(f, ask)
	}
	return value.Dict(out).MarshalJSON()
}

// Field gives the value of one output: the input of its name, where that fits, else one of its type.
func (a *Answers) Field(f model.Field, ask Ask) value.Value {
	if in, ok := ask.Inputs[f.Name]; ok && !in.Null() && in.Known() {
		if v, err := f.Type.Check(in); err == nil {
			return v
		}
	}
	v := a.make(f.Type, f.Name, ask)
	if checked, err := f.Type.Check(v); err == nil {
		return checked
	}
	return v
}

func text(ask Ask, name string) (string, bool) {
	v, ok := ask.Inputs[name]
	if !ok || v.Null() || !v.Known() {
		return "", false
	}
	v, err := value.Type{Kind: value.String}.Check(v)
	if err != nil {
		return "", false
	}
	return v.Cty().AsString(), true
}

func (a *Answers) make(t value.Type, name string, ask Ask) value.Value {
	host := strings.ToLower(strings.ReplaceAll(ask.Task, ".", "-"))
	if ask.Node != "" {
		host = strings.ToLower(ask.Node) + "." + host
	}
	host += ".sim.lab"
	if given, ok := text(ask, "name"); ok && value.ValidFQDN(given) {
		host = given
	}
	switch t.Kind {
	case value.Bool:
		return value.Truth(true)
	case value.Number:
		return value.Int(1)
	case value.String:
		return value.Text(name + " of " + ask.Target.String())
	case value.Address:
		return value.Text("192.0.2.1")
	case value.CIDR:
		return value.Text("192.0.2.0/24")
	case value.FQDN:
		return value.Text(host)
	case value.URL:
		if port, ok := text(ask, "port"); ok {
			host += ":" + port
		}
		return value.Text("https://" + host)
	case value.Duration:
		return value.Text("1h")
	case value.DigestKind:
		return value.Text("sha256:" + value.Sum([]byte(ask.Target.String()+name)).String())
	case value.CSR:
		return value.Text(a.csr)
	case value.Path:
		return value.Text("/run/joist/" + host + "/" + name)
	case value.Certificate:
		return a.cert
	case value.Secret:
		return value.Text(value.HandleOf(value.Sum([]byte(ask.Target.String() + name))).String())
	case value.Map:
		return value.Dict(map[string]value.Value{})
	case value.Object:
		attrs := map[string]value.Value{}
		for _, key := range slices.Sorted(maps.Keys(t.Attrs)) {
			attrs[key] = a.make(t.Attrs[key].Type, key, ask)
		}
		return value.Dict(attrs)
	case value.List, value.Set:
		v, err := t.Parse([]byte("[]"))
		if err == nil {
			return v
		}
	}
	return value.Dict(map[string]value.Value{})
}
