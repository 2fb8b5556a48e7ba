package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"joist/cmd/joist/cli"
	"joist/cmd/joist/supply"
	"joist/cmd/system"
	"joist/cmd/system/fresh"
	"joist/content"
	"joist/engine/model"
	"joist/engine/value"
	"joist/services/api"
	v1 "joist/services/api/v1"
	"joist/workflows/format"
	"joist/workflows/lang"
	"joist/workflows/lang/diag"
)

// serve runs an engine until ctx ends.
func serve(ctx context.Context, o cli.ServeOptions) error {
	log, err := logger(o)
	if err != nil {
		return err
	}
	cfg := system.Config{Interface: o.Interface, BootSets: o.BootSets, Moved: o.Moved, Log: log}
	if o.Interface == "" || o.Subnet == "" {
		return usage("cannot serve: name the interface towards the machines and its network, --interface eth1 --subnet 10.77.0.0/24; or use joist lab up, which does")
	}
	if cfg.Subnet, err = netip.ParsePrefix(o.Subnet); err != nil {
		return usage("cannot read --subnet %q: write an IPv4 network such as 10.77.0.0/24", o.Subnet)
	}
	cfg.Address = cfg.Subnet.Masked().Addr().Next()
	if o.Address != "" {
		if cfg.Address, err = netip.ParseAddr(o.Address); err != nil {
			return usage("cannot read --address %q: write an IPv4 address such as 10.77.0.1", o.Address)
		}
	}
	if cfg.Data, err = filepath.Abs(o.Data); err != nil {
		return fmt.Errorf("cannot find the data folder: %w", err)
	}
	if o.RunDir != "" {
		cfg.Machines = &system.Machines{RunDir: o.RunDir, Bridge: o.Bridge}
		if o.Bridge == "" {
			cfg.Machines.Bridge = o.Interface
		}
	}
	folder := fresh.Look(cfg.Data)
	if err := system.Preflight(cfg); err != nil {
		return err
	}
	socket, err := api.Listen(o.Socket)
	if err != nil {
		return errors.Join(err, folder.Leave())
	}
	defer socket.Close()
	s, err := system.Open(ctx, cfg)
	if err != nil {
		return errors.Join(err, folder.Leave())
	}
	defer s.Close()
	log.Info("the engine serves", "data", cfg.Data, "interface", o.Interface, "address", cfg.Address.String(), "socket", o.Socket)
	return s.Serve(ctx, version, socket)
}

// usage is an error of the command line.
func usage(format string, args ...any) error {
	return &cli.ExitError{Code: cli.Usage, Err: fmt.Errorf(format, args...)}
}

func logger(o cli.ServeOptions) (*slog.Logger, error) {
	var level slog.Level
	if o.LogLevel != "" {
		if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
			return nil, usage("cannot use --log-level %q: debug, info, warn or error", o.LogLevel)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	if o.LogJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
}

// source reads a cluster file, gathers its packs, and checks it all, so that what is wrong is said in one go, without an
// engine. The engine checks again what it is sent. The packs of a frozen set are the engine's.
func source(file string) (*v1.Source, error) {
	s, _, err := declared(file, format.Cluster{})
	return s, err
}

// adapted is source of a cluster file that is given another name and other inputs first.
func adapted(file string, as format.Cluster) (*v1.Source, error) {
	s, _, err := declared(file, as)
	return s, err
}

// declared is source with the checked model, nil where that is the engine's to make.
func declared(file string, as format.Cluster) (*v1.Source, *model.Model, error) {
	s, m, diags, err := examined(file, as)
	if diags.HasErrors() {
		for i := range diags {
			if as.Name == "" && len(as.With) == 0 || diags[i].File != filepath.Base(file) {
				continue
			}
			diags[i].Detail = strings.TrimSpace(diags[i].Detail + " (This is the file as --name and --with change it.)")
		}
		err = diags.Err()
	}
	if err != nil {
		return nil, nil, err
	}
	return s, m, nil
}

// examined is declared with everything that there is to say.
func examined(file string, as format.Cluster) (*v1.Source, *model.Model, lang.Diagnostics, error) {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return nil, nil, nil, fmt.Errorf("cannot read the cluster file: %s is a folder; give a file that holds cluster \"NAME\" { … } (a pack's folder is for joist pack check and joist pack test)", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("cannot read the cluster file: %w; give a file that holds cluster \"NAME\" { … }", err)
	}
	if as.Name != "" || len(as.With) > 0 {
		out, diags := format.Adapt(filepath.Base(file), data, as)
		if diags.HasErrors() {
			return nil, nil, diags, nil
		}
		data = out
	}
	cluster, diags := lang.LoadCluster(filepath.Base(file), data)
	if cluster == nil {
		return nil, nil, diags, nil
	}
	s := &v1.Source{FileName: filepath.Base(file), File: data}
	if cluster.Frozen != "" {
		return s, nil, diags, nil
	}
	var m *model.Model
	lock, err := content.ReadLock(file)
	if err != nil {
		return nil, nil, diags, err
	}
	packs, more, err := content.Gather(content.Wish{File: cluster, Folder: filepath.Dir(file), Lock: lock, Loose: true, Catalogue: system.Catalogue()})
	if diags = append(diags, more...); err == nil && !more.HasErrors() {
		var loaded map[string]*lang.Pack
		if loaded, _, err = content.Unpack(packs, system.Catalogue()); err == nil { // what is wrong with them is said above
			m, more = lang.Compile(lang.Source{Packs: loaded, Cluster: cluster, Tentative: true})
			diags = append(diags, more...)
		}
	}
	s.Packs = packs
	return s, m, diags, err
}

// unmet warns of what policies name and the workflow does not have. A cluster may have something of it still, which the engine knows:
// for a new cluster it is an error.
func unmet(s *v1.Source) lang.Diagnostics {
	cluster, _ := lang.LoadCluster(s.FileName, s.File)
	packs, _, err := content.Unpack(s.Packs, system.Catalogue())
	if cluster == nil || err != nil {
		return nil // it was read a moment ago
	}
	_, found := lang.Compile(lang.Source{Packs: packs, Cluster: cluster})
	found = found.Errors()
	for i := range found {
		found[i].Severity = diag.Warning
		found[i].Detail = strings.TrimSpace(found[i].Detail + " It may stand for what the cluster has still of an earlier version; in a new cluster it is an error.")
	}
	return found
}

// checkCluster checks a cluster file with its packs. Of one that is pinned to a frozen set the engine has the packs, and what
// stands in the file itself is all that can be checked.
func checkCluster(file string) (lang.Diagnostics, error) {
	s, m, diags, err := examined(file, format.Cluster{})
	if m != nil && len(m.Unmet) > 0 {
		diags = append(diags, unmet(s)...)
	}
	for i := range diags {
		if diags[i].File == filepath.Base(file) {
			diags[i].File = file
		}
	}
	if err == nil && m == nil && !diags.HasErrors() {
		diags = append(diags, lang.Diagnostics{{
			Severity: diag.Warning, Summary: "the cluster is pinned to a frozen set, whose packs the engine has: only " + s.FileName + " was checked", Detail: "joist plan checks it with them.",
		}}...)
	}
	if diags.HasErrors() {
		err = nil // it is said above
	}
	return diags, err
}

// wanted lists what artifacts the packs of a cluster file name.
func wanted(file string) ([]supply.Wanted, error) {
	_, m, err := declared(file, format.Cluster{})
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("the cluster is pinned to a frozen set: the engine has what it needs, or joist plan says what is missing")
	}
	var list []supply.Wanted
	for _, a := range m.Artifacts {
		w := supply.Wanted{By: "pack " + a.Pack, MirrorEntry: v1.MirrorEntry{
			Kind: string(a.Kind), Name: a.Name, Version: a.Version, Arch: a.Arch, Size: a.Size, Licence: a.Licence, URL: a.URL,
		}}
		if a.Digest != (value.Digest{}) {
			w.Digest = "sha256-" + a.Digest.String()
		}
		list = append(list, w)
	}
	return list, nil
}

// check checks a pack's folder, with the packs that it requires.
func check(dir string) (lang.Diagnostics, error) {
	files, err := content.Folder(dir)
	if err != nil {
		return nil, err
	}
	pack, diags := lang.Load(files, system.Catalogue())
	for i := range diags {
		if diags[i].File != "" {
			diags[i].File = filepath.Join(dir, diags[i].File)
		}
	}
	if pack != nil {
		packs := map[string]*lang.Pack{pack.Name: pack}
		more, err := content.Required(packs, filepath.Dir(filepath.Clean(dir)), system.Catalogue())
		if err != nil {
			return nil, err
		}
		diags = append(diags, more...)
		for _, d := range lang.Check(packs) {
			if file, ok := strings.CutPrefix(d.File, pack.Name+"/"); ok {
				d.File = filepath.Join(dir, file)
			}
			diags = append(diags, d)
		}
	}
	return diags, nil
}

func canonical(name string, src []byte) ([]byte, error) {
	out, diags := format.Format(name, src)
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	return out, nil
}
