// Package findings gives what the language has to say about sources the form that programs read.
package findings

import (
	"errors"

	v1 "joist/services/api/v1"
	"joist/workflows/lang/diag"
)

// Of lists the findings that an error is made of, those of joined errors one after the other; nil for an error that is about
// no source.
func Of(err error) []v1.Finding {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []v1.Finding
		for _, one := range joined.Unwrap() {
			all = append(all, Of(one)...)
		}
		return all
	}
	var found diag.Diagnostics
	if !errors.As(err, &found) {
		return nil
	}
	all := make([]v1.Finding, len(found))
	for i, d := range found {
		all[i] = v1.Finding{
			Severity: string(d.Severity), Message: d.Summary, Advice: d.Detail,
			File: d.File, Line: d.Line, Column: d.Column, EndLine: d.EndLine, EndColumn: d.EndCol, Source: d.Source,
		}
	}
	return all
}
