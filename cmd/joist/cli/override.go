package cli

import (
	"github.com/spf13/cobra"

	v1 "joist/services/api/v1"
)

// overrides is what a person says of policies.
type overrides struct {
	policies []string
	reason   string
}

func (o *overrides) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.policies, "override", nil, "a policy that is not to hold for this, where it says override = true; may be repeated, needs --reason")
	c.Flags().StringVar(&o.reason, "reason", "", "why policies are overridden; it stands in the journal")
}

func (o *overrides) list() ([]v1.Override, error) {
	if (len(o.policies) == 0) != (o.reason == "") {
		return nil, usage("--override NAME and --reason WHY go together")
	}
	var list []v1.Override
	for _, name := range o.policies {
		list = append(list, v1.Override{Policy: name, Reason: o.reason})
	}
	return list, nil
}
