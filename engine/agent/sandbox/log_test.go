package sandbox

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"joist/engine/agent/wire"
)

func TestLogIsBounded(t *testing.T) {
	s := box(t, Config{MaxLog: 10_000})
	r := request("#!/bin/sh\ni=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i+1)); done; echo the end >&2\n")
	res, log := run(t, s, r)
	if len(log) > 10_200 || !strings.HasPrefix(log, "line 0\nline 1\n") || !strings.HasSuffix(log, "the result has its last lines\n") {
		t.Errorf("%d bytes of log, ending in %q", len(log), log[len(log)-200:])
	}
	if len(res.Tail) > wire.MaxTail || !strings.HasSuffix(res.Tail, "line 2999\nthe end\n") || !strings.HasPrefix(res.Tail, "line ") {
		t.Errorf("tail %.30q … of %d bytes", res.Tail, len(res.Tail))
	}
	if want := int64(len("the end\n") + 3000*len("line \n") + 10 + 90*2 + 900*3 + 2000*4); res.LogBytes != want {
		t.Errorf("%d bytes counted, not %d", res.LogBytes, want)
	}
}

func TestLogOfNoise(t *testing.T) {
	s := box(t, Config{})
	res, log := run(t, s, request("#!/bin/sh\nhead -c 300000 /dev/urandom\n"))
	if !res.OK || !utf8.ValidString(log) || !utf8.ValidString(res.Tail) {
		t.Errorf("result %v", res.Error)
	}
	for line := range strings.Lines(log) {
		if len(line) > maxLine+1 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	s := box(t, Config{})
	r := request("#!/bin/sh\ncat inputs.json; echo; printf hun; sleep 0.05; echo ter22; echo 'say \"it\"'; echo first-line; echo 271828; exec /nonexistent/hunter22\n")
	r.Inputs = json.RawMessage(`{"p":"hunter22","q":{"k":["say \"it\"","first-line\nsecond-line",271828]},"plain":"shown","short":"ab"}`)
	r.Secret = []string{"p", "q", "short"}
	res, log := run(t, s, r)
	for _, text := range []string{log, res.Tail, res.Error} {
		for _, secret := range []string{"hunter22", "say", "first-line", "second-line", "271828"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %q", secret, text)
			}
		}
	}
	if !strings.Contains(log, "shown") || !strings.Contains(log, "[secret]") {
		t.Errorf("log %q", log)
	}
}

// However a secret falls into pieces and lines, it does not come through, and nothing else is lost.
func TestLoggerProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const secret = "s3cr3t-of-some-length"
		texts := rapid.SliceOfN(rapid.SampledFrom([]string{secret, "\n", "x", strings.Repeat("y", 1500), "ä", "\xff", "s3cr3t-of"}), 0, 40).Draw(t, "texts")
		input := strings.Join(texts, "")
		var log strings.Builder
		l := newLogger(loggerConfig{max: 1 << 30, secrets: []string{secret}, emit: func(text string) { log.WriteString(text) }})
		for rest := input; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			_, _ = l.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		l.close()
		got := log.String()
		if strings.Contains(strings.ReplaceAll(got, "\n", ""), secret) && !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(input, secret, "?"), "\n", ""), secret) {
			t.Fatalf("the secret came through: %q", got)
		}
		flat := func(text string) string { return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\n", "") }
		if want := flat(strings.ReplaceAll(input, secret, "[secret]")); flat(got) != want {
			t.Fatalf("got %q, want %q", flat(got), want)
		}
		if l.written != int64(len(input)) {
			t.Fatalf("%d bytes counted, not %d", l.written, len(input))
		}
	})
}
