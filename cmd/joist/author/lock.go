package author

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// LockKind is what is to become of a cluster file's lock.
type LockKind string

// The kinds.
const (
	LockAsIs   LockKind = "lock"   // those of the lock that still suit everybody, otherwise the oldest that do
	LockNewest LockKind = "update" // the newest ones
	LockVendor LockKind = "vendor" // those of the lock, or the oldest, copied to a folder
)

// LockOptions is what joist pack lock, update or vendor was told.
type LockOptions struct {
	Kind   LockKind
	File   string // cluster file
	Folder string // of LockVendor
	Accept bool   // versions whose content is no longer what the lock says
}

// Locked is what stands in a lock now.
type Locked struct {
	File  string       `json:"file"` // the lock
	Packs []LockedPack `json:"packs"`
}

// LockedPack is one pack of it.
type LockedPack struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Was     string   `json:"was,omitempty"`     // version in the lock before; empty for none
	Changed bool     `json:"changed,omitempty"` // that version had another content
	Source  string   `json:"source"`
	Digest  string   `json:"digest"`
	Asked   []string `json:"asked"` // who asks for which versions
}

// Lockers has the commands that lock the packs of a cluster file.
type Lockers struct {
	Out   io.Writer
	Text  func() bool
	JSON  func(v any) error
	Table func(w io.Writer, rows [][]string)
	Lock  func(o LockOptions) (*Locked, error) // nil: this program was built without it
}

// Commands are joist pack lock, update and vendor.
func (l Lockers) Commands() []*cobra.Command {
	one := func(kind LockKind, use, short, example string, args int) *cobra.Command {
		o := LockOptions{Kind: kind}
		c := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.ExactArgs(args), RunE: func(_ *cobra.Command, args []string) error {
			if o.File = args[0]; len(args) > 1 {
				o.Folder = args[1]
			}
			return l.run(o)
		}}
		if kind != LockVendor {
			c.Flags().BoolVar(&o.Accept, "accept-changed", false, "lock a version again whose content has changed since")
		}
		return c
	}
	return []*cobra.Command{
		one(LockAsIs, "lock FILE", "Write FILE.lock: of each pack the version locked before if it still suits everybody, else the oldest that does", "  joist pack lock demo.hcl", 1),
		one(LockNewest, "update FILE", "Write FILE.lock anew with the newest versions that suit everybody", "  joist pack update demo.hcl", 1),
		one(LockVendor, "vendor FILE DIR", "Copy the packs of a cluster file below DIR, and lock them there", "  joist pack vendor demo.hcl vendor", 2),
	}
}

func (l Lockers) run(o LockOptions) error {
	if l.Lock == nil {
		return errors.New("this program was built without locking packs")
	}
	done, err := l.Lock(o)
	if err != nil {
		return err
	}
	if !l.Text() {
		return l.JSON(done)
	}
	rows := [][]string{{"PACK", "VERSION", "WAS", "SOURCE", "ASKED FOR BY"}}
	for _, p := range done.Packs {
		was := p.Was
		switch {
		case was == "":
			was = "-"
		case p.Changed:
			was = "the same, with other content"
		case was == p.Version:
			was = "the same"
		}
		asked := "-"
		for i, by := range p.Asked {
			if i == 0 {
				asked = by
				continue
			}
			asked += ", " + by
		}
		rows = append(rows, []string{p.Name, p.Version, was, p.Source, asked})
	}
	l.Table(l.Out, rows)
	fmt.Fprintf(l.Out, "locked in %s\n", done.File)
	return nil
}
