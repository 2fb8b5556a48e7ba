package scout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
)

// Where Linux tells of its clocks.
const (
	clockSource  = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	clockSources = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
	batteryClock = "/sys/class/rtc/rtc0/since_epoch"
)

// A machine's time stamp counter is measured while it boots, against a timer that a busy host emulates late: it was seen
// to come out at an eighth of what it is, and every time-out then ends after an eighth of its time. So its pace is compared
// with the battery-backed clock's, which is the host's own.
const (
	paceSeconds   = 3   // of the battery-backed clock, for one comparison
	paceTolerance = 1.5 // times too fast or too slow; what a busy host delays in between stays below it
	paceLook      = 100 * time.Millisecond
)

// clocks are what a pace is measured by.
type clocks struct {
	up    func() time.Duration // by the clock source in use
	real  func() (int64, error)
	sleep func(context.Context, time.Duration) error
}

// pace says how many times too fast the clock source runs.
func pace(ctx context.Context, c clocks) (float64, error) {
	first, from, err := c.edge(ctx, 0)
	if err != nil {
		return 0, err
	}
	last, to, err := c.edge(ctx, first+paceSeconds-1)
	if err != nil {
		return 0, err
	}
	return (to - from).Seconds() / float64(last-first), nil
}

// edge waits until the second of the battery-backed clock changes to one after the given.
func (c clocks) edge(ctx context.Context, after int64) (second int64, up time.Duration, err error) {
	begun, err := c.real()
	if err != nil {
		return 0, 0, err
	}
	for {
		now, err := c.real()
		if err != nil {
			return 0, 0, err
		}
		if now != begun && now > after {
			return now, c.up(), nil
		}
		if err := c.sleep(ctx, paceLook); err != nil {
			return 0, 0, err
		}
	}
}

// off reports whether a pace is beyond what measuring it explains.
func off(pace float64) bool { return pace > paceTolerance || pace < 1/paceTolerance }

// steadier is the clock source to use in place of one that runs wrong, empty if there is none.
func steadier(available string, current string) string {
	all := strings.Fields(available)
	for _, want := range []string{"kvm-clock", "hpet", "acpi_pm"} {
		for _, name := range all {
			if name == want && name != current {
				return name
			}
		}
	}
	return ""
}

// KeepPace compares the machine's pace with that of its battery-backed clock, and changes the clock source if it is far
// off twice. It takes some seconds. A machine without such a clock is left as it is.
func KeepPace(ctx context.Context, log *slog.Logger) {
	real := func() (int64, error) { return strconv.ParseInt(strings.TrimSpace(readText(batteryClock)), 10, 64) }
	if _, err := real(); err != nil {
		return
	}
	c := clocks{up: bootClock, real: real, sleep: sleep}
	var seen float64
	for range 2 {
		p, err := pace(ctx, c)
		if err != nil || !off(p) {
			return
		}
		seen = p
	}
	if err := changeSource(seen); err != nil {
		log.Error("the machine's clock runs wrong", "times", fmt.Sprintf("%.2f", seen), "error", err)
		return
	}
	log.Warn("the machine's clock ran wrong; another clock source is in use now", "times", fmt.Sprintf("%.2f", seen), "source", strings.TrimSpace(readText(clockSource)))
}

// changeSource takes another clock source, and takes back what the clock has gained or lost since the machine started.
func changeSource(pace float64) error {
	name := steadier(readText(clockSources), strings.TrimSpace(readText(clockSource)))
	if name == "" {
		return errors.New("there is no other clock source")
	}
	up := bootClock()
	if err := os.WriteFile(clockSource, []byte(name), 0o644); err != nil {
		return fmt.Errorf("cannot change the clock source: %w", err)
	}
	gained := up - time.Duration(float64(up)/pace)
	return StepClock(time.Now().Add(-gained))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
