package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Reader reads a stream of messages, one JSON value per line.
type Reader struct{ in *bufio.Reader }

// NewReader reads from in.
func NewReader(in io.Reader) *Reader { return &Reader{in: bufio.NewReaderSize(in, 4<<10)} }

// Next returns the next message; an empty line is an empty message, a sign of life. At the end of the stream it returns io.EOF, and
// io.ErrUnexpectedEOF if the stream ended in the middle of a line: such a line is never taken for a message.
func (r *Reader) Next() (Down, error) {
	line, err := r.line()
	if err != nil {
		return Down{}, err
	}
	if len(line) == 0 {
		return Down{}, nil
	}
	return DecodeDown(line)
}

// line returns one line without its end, at most MaxMessage bytes.
func (r *Reader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := r.in.ReadSlice('\n')
		if len(line)+len(part) > MaxMessage {
			return nil, fmt.Errorf("cannot read a message: it is longer than %d bytes", MaxMessage)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// DecodeDown decodes and checks one message from the engine.
func DecodeDown(line []byte) (Down, error) {
	var d Down
	if err := json.Unmarshal(line, &d); err != nil {
		return Down{}, fmt.Errorf("cannot read a message: %w", err)
	}
	set := 0
	if d.Request != nil {
		set++
	}
	if d.Cancel != nil {
		set++
		if d.Cancel.ID == "" || len(d.Cancel.ID) > MaxID {
			return Down{}, errors.New("cannot read a message: it cancels nothing")
		}
	}
	if d.Target != nil {
		set++
	}
	if set > 1 {
		return Down{}, errors.New("cannot read a message: it says several things at once")
	}
	return d, nil
}

// Clip shortens a text for people to at most limit bytes of valid UTF-8, which stays as long as it is when it is encoded.
func Clip(text string, limit int) string {
	const more = " …"
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(more)], "") + more
}

// DecodeResult decodes and checks one result from an agent.
func DecodeResult(body []byte) (Result, error) {
	var r Result
	if len(body) > MaxMessage {
		return r, fmt.Errorf("cannot read a result: it is longer than %d bytes", MaxMessage)
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("cannot read a result: %w", err)
	}
	if r.ID == "" || len(r.ID) > MaxID {
		return r, errors.New("cannot read a result: it has no id")
	}
	if r.OK != (r.Reason == "") {
		return r, errors.New("cannot read a result: success and reason contradict each other")
	}
	if len(r.Outputs) > MaxOutputs || len(r.Tail) > MaxTail || len(r.Error) > MaxError {
		return r, errors.New("cannot read a result: its outputs, tail or error are too long")
	}
	if r.OK && len(r.Outputs) > 0 {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(r.Outputs, &object); err != nil || object == nil {
			return r, errors.New("cannot read a result: its outputs are not a JSON object")
		}
	}
	return r, nil
}
