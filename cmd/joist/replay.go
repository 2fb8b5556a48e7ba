package main

import (
	"context"

	"joist/cmd/system"
	v1 "joist/services/api/v1"
)

// replay runs the core again over a journal in a data folder.
func replay(ctx context.Context, data, cluster string, q v1.ReplayQuery) (*v1.Replay, error) {
	return system.Replay(ctx, data, cluster, q)
}
