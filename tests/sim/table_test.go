package sim_test

import (
	"os"
	"strings"
	"testing"
)

// TestTable holds the table for authors to the mistakes that are planted.
func TestTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/authors.md")
	if err != nil {
		t.Fatal(err)
	}
	want := "| property | mutation |\n| --- | --- |\n"
	for _, p := range properties() {
		want += "| " + p.law + " | " + p.does + " |\n"
	}
	if _, rest, _ := strings.Cut(string(page), "| property | mutation |\n"); !strings.HasPrefix("| property | mutation |\n"+rest+"\n", want+"\n") {
		t.Errorf("docs/authors.md has another table of planted mistakes; it is:\n%s", want)
	}
}
