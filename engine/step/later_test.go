package step

import (
	"strings"
	"testing"
	"time"
)

func TestParseLater(t *testing.T) {
	for text, want := range map[string]string{
		"retry after 30s: the leader is being elected\n": "retry after 30s: the leader is being elected",
		"  waiting for the disk in bay 3  ":              "waiting for the disk in bay 3",
		"retry after 1ms: at once":                       "retry after 1s: at once",
		"retry after 100h: next week":                    "retry after 1h0m0s: next week",
		"retry after 5s:":                                "! the reason is empty",
		"retry after 5s":                                 "! there is no reason",
		"retry after soon: x":                            "! \"soon\" is no duration",
		"retry after -5s: x":                             "! \"-5s\" is no duration",
		"waiting for":                                    "! begins with neither",
		"":                                               "! begins with neither",
		"waiting for a\nwaiting for b":                   "! more than one line",
	} {
		got, err := ParseLater(text)
		switch {
		case err != nil:
			if !strings.HasPrefix(want, "! ") || !strings.Contains(err.Error(), want[2:]) {
				t.Errorf("%q: error %v, want %s", text, err, want)
			}
		case got.Error() != want:
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzParseLater(f *testing.F) {
	for _, seed := range []string{"retry after 30s: x", "waiting for y", "retry after 9999999h: z", "waiting for \xff", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLater(text)
		if err != nil {
			return
		}
		if l.Reason == "" || l.Kind == RetryAfter && (l.After < LeastAfter || l.After > MostAfter) || l.Kind == WaitingFor && l.After != time.Duration(0) {
			t.Errorf("%q gives %+v", text, l)
		}
		again, err := ParseLater(l.Error())
		if err != nil || *again != *l {
			t.Errorf("%q gives %+v, and that %+v, %v", text, l, again, err)
		}
	})
}
