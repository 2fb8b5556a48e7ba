package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"joist/services/power"
)

// qmpTimeout bounds a whole conversation. QEMU serves one client at a time and leaves a second one without a
// greeting, so an unanswered connection is given up on, not waited for.
const qmpTimeout = 5 * time.Second

// qmp is one conversation over the QEMU Machine Protocol (docs/interop/qmp-spec of QEMU): JSON values, one a line.
type qmp struct {
	conn   net.Conn
	in     *bufio.Scanner
	events []string // names of events that came in before an answer
	stop   func() bool
}

// refusal is an error answer of QEMU.
type refusal struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// Error implements error.
func (r *refusal) Error() string { return "qemu: " + r.Desc }

type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *refusal        `json:"error"`
	Event  string          `json:"event"`
}

// dialQMP connects and negotiates. Whoever does not answer is power.ErrUnreachable.
func dialQMP(caller context.Context, socket string) (*qmp, error) {
	ctx, cancel := context.WithTimeout(caller, qmpTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", power.ErrUnreachable, err)
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	q := newQMP(conn)
	// The caller may cancel before the deadline: closing the connection ends whatever waits on it.
	q.stop = context.AfterFunc(caller, func() { _ = conn.Close() })
	greeting, err := q.next()
	if err == nil && greeting.QMP == nil {
		err = errors.New("no greeting")
	}
	if err == nil {
		_, err = q.command("qmp_capabilities", nil)
	}
	if err != nil {
		q.close()
		return nil, fmt.Errorf("%w: no QMP greeting (another client may hold the connection): %w", power.ErrUnreachable, err)
	}
	return q, nil
}

func newQMP(conn net.Conn) *qmp {
	in := bufio.NewScanner(conn)
	in.Buffer(nil, 1<<20)
	return &qmp{conn: conn, in: in}
}

func (q *qmp) close() {
	if q.stop != nil {
		q.stop()
	}
	_ = q.conn.Close()
}

// next reads one message.
func (q *qmp) next() (qmpMessage, error) {
	var m qmpMessage
	if !q.in.Scan() {
		err := q.in.Err()
		if err == nil {
			err = io.EOF
		}
		return m, err
	}
	if err := json.Unmarshal(q.in.Bytes(), &m); err != nil {
		return m, fmt.Errorf("not a QMP message: %w", err)
	}
	return m, nil
}

// command sends a command and waits for its answer. Events in between are kept.
func (q *qmp) command(name string, args map[string]any) (json.RawMessage, error) {
	raw, err := json.Marshal(struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
	}{name, args})
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(raw, '\n')); err != nil {
		return nil, fmt.Errorf("%w: cannot send %s: %w", power.ErrUnreachable, name, err)
	}
	for {
		m, err := q.next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: no answer to %s: %w", power.ErrUnreachable, name, err)
		case m.Error != nil:
			return nil, fmt.Errorf("cannot %s: %w", name, m.Error)
		case m.Event != "":
			q.events = append(q.events, m.Event)
		case m.Return != nil:
			return m.Return, nil
		}
	}
}

// await waits until an event has come in, at most for d.
func (q *qmp) await(event string, d time.Duration) error {
	for i, e := range q.events {
		if e == event {
			q.events = q.events[i+1:]
			return nil
		}
	}
	q.events = nil
	_ = q.conn.SetReadDeadline(time.Now().Add(d))
	for {
		m, err := q.next()
		if err != nil {
			return fmt.Errorf("%w: no event %s: %w", power.ErrUnreachable, event, err)
		}
		if m.Event == event {
			return nil
		}
	}
}

// bootIndex reads the place of a device in the firmware's boot order.
func (q *qmp) bootIndex(device string) (int, error) {
	raw, err := q.command("qom-get", map[string]any{"path": "/machine/peripheral/" + device, "property": "bootindex"})
	if err != nil {
		return 0, err
	}
	var n int
	if err := json.Unmarshal(raw, &n); err != nil {
		return 0, fmt.Errorf("cannot read the boot index of %s: %w", device, err)
	}
	return n, nil
}

// setBootIndex takes effect at the next reset, when QEMU hands the order to the firmware anew.
func (q *qmp) setBootIndex(device string, n int) error {
	_, err := q.command("qom-set", map[string]any{"path": "/machine/peripheral/" + device, "property": "bootindex", "value": n})
	return err
}
