package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Console is the log of a serial port. It goes on through power cycles.
type Console struct {
	path string
}

// followPause is how often a followed log is looked at.
const followPause = 200 * time.Millisecond

// Path is the log's file.
func (c Console) Path() string { return c.path }

// Copy writes the last tail bytes of the log to w (all of it if tail is negative), and with follow everything that
// comes after, until ctx ends or w refuses; the end of ctx is no error. A machine that never ran has an empty log.
// The bytes are what the machine sent, terminal control sequences included.
func (c Console) Copy(ctx context.Context, w io.Writer, tail int64, follow bool) error {
	var f *os.File
	defer func() {
		if f != nil {
			_ = f.Close()
		}
	}()
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for ; ; tail = -1 { // a file that appears later is copied whole
		if f == nil {
			var err error
			if f, err = c.open(tail); err != nil {
				return err
			}
		}
		if err := copyRest(w, f); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if f != nil && c.replaced(f) {
			if err := copyRest(w, f); err != nil { // what came before it was set aside
				return err
			}
			_ = f.Close()
			f = nil
		}
	}
}

// open opens the log at its last tail bytes; nil if there is none yet.
func (c Console) open(tail int64) (*os.File, error) {
	f, err := os.Open(c.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // no log yet is an ordinary answer
	}
	if err == nil && tail >= 0 {
		if err = seekTail(f, tail); err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the console: %w", err)
	}
	return f, nil
}

func copyRest(w io.Writer, f *os.File) error {
	if f == nil {
		return nil
	}
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("cannot copy the console: %w", err)
	}
	return nil
}

func seekTail(f *os.File, tail int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = f.Seek(max(0, st.Size()-tail), io.SeekStart)
	return err
}

// replaced tells whether the log is another file by now (set aside at a power-on), or gone with its machine.
func (c Console) replaced(f *os.File) bool {
	old, err := f.Stat()
	if err != nil {
		return true
	}
	now, err := os.Stat(c.path)
	return err != nil || !os.SameFile(old, now)
}
