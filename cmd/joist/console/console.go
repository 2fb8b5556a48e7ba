// Package console makes what a machine says on its console fit for a person's terminal.
package console

import "io"

// Filter writes to W, and leaves out the control characters with which a console could change the terminal of whoever looks; colours and
// cursor movements go with them.
type Filter struct {
	W   io.Writer
	esc int // 1 after ESC, 2 within a control sequence
}

// Write implements io.Writer.
func (f *Filter) Write(p []byte) (int, error) {
	_, err := f.W.Write(f.clean(p))
	return len(p), err
}

func (f *Filter) clean(p []byte) []byte {
	out := make([]byte, 0, len(p))
	for _, b := range p {
		switch {
		case b == 0x1b:
			f.esc = 1
		case f.esc == 1 && b == '[':
			f.esc = 2
		case f.esc == 1:
			f.esc = 0
		case f.esc == 2:
			if b >= 0x40 && b <= 0x7e {
				f.esc = 0
			}
		case b == '\n' || b == '\t' || b >= 0x20 && b != 0x7f:
			out = append(out, b)
		}
	}
	return out
}
