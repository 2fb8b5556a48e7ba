package lang_test

import (
	"strings"
	"testing"
	"time"

	"joist/engine/model"
	"joist/workflows/lang"
)

// TestDrift reads what a cluster file says of drift, and what it means where it says nothing.
func TestDrift(t *testing.T) {
	for text, want := range map[string]any{
		``:                                model.Drift{Every: time.Hour, AtOnce: 16},
		`drift = { every = "never" }`:     model.Drift{AtOnce: 16},
		`drift = { converge = "person" }`: model.Drift{Every: time.Hour, AtOnce: 16, Waits: true},
		`drift = { every = "30m", at_once = 2, converge = "itself" }`: model.Drift{Every: 30 * time.Minute, AtOnce: 2},
		`drift = { every = "1s" }`:                                    `"1s" is not how often to verify`,
		`drift = { every = "soon" }`:                                  `"soon" is not how often to verify`,
		`drift = { at_once = 0 }`:                                     "at_once is not a number of that kind",
		`drift = { converge = "persons" }`:                            `Did you mean "person"?`,
		`drift = { evry = "1h" }`:                                     `nothing of drift is called "evry"`,
		`drift = "1h"`:                                                "drift is not written out",
	} {
		file, diags := lang.LoadCluster("c.hcl", []byte("cluster \"c\" {\n workflow = p.w\n packs = {}\n nodes = {}\n "+text+"\n}\n"))
		switch want := want.(type) {
		case model.Drift:
			if file == nil || file.Drift != want {
				t.Errorf("%s: %+v\n%s", text, file, diags.Text())
			}
		case string:
			if file != nil || !strings.Contains(diags.Text(), want) {
				t.Errorf("%s: does not say %q\n%s", text, want, diags.Text())
			}
		}
	}
}
