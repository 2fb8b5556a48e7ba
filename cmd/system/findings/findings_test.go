package findings_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"joist/cmd/system/findings"
	"joist/workflows/lang/diag"
)

// TestForm: a finding has the form in which the language's own remarks are written, whatever wraps them.
func TestForm(t *testing.T) {
	ds := diag.Diagnostics{
		{Severity: diag.Error, Summary: "wrong", Detail: "Do this.", File: "a.hcl", Line: 2, Column: 3, EndLine: 2, EndCol: 5, Source: "\tx = 1"},
		{Severity: diag.Warning, Summary: "odd"},
	}
	want, err := json.Marshal(ds)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{ds, fmt.Errorf("cannot read: %w", ds), errors.Join(errors.New("other"), ds[:1], fmt.Errorf("more: %w", errors.Join(ds[1:])))} {
		got, jsonErr := json.Marshal(findings.Of(err))
		if jsonErr != nil || string(got) != string(want) {
			t.Errorf("%v: got %s, want %s", jsonErr, got, want)
		}
	}
	if got := findings.Of(errors.New("the disk is full")); got != nil {
		t.Errorf("got %v of an error about no source", got)
	}
}
