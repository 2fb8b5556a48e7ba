package system

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"joist/cmd/system/restapi"
	"joist/engine/drive"
	"joist/engine/journal/sqlstore"
	v1 "joist/services/api/v1"
	"joist/services/clusters"
)

// Replay runs the core again over a cluster's journal in a data folder and compares, without an engine and without
// writing, also while an engine runs on it. An empty name means the only cluster there is.
func Replay(ctx context.Context, data, name string, q v1.ReplayQuery) (_ *v1.Replay, err error) {
	db, err := sqlstore.OpenReadOnly(ctx, data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if name == "" {
		if name, err = onlyCluster(ctx, db); err != nil {
			return nil, err
		}
	}
	c := clusters.New(clusters.Config{Drive: drive.Config{Store: db.Journals(), Blobs: db.Blobs()}, Compiler: compiler{}})
	return restapi.Replay(ctx, c, name, q)
}

func onlyCluster(ctx context.Context, db *sqlstore.DB) (string, error) {
	infos, err := db.Journals().List(ctx)
	if err != nil {
		return "", err
	}
	var names []string
	for _, info := range infos {
		if name, ok := strings.CutPrefix(info.Journal, drive.JournalOf("")); ok && info.Last > 0 {
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		return "", fmt.Errorf("there are %d clusters in this data folder; name one: %s", len(names), strings.Join(names, ", "))
	}
	return names[0], nil
}
