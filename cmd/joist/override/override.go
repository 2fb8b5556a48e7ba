// Package override has the flags by which a person says that policies are not to hold.
package override

import (
	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
)

// Words is what a person says of policies.
type Words struct {
	policies []string
	reason   string
}

// Flags gives a command --override and --reason.
func (w *Words) Flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&w.policies, "override", nil, "a policy that is not to hold for this, where it says override = true; may be repeated, needs --reason")
	c.Flags().StringVar(&w.reason, "reason", "", "why policies are overridden; it stands in the journal")
}

// List gives the overrides; usage makes an error about the command line.
func (w *Words) List(usage func(format string, args ...any) error) ([]v1.Override, error) {
	if (len(w.policies) == 0) != (w.reason == "") {
		return nil, usage("--override NAME and --reason WHY go together")
	}
	var list []v1.Override
	for _, name := range w.policies {
		list = append(list, v1.Override{Policy: name, Reason: w.reason})
	}
	return list, nil
}
