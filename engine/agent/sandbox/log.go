package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"joist/engine/agent/wire"
)

// maxLine is the longest line passed on, in bytes; a longer one is broken into several.
const maxLine = 4 << 10

// loggerConfig says what a logger does with a step's output.
type loggerConfig struct {
	max     int64             // bytes passed on before the note that the rest is left out
	secrets []string          // texts that are replaced, longest first
	emit    func(text string) // gets one or more whole lines
}

// logger makes whole lines of valid UTF-8 out of a step's output, without its secrets, and keeps the last ones.
// It belongs to one goroutine.
type logger struct {
	loggerConfig
	written int64 // bytes seen
	passed  int64 // bytes passed on
	cut     bool  // the note was written
	hold    int   // bytes that may be the beginning of a secret
	rest    []byte
	last    []byte
}

func newLogger(cfg loggerConfig) *logger {
	l := &logger{loggerConfig: cfg}
	if len(cfg.secrets) > 0 {
		l.hold = len(cfg.secrets[0]) - 1
	}
	return l
}

// Write takes the next piece of output.
func (l *logger) Write(p []byte) (int, error) {
	l.written += int64(len(p))
	l.rest = append(l.rest, p...)
	var batch strings.Builder
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			break
		}
		l.lines(&batch, l.redact(string(l.rest[:i])))
		l.rest = l.rest[i+1:]
	}
	for len(l.rest) > maxLine+l.hold {
		// A secret wholly inside is replaced; one that has only begun lies within the bytes held back.
		text := l.redact(string(l.rest))
		keep := min(l.hold, len(text))
		l.lines(&batch, text[:len(text)-keep])
		l.rest = []byte(text[len(text)-keep:])
	}
	l.rest = slices.Clone(l.rest) // do not hold on to the large array behind it
	l.pass(batch.String())
	return len(p), nil
}

// close passes on an unfinished last line.
func (l *logger) close() {
	if len(l.rest) == 0 {
		return
	}
	var batch strings.Builder
	l.lines(&batch, l.redact(string(l.rest)))
	l.rest = nil
	l.pass(batch.String())
}

// note adds a line of the agent's own.
func (l *logger) note(text string) {
	l.close()
	l.pass("[joist] " + text + "\n")
}

// lines writes text as one line or, if it is long, as several.
func (l *logger) lines(to *strings.Builder, text string) {
	text = strings.ToValidUTF8(strings.TrimRight(text, "\r"), "\uFFFD")
	for len(text) > maxLine {
		n := maxLine
		for n > maxLine-4 && text[n]&0xC0 == 0x80 { // not within a character
			n--
		}
		to.WriteString(text[:n])
		to.WriteByte('\n')
		text = text[n:]
	}
	to.WriteString(text)
	to.WriteByte('\n')
}

func (l *logger) pass(text string) {
	if text == "" {
		return
	}
	l.last = append(l.last, text...)
	if over := len(l.last) - wire.MaxTail; over > 0 {
		l.last = l.last[over:]
		if i := bytes.IndexByte(l.last, '\n'); i >= 0 && i < len(l.last)-1 {
			l.last = l.last[i+1:]
		}
		l.last = slices.Clone(l.last)
	}
	if l.emit == nil || l.cut {
		return
	}
	if room := l.max - l.passed; int64(len(text)) > room {
		text = text[:strings.LastIndexByte(text[:room], '\n')+1]
		text += fmt.Sprintf("[joist] the log is cut here, after %d bytes; the result has its last lines\n", l.passed+int64(len(text)))
		l.cut = true
	}
	l.passed += int64(len(text))
	for len(text) > wire.MaxChunk {
		n := strings.LastIndexByte(text[:wire.MaxChunk], '\n') + 1
		l.emit(text[:n])
		text = text[n:]
	}
	l.emit(text)
}

func (l *logger) tail() string { return strings.ToValidUTF8(string(l.last), "") }

// redact replaces secrets in one line.
func (l *logger) redact(line string) string {
	for _, s := range l.secrets {
		line = strings.ReplaceAll(line, s, "[secret]")
	}
	return line
}

// minSecret is the shortest text that is treated as a secret in logs: replacing shorter ones would garble a log and,
// by the pattern of what is missing, tell them anyway.
const minSecret = 4

// secretTexts lists the texts to keep out of the log: each string, and each number, within the secret inputs, as it is
// and as JSON writes it, line by line; longest first.
func secretTexts(req wire.Request) []string {
	if len(req.Secret) == 0 {
		return nil
	}
	var inputs map[string]json.RawMessage
	if json.Unmarshal(inputsOf(req), &inputs) != nil {
		return nil // cannot be: the request is valid
	}
	set := map[string]bool{}
	add := func(text string) {
		for line := range strings.SplitSeq(text, "\n") {
			if line = strings.TrimRight(line, "\r"); len(line) >= minSecret {
				set[line] = true
			}
		}
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			add(v)
			if quoted, err := json.Marshal(v); err == nil {
				add(strings.Trim(string(quoted), `"`))
			}
		case json.Number:
			add(v.String())
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	for _, name := range req.Secret {
		dec := json.NewDecoder(bytes.NewReader(inputs[name]))
		dec.UseNumber()
		var v any
		if dec.Decode(&v) == nil {
			walk(v)
		}
	}
	texts := make([]string, 0, len(set))
	for s := range set {
		texts = append(texts, s)
	}
	slices.SortFunc(texts, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return texts
}
