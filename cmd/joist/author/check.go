package author

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"joist/workflows/lang/diag"
)

// Checked is what pack check says of one pack or cluster file.
type Checked struct {
	Dir      string           `json:"dir,omitempty"`  // of a pack
	File     string           `json:"file,omitempty"` // of a cluster
	Fine     bool             `json:"fine"`
	Findings diag.Diagnostics `json:"findings,omitempty"` // errors and warnings
}

// PackCheckCommand is joist pack check.
func (a *Tools) PackCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check DIR|FILE...", Short: "Check packs and cluster files completely, without running anything",
		Long: `check reads the packs in folders, and cluster files with the packs that they use, and says everything that is wrong with
them. It needs no engine and no machines. Which machines a cluster file would get says joist plan; what it would do on
machines like those that it asks for, joist simulate.`,
		Example: "  joist pack check content/etcd\n  joist pack check demo.hcl -o json", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.check(args) },
	}
}

func (a *Tools) check(paths []string) error {
	bad, list := 0, []Checked{}
	var kinds []string
	for _, path := range paths {
		one, kind := Checked{Dir: path}, "packs"
		look := a.CheckPack
		if info, err := os.Stat(path); err == nil && !info.IsDir() { // what is not there, reading the pack says
			one, kind, look = Checked{File: path}, "cluster files", a.CheckCluster
		}
		found, err := look(path)
		if err != nil {
			return err
		}
		if one.Findings, one.Fine = found, !found.HasErrors(); !one.Fine {
			bad++
		}
		if list = append(list, one); len(kinds) == 0 || kinds[len(kinds)-1] != kind && kinds[0] != kind {
			kinds = append(kinds, kind)
		}
		if !a.Text() {
			continue
		}
		_ = found.WriteText(a.Err)
		if one.Fine {
			a.printf("%s: fine\n", path)
		}
	}
	if !a.Text() {
		if err := a.JSON(list); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d %s have errors", bad, len(paths), strings.Join(kinds, " and "))
	}
	return nil
}
