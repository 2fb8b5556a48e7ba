// Package again has instances run because somebody asks for it, and waits until they have.
package again

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"joist/services/api/client"
	v1 "joist/services/api/v1"
)

// FailedError is an instance that ran and failed, or that cannot run.
type FailedError struct{ Instance *v1.Instance }

// Error names the instance, how it stands, and why.
func (e *FailedError) Error() string {
	i := e.Instance
	return fmt.Sprintf("%s %s: %s", i.Item.Instance, i.State, cmp.Or(i.Error, i.Waits, i.Because))
}

// pace is how often the engine is asked whether what runs has ended.
const pace = 250 * time.Millisecond

// Run has what an action names run again, and tells of each instance once it has. It returns when all have, or with a FailedError for
// one that will not. Their ends are looked for by themselves: what does nothing but evaluate its inputs does not disturb the cluster's
// rest.
func Run(ctx context.Context, api *client.Client, cluster string, word v1.Action, tell func(*v1.Instance)) error {
	before, err := api.Cluster(ctx, cluster)
	if err != nil {
		return err
	}
	done, err := api.Act(ctx, cluster, word)
	if err != nil {
		return err
	}
	forced, err := api.Find(ctx, "cluster/"+cluster, before.Events, "forced")
	if err != nil {
		return err
	}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for waits := done.Forced; ; {
		now, err := api.Cluster(ctx, cluster) // before its instances: what has not run by then will not, where the cluster is at rest
		if err != nil {
			return err
		}
		var left []string
		var last *v1.Instance
		for _, name := range waits {
			one, err := api.Instance(ctx, cluster, name)
			if err != nil {
				return err
			}
			switch one.State {
			case "in place":
				if one.Ended > forced {
					tell(one)
					continue
				}
			case "failed", "blocked", "absent", "skipped", "set aside":
				return &FailedError{one}
			}
			left, last = append(left, name), one
		}
		if waits = left; len(waits) == 0 {
			return nil
		}
		if now.Outcome != "converging" {
			return &FailedError{last}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
