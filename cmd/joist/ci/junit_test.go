package ci

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"
)

func TestJUnit(t *testing.T) {
	r := &Report{Cluster: "demo", Begun: time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC), Seconds: 12.5, Cases: []Case{
		{Class: "key", Name: "key[n1]", Seconds: 1.25, Result: Passed},
		{Class: "member", Name: "member[n1]", Result: Failed, Message: `say "<no>" & more`, Text: clean("log \x1b[31m\x00 -----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY----- end\n-----BEGIN PRIVATE KEY-----\ncut off")},
		{Class: "voter", Name: "voter[n1]", Result: Skipped, Message: "blocked"},
	}}
	data, err := JUnit(r)
	if err != nil {
		t.Fatal(err)
	}
	var back junitSuites
	if err := xml.Unmarshal(data, &back); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	s := back.Suites[0]
	switch {
	case back.Tests != 3 || back.Failures != 1 || back.Skipped != 1 || s.Time != "12.500" || s.Timestamp != "2026-11-21T02:00:00Z":
		t.Errorf("%+v", back)
	case s.Cases[0].Class != "demo.key" || s.Cases[0].Time != "1.250" || s.Cases[0].Failure != nil:
		t.Errorf("%+v", s.Cases[0])
	case s.Cases[1].Failure.Message != `say "<no>" & more` || strings.ContainsAny(s.Cases[1].Failure.Text, "\x1b\x00"):
		t.Errorf("%+v", s.Cases[1].Failure)
	case strings.Contains(string(data), "abc") || strings.Contains(string(data), "cut off"):
		t.Errorf("a private key is in the report:\n%s", data)
	}
}
