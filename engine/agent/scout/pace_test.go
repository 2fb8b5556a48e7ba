package scout

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

// TestPace: a clock source that runs too fast or too slow is told from one that is right, whatever the moments at which the
// two clocks are looked at.
func TestPace(t *testing.T) {
	for _, times := range []float64{1, 7.7, 0.13, 1.2} {
		var truth time.Duration
		c := clocks{
			up:   func() time.Duration { return time.Duration(float64(truth) * times) },
			real: func() (int64, error) { return 1_700_000_000 + int64((truth+300*time.Millisecond)/time.Second), nil },
			sleep: func(_ context.Context, d time.Duration) error {
				truth += time.Duration(float64(d)/times) + 30*time.Millisecond // a busy host is late
				return nil
			},
		}
		got, err := pace(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got/times-1) > 0.35 {
			t.Errorf("a clock that runs %.2f times too fast was seen to run %.2f times", times, got)
		}
		if off(got) != (times == 7.7 || times == 0.13) {
			t.Errorf("a clock that runs %.2f times too fast: off is %v", times, off(got))
		}
	}
	broken := errors.New("no such clock")
	if _, err := pace(t.Context(), clocks{real: func() (int64, error) { return 0, broken }}); !errors.Is(err, broken) {
		t.Errorf("without a clock: %v", err)
	}
}

func TestSteadier(t *testing.T) {
	for _, c := range []struct{ available, current, want string }{
		{"tsc hpet acpi_pm \n", "tsc", "hpet"},
		{"tsc acpi_pm \n", "tsc", "acpi_pm"},
		{"kvm-clock tsc acpi_pm \n", "tsc", "kvm-clock"},
		{"hpet \n", "hpet", ""},
		{"", "tsc", ""},
	} {
		if got := steadier(c.available, c.current); got != c.want {
			t.Errorf("of %q in place of %s: %q, want %q", c.available, c.current, got, c.want)
		}
	}
}
