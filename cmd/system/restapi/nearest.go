package restapi

import (
	"context"
	"errors"
	"fmt"

	"joist/engine/drive"
	"joist/engine/history"
	"joist/engine/model"
	"joist/engine/plan"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
	"joist/services/site"
	"joist/workflows/lang/diag"
)

// told is told that names the nearest cluster or machine where one is unknown.
func (p Parts) told(err error) error {
	var known *api.Error
	var noCluster *clusters.UnknownError
	var noMachine *site.UnknownError
	switch {
	case errors.As(err, &known):
	case errors.As(err, &noCluster):
		return api.Fail(v1.NotFound, err, meant(noCluster.Name, p.Clusters.Names(), "joist status lists them all"))
	case errors.As(err, &noMachine):
		var names []string
		for _, m := range p.Site.Machines() {
			names = append(names, m.Name)
		}
		return api.Fail(v1.NotFound, err, meant(noMachine.Name, names, ""))
	}
	return told(err)
}

// refused is Refused with the advice of told.
func (p Parts) refused(err error) error { return Refused(p.told(err)) }

// meant is advice about an unknown name: the known one that is near, or something else.
func meant(name string, known []string, otherwise string) string {
	if near := diag.Nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return otherwise
}

// searched bounds how many instances are compared with a name that is unknown.
const searched = 20000

// noInstance says that a cluster has no such instance, and names the nearest one.
func noInstance(ctx context.Context, loop *drive.Cluster, cluster, instance string) error {
	var names []string
	if err := loop.Look(ctx, func(_ *history.State, p *plan.Planner) {
		p.Each(func(t history.Target, _ *model.Task, _ *plan.Cell) {
			if len(names) < searched {
				names = append(names, p.Called(t).String())
			}
		})
		for _, r := range p.Removals() {
			if len(names) < searched {
				names = append(names, p.Called(r.Target).String())
			}
		}
	}); err != nil {
		return err
	}
	advice := meant(instance, names, fmt.Sprintf("joist plan --cluster %s --all lists them", cluster))
	return api.Fail(v1.NotFound, fmt.Errorf("cluster %s has no instance %s", cluster, instance), advice)
}
