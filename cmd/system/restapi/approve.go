package restapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/outlook"
	"joist/engine/plan"
	"joist/services/api"
	v1 "joist/services/api/v1"
)

// approve gives a person's approval to what asks for it: to exactly that which was shown.
func approve(ctx context.Context, loop *drive.Cluster, cluster string, act v1.Action) error {
	if strings.TrimSpace(act.Reason) == "" {
		return api.Fail(v1.Malformed, errors.New("cannot approve without a reason"), "say why: the journal keeps who approved what, and why")
	}
	var t history.Target
	known := false
	var refused error
	var given history.Approved
	if err := loop.Look(ctx, func(s *history.State, p *plan.Planner) {
		t, _ = targetOf(act.Instance, s, p)
		cell := p.Cell(t)
		if known = cell != nil; !known {
			return
		}
		for _, a := range outlook.Approvals(p) {
			if a.Target != t {
				continue
			}
			if given = a.Given(act.By, act.Reason); act.Digest != "" && !strings.HasPrefix(a.Input.String(), act.Digest) {
				refused = api.Fail(v1.Conflict, fmt.Errorf("%.80q is not the digest of what %s asks for: that is %s: %s", act.Digest, p.Called(t), a.Input.Short(), a.Asks), "look at it, and approve that")
			}
			return
		}
		refused = api.Fail(v1.Conflict, fmt.Errorf("%s does not wait for approval: it %s", p.Called(t), cell.Says()), "")
	}); err != nil {
		return err
	}
	switch {
	case !known:
		return noInstance(ctx, loop, cluster, act.Instance)
	case refused != nil:
		return refused
	}
	if err := loop.Happen(ctx, given); err != nil {
		return err
	}
	taken := false
	if err := loop.Look(ctx, func(s *history.State, _ *plan.Planner) {
		row := s.Row(t)
		taken = row != nil && row.Approval.Of(given.Step, given.Input)
	}); err != nil {
		return err
	}
	if !taken {
		return api.Fail(v1.Conflict, fmt.Errorf("what %s asks for has changed meanwhile", t), "look at it, and approve that")
	}
	return nil
}
