package model_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"joist/engine/model"
)

// TestWindows holds when windows open: 2026-01-05 is a Monday.
func TestWindows(t *testing.T) {
	for _, test := range []struct {
		window, zone, now, opens string
	}{
		{"Sat 02:00-06:00", "UTC", "2026-01-10T02:00:00Z", "2026-01-10T02:00:00Z"},
		{"Sat 02:00-06:00", "UTC", "2026-01-10T05:59:59Z", "2026-01-10T05:59:59Z"},
		{"Sat 02:00-06:00", "UTC", "2026-01-10T06:00:00Z", "2026-01-17T02:00:00Z"},
		{"Sat 02:00-06:00", "UTC", "2026-01-10T01:59:59Z", "2026-01-10T02:00:00Z"},
		{"Mon-Fri 22:00-04:00", "UTC", "2026-01-10T03:00:00Z", "2026-01-10T03:00:00Z"}, // Saturday: Friday's still
		{"Mon-Fri 22:00-04:00", "UTC", "2026-01-05T03:00:00Z", "2026-01-05T22:00:00Z"}, // Monday: Sunday has none
		{"Mon-Fri 22:00-04:00", "UTC", "2026-01-10T04:00:00Z", "2026-01-12T22:00:00Z"},
		{"Sat,Sun", "UTC", "2026-01-11T23:59:59Z", "2026-01-11T23:59:59Z"},
		{"Sat,Sun", "UTC", "2026-01-12T00:00:00Z", "2026-01-17T00:00:00Z"},
		{"Fri-Mon", "UTC", "2026-01-11T12:00:00Z", "2026-01-11T12:00:00Z"},
		{"Fri-Mon", "UTC", "2026-01-13T12:00:00Z", "2026-01-16T00:00:00Z"},
		{"22:00-24:00", "UTC", "2026-01-06T21:00:00Z", "2026-01-06T22:00:00Z"},
		{"Sat 00:00-02:00", "+02:00", "2026-01-09T22:30:00Z", "2026-01-09T22:30:00Z"}, // Saturday there
		{"Sat 00:00-02:00", "-05:30", "2026-01-10T00:30:00Z", "2026-01-10T05:30:00Z"},
		{"Sun 23:00-01:00", "UTC", "2026-02-28T12:00:00Z", "2026-03-01T23:00:00Z"}, // over the end of a month
	} {
		w, err := model.ParseWindow(test.window)
		if err != nil {
			t.Fatal(err)
		}
		zone, err := model.ParseZone(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		now, want := at(t, test.now), at(t, test.opens)
		p := model.Policy{Outside: []model.Window{w}, Zone: zone}
		if got := p.Opens(now); !got.Equal(want) || p.Open(now) != now.Equal(want) {
			t.Errorf("%s %s at %s opens at %s, want %s", test.window, test.zone, test.now, got, test.opens)
		}
	}
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	now, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func TestWindowsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "Someday", "Sat 2:00-6:00", "Sat 02:00", "Sat 25:00-26:00", "Sat 02:60-03:00", "02:00-02:00", "24:00-02:00", "Sat morning", "Sat 02:00-06:00 UTC", "Mon-", "Sat 02:00-06:00-07:00", "sat"} {
		if w, err := model.ParseWindow(text); err == nil {
			t.Errorf("%q is taken for %+v", text, w)
		}
	}
	for _, text := range []string{"", "Europe/Berlin", "+2:00", "+15:00", "02:00", "+02:0x"} {
		if zone, err := model.ParseZone(text); err == nil {
			t.Errorf("%q is taken for %d", text, zone)
		}
	}
}

// TestOpens holds the next opening against a search minute by minute.
func TestOpens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w model.Window
		for d := range w.Days {
			w.Days[d] = rapid.Bool().Draw(t, "day")
		}
		w.Days[rapid.IntRange(0, 6).Draw(t, "one")] = true
		w.From = rapid.IntRange(0, 1439).Draw(t, "from")
		w.To = rapid.IntRange(0, 1440).Filter(func(n int) bool { return n != w.From }).Draw(t, "to")
		inside := func(now time.Time) bool {
			m, today, before := now.Hour()*60+now.Minute(), w.Days[now.Weekday()], w.Days[(now.Weekday()+6)%7]
			if w.From < w.To {
				return today && m >= w.From && m < w.To
			}
			return today && m >= w.From || before && m < w.To
		}
		now := time.Date(2026, 1, 1, 0, rapid.IntRange(0, 60*24*40).Draw(t, "now"), 0, 0, time.UTC)
		want := now
		for !inside(want) {
			want = want.Add(time.Minute)
		}
		if got := w.Opens(now); !got.Equal(want) {
			t.Fatalf("%+v at %s opens at %s, want %s", w, now, got, want)
		}
	})
}

// FuzzParseWindow reads anything, and what it takes opens within eight days.
func FuzzParseWindow(f *testing.F) {
	for _, text := range []string{"Sat 02:00-06:00", "Mon-Fri 22:00-04:00", "Sat,Sun", "22:00-04:00", "Fri-Mon 00:00-24:00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := model.ParseWindow(text)
		if err != nil {
			return
		}
		now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		if got := w.Opens(now); got.Before(now) || got.After(now.AddDate(0, 0, 8)) {
			t.Fatalf("%q opens at %s", text, got)
		}
	})
}
