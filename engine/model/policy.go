package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"joist/engine/addr"
)

// Policy refuses what is dangerous: all of it, beyond a number of nodes in a run, or outside some hours. It is immutable.
type Policy struct {
	Name     string
	Doc      string // why, for people
	Refuse   Danger
	Roles    []string // of the nodes it is about; empty for any, and for what has no node
	Tasks    []string // it is about, or workflows called as tasks; empty for any. Not of a wipe
	Bounded  bool     // up to Beyond nodes in a run are let pass
	Beyond   int
	Outside  []Window // what lies within one of them is let pass; empty for any time
	Zone     int      // of the windows, in seconds east of UTC
	Override bool     // a person may override it, with a reason
	Range    Range    // where it stands
}

// Danger is what a policy can refuse.
type Danger string

// The dangers.
const (
	Removal     Danger = "removal"     // an effect is taken away for good
	Replacement Danger = "replacement" // an effect is taken away, and made anew in its place
	Wiping      Danger = "wipe"        // the durable state of a node is destroyed
	Rebooting   Danger = "reboot"      // a step reboots its node
)

// Dangers lists them.
func Dangers() []string {
	return []string{string(Removal), string(Replacement), string(Wiping), string(Rebooting)}
}

// About reports whether a policy is about what becomes of an instance: of a task with these roles (of the task; nil for a
// whole node), on a node that played those (nil for what has no node).
func (p *Policy) About(task string, each, played []string) bool {
	if len(p.Tasks) > 0 && !slices.ContainsFunc(p.Tasks, func(name string) bool { return Below(task, name) }) {
		return false
	}
	return len(p.Roles) == 0 || slices.ContainsFunc(p.Roles, func(role string) bool {
		return slices.Contains(played, role) && (each == nil || slices.Contains(each, role))
	})
}

// Below reports whether a task is the one of that name, one of its items, or one of the workflow called there.
func Below(task, name string) bool {
	of, _, _ := addr.CutItem(task)
	return of == name || strings.HasPrefix(task, name+".")
}

// Opens gives the time at which a policy lets something pass: now, if it is within one of its windows or has none.
func (p *Policy) Opens(now time.Time) time.Time {
	if len(p.Outside) == 0 {
		return now
	}
	zone := time.FixedZone("", p.Zone)
	var first time.Time
	for _, w := range p.Outside {
		if at := w.Opens(now.In(zone)); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first.In(now.Location())
}

// Open reports whether a policy lets something pass now.
func (p *Policy) Open(now time.Time) bool { return p.Opens(now).Equal(now) }

// Says gives a policy's windows as people write them.
func (p *Policy) Says() string {
	var list []string
	for _, w := range p.Outside {
		list = append(list, w.Text)
	}
	zone := "UTC"
	if p.Zone != 0 {
		zone = time.Time{}.In(time.FixedZone("", p.Zone)).Format("-07:00")
	}
	return strings.Join(list, ", ") + " " + zone
}

// Window is a time of every week: from a minute of some days to a later one, which is of the day after if it is not after From.
type Window struct {
	Days     [7]bool // by time.Weekday, on which it begins
	From, To int     // minutes after midnight; To may be 24 hours
	Text     string  // as people write it
}

const day = 24 * 60

// Opens gives the time at which it is within the window: now, or when that begins next. The weekdays are those of now's zone,
// which must be one without summer time.
func (w *Window) Opens(now time.Time) time.Time {
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	for ahead := -1; ahead <= 7; ahead++ {
		begins := midnight.AddDate(0, 0, ahead)
		if !w.Days[begins.Weekday()] {
			continue
		}
		to := w.To
		if to <= w.From {
			to += day
		}
		from, end := begins.Add(time.Duration(w.From)*time.Minute), begins.Add(time.Duration(to)*time.Minute)
		switch {
		case !now.Before(end):
		case !now.Before(from):
			return now
		default:
			return from
		}
	}
	return now // of a window without days, which nobody can write
}

// ParseWindow reads "Sat 02:00-06:00", "Mon-Fri 22:00-04:00", "Sat,Sun" (the whole day) or "22:00-04:00" (every day).
func ParseWindow(text string) (Window, error) {
	w := Window{To: day, Text: text}
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > 2 {
		return w, fmt.Errorf("%q is not a time of the week", text)
	}
	hours := fields[len(fields)-1]
	switch timed := strings.Contains(hours, ":"); {
	case timed && len(fields) == 1:
		w.Days = [7]bool{true, true, true, true, true, true, true}
	case !timed && len(fields) == 2:
		return w, fmt.Errorf("%q is not a time of the day", hours)
	default:
		if err := w.days(fields[0]); err != nil {
			return w, err
		}
	}
	if !strings.Contains(hours, ":") {
		return w, nil
	}
	from, to, both := strings.Cut(hours, "-")
	var ok, also bool
	w.From, ok = minute(from)
	w.To, also = minute(to)
	if !both || !ok || !also || w.From == day || w.From == w.To {
		return w, fmt.Errorf("%q is not a time of the day", hours)
	}
	return w, nil
}

func (w *Window) days(text string) error {
	names := []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, to := slices.Index(names, first), slices.Index(names, last)
		if from < 0 || to < 0 {
			return fmt.Errorf("%q is not a day of the week, nor some: they are %s", part, strings.Join(names, ", "))
		}
		for d := from; ; d = (d + 1) % 7 {
			w.Days[d] = true
			if d == to {
				break
			}
		}
	}
	return nil
}

// minute reads "22:05", or "24:00" for the end of a day.
func minute(text string) (int, bool) {
	h, m, ok := strings.Cut(text, ":")
	hours, err := strconv.ParseUint(h, 10, 8)
	minutes, also := strconv.ParseUint(m, 10, 8)
	n := int(hours)*60 + int(minutes)
	return n, ok && err == nil && also == nil && len(h) == 2 && len(m) == 2 && minutes < 60 && n <= day
}

// ParseZone reads "UTC" or an offset such as "+02:00", in seconds east of UTC.
func ParseZone(text string) (int, error) {
	if text == "UTC" {
		return 0, nil
	}
	if len(text) == 6 && (text[0] == '+' || text[0] == '-') {
		if n, ok := minute(text[1:]); ok && n <= 14*60 {
			if text[0] == '-' {
				n = -n
			}
			return n * 60, nil
		}
	}
	return 0, fmt.Errorf(`%q is not a zone: write "UTC", or an offset such as "+02:00"`, text)
}

// Limit says how many nodes a policy lets pass in a run.
func (p *Policy) Limit() string {
	switch p.Beyond {
	case 0:
		return "none"
	case 1:
		return "one node"
	}
	return fmt.Sprintf("%d nodes", p.Beyond)
}
