package ci

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"joist/workflows/lang/diag"
)

// Case is one thing that was tried: an instance of the cluster, a check, or a part of the run itself.
type Case struct {
	Class   string  `json:"class"` // the task, or "run"
	Name    string  `json:"name"`  // task[node], or what part of the run
	Seconds float64 `json:"seconds"`
	Result  Result  `json:"result"`
	Message string  `json:"message,omitempty"` // why it failed or was not done, in a line
	Text    string  `json:"text,omitempty"`    // the end of its log, if it failed
}

// Result is what became of a case.
type Result string

// The results.
const (
	Passed  Result = "passed"
	Failed  Result = "failed"
	Skipped Result = "skipped" // it was not done
)

// The form that JUnit's Ant task writes, as CI systems read it (https://github.com/testmoapp/junitxml).
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Errors    int         `xml:"errors,attr"`
		Skipped   int         `xml:"skipped,attr"`
		Time      string      `xml:"time,attr"`
		Timestamp string      `xml:"timestamp,attr"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure,omitempty"`
		Skipped *junitMessage `xml:"skipped,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// privateKey is what no report has, whatever a program wrote into its log. Secrets proper are taken out where they are known,
// on the nodes.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)

// clean makes text of a node fit for reports.
func clean(text string) string {
	return diag.Visible(privateKey.ReplaceAllString(text, "(private key)"))
}

// JUnit writes a report in JUnit's form.
func JUnit(r *Report) ([]byte, error) {
	seconds := func(s float64) string { return fmt.Sprintf("%.3f", s) }
	suite := junitSuite{Name: r.Cluster, Time: seconds(r.Seconds), Timestamp: r.Begun.UTC().Format(time.RFC3339), Cases: []junitCase{}}
	for _, c := range r.Cases {
		one := junitCase{Class: r.Cluster + "." + c.Class, Name: c.Name, Time: seconds(c.Seconds)}
		switch c.Result {
		case Failed:
			one.Failure = &junitMessage{c.Message, c.Text}
			suite.Failures++
		case Skipped:
			one.Skipped = &junitMessage{Message: c.Message}
			suite.Skipped++
		}
		suite.Cases = append(suite.Cases, one)
	}
	suite.Tests = len(suite.Cases)
	data, err := xml.MarshalIndent(junitSuites{
		Name: "joist", Tests: suite.Tests, Failures: suite.Failures, Skipped: suite.Skipped, Time: suite.Time, Suites: []junitSuite{suite},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot write the report: %w", err)
	}
	return []byte(xml.Header + string(data) + "\n"), nil
}

// write puts a file in its place whole.
func write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".junit-*")
	if err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	defer os.Remove(f.Name()) // of no effect once it has its name
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

// first gives a text's first line.
func first(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
