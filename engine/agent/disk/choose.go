package disk

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Seen is a disk with what was found on it.
type Seen struct {
	Disk
	Content string // what a disk that is not ours holds, for people; empty if it is blank
}

// Choice is the disk for a node's data, and what is to be done to it first.
type Choice struct {
	Disk
	Make  bool // the file system has to be made
	Erase bool // before that, what an unfinished making or erasing left has to go
}

// Choose decides which disk a node with an incarnation keeps its data on: the one that carries the incarnation, else one
// of ours whose making or erasing was cut short, else the largest blank one. Any other disk is refused, and a data disk
// that carries another incarnation is an error: its data may be all that is left of another node.
func Choose(disks []Seen, incarnation string) (Choice, error) {
	var unfinished, blank []Disk
	for _, d := range disks {
		switch carries := d.Incarnation(); {
		case carries == incarnation:
			return Choice{Disk: d.Disk}, nil
		case carries != "":
			return Choice{}, fmt.Errorf("the data disk %s carries the incarnation %s, and this node is %s: the disk came up after the machine had looked for it, or is another node's. "+
				"Reboot the machine to take it up again; if its data may go, wipe it with joist node wipe", d.Disk, carries, incarnation)
		case refusal(d) != "":
		case d.Ours():
			unfinished = append(unfinished, d.Disk)
		default:
			blank = append(blank, d.Disk)
		}
	}
	if len(unfinished) > 0 {
		return Choice{Disk: unfinished[0], Make: true, Erase: true}, nil
	}
	if len(blank) == 0 {
		return Choice{}, noDisk(disks)
	}
	slices.SortFunc(blank, func(a, b Disk) int { return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.Name, b.Name)) })
	return Choice{Disk: blank[0], Make: true}, nil
}

// refusal says why a disk that carries no incarnation is not made a data disk; empty if it may be.
func refusal(d Seen) string {
	switch {
	case d.ReadOnly:
		return "is read-only"
	case d.Part:
		return "is no whole disk"
	case d.Removable:
		return "is removable"
	case d.Size < smallest:
		return "is smaller than " + bytesText(smallest)
	case d.Content != "" && !d.Ours():
		return "holds " + d.Content
	}
	return ""
}

func noDisk(disks []Seen) error {
	var why []string
	var foreign string
	for _, d := range disks {
		text := refusal(d)
		if text == "" || d.Part {
			continue // partitions go with their disk
		}
		why = append(why, d.Disk.String()+" "+text)
		if d.Content != "" && !d.ReadOnly && !d.Removable {
			foreign = d.Path
		}
	}
	if len(why) == 0 {
		return fmt.Errorf(`this machine has no disk for data: add one, or say storage = "memory" in the cluster file`)
	}
	advice := `add a blank disk, or say storage = "memory" in the cluster file`
	if foreign != "" {
		advice = "if nobody needs it, erase it on the machine (blkdiscard " + foreign + ", or wipefs --all and zeros over its first and last MiB); else " + advice
	}
	return fmt.Errorf("no disk of this machine may be written to, for it is neither blank nor ours: %s; %s", strings.Join(why, "; "), advice)
}

// InMemory decides whether a node may keep its data in memory: not if its incarnation came with a data disk, because
// then it would outlive the data.
func InMemory(disks []Disk, incarnation string) error {
	for _, d := range disks {
		if d.Incarnation() == incarnation {
			return fmt.Errorf("this node's incarnation comes from its data disk %s and would outlive data in memory: "+
				`say storage = "disk" in the cluster file, or wipe the disk with joist node wipe`, d)
		}
	}
	return nil
}

// Incarnation gives the incarnation that the disks carry, with the disk; empty if none carries one. Different ones are an
// error: neither may be preferred without a person's word.
func Incarnation(disks []Disk) (id string, of Disk, err error) {
	for _, d := range disks {
		carries := d.Incarnation()
		if id != "" && carries != "" && carries != id {
			return "", Disk{}, fmt.Errorf("the data disks %s and %s carry different incarnations (%s, %s): wipe the one that does not belong here", of.Name, d.Name, id, carries)
		}
		if id == "" && carries != "" {
			id, of = carries, d
		}
	}
	return id, of, nil
}
