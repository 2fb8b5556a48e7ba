package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "joist/services/api/v1"
)

// Bounds of a page of events.
const (
	defaultPage = 1000
	largestPage = 10000
	pageBytes   = 8 << 20 // of data, from which on a page is full
)

// AllJournals asks for every journal, those that come later included.
const AllJournals = "all"

// selection is which events a request wants.
type selection struct {
	journals []string // empty: all
	from     v1.Cursor
	limit    int
}

func (s *selection) wants(journal string) bool {
	return len(s.journals) == 0 || slices.Contains(s.journals, journal)
}

// parseSelection reads ?journal=&after=&limit= and Last-Event-ID, which a client that comes back sends and which comes first.
func (s *Server) parseSelection(r *http.Request) (*selection, error) {
	bad := func(err error) (*selection, error) {
		return nil, Fail(v1.Malformed, err, "write journal=cluster/NAME, site or all, and after= an id of this stream, or now")
	}
	q := r.URL.Query()
	sel := &selection{limit: defaultPage}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > largestPage {
			return bad(fmt.Errorf("cannot read limit=%.40q: want 1 to %d", text, largestPage))
		}
		sel.limit = n
	}
	for _, list := range q["journal"] {
		for name := range strings.SplitSeq(list, ",") {
			if name == AllJournals || name == "" {
				continue
			}
			if !v1.ValidJournal(name) {
				return bad(fmt.Errorf("%.80q is no journal", name))
			}
			sel.journals = append(sel.journals, name)
		}
	}
	after := q.Get("after")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		after = id
	}
	var err error
	if after == "now" {
		sel.from, err = s.ends(r.Context(), sel)
		return sel, err
	}
	if n, err := strconv.ParseUint(after, 10, 64); err == nil && len(sel.journals) == 1 {
		sel.from = v1.Cursor{sel.journals[0]: n}
		return sel, nil
	}
	if sel.from, err = v1.ParseCursor(after); err != nil {
		return bad(err)
	}
	for name := range sel.from {
		if !sel.wants(name) {
			delete(sel.from, name)
		}
	}
	return sel, nil
}

// ends is the cursor after everything that there is now.
func (s *Server) ends(ctx context.Context, sel *selection) (v1.Cursor, error) {
	names, err := s.cfg.Journals.Names(ctx)
	if err != nil {
		return nil, err
	}
	c := v1.Cursor{}
	for _, name := range names {
		if !sel.wants(name) {
			continue
		}
		if c[name], err = s.cfg.Journals.Last(ctx, name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.parseSelection(r)
	if err != nil {
		return err
	}
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") || flag(r, "follow") {
		return s.stream(w, r, sel)
	}
	return s.page(w, r, sel)
}

var errFull = errors.New("the page is full")

// page answers with events journal by journal. In the order of time they come from a stream's reader, if it wants that.
func (s *Server) page(w http.ResponseWriter, r *http.Request, sel *selection) error {
	names, err := s.cfg.Journals.Names(r.Context())
	if err != nil {
		return err
	}
	at := sel.from
	page := v1.Events{Events: []v1.Event{}}
	size := 0
	for _, name := range names {
		if !sel.wants(name) {
			continue
		}
		err := s.cfg.Journals.Read(r.Context(), name, at[name], func(e v1.Event) error {
			if len(page.Events) == sel.limit || size >= pageBytes {
				page.More = true
				return errFull
			}
			size += len(e.Data)
			at[name] = e.Seq
			e.Cursor = at.String()
			page.Events = append(page.Events, e)
			return nil
		})
		if err != nil && !errors.Is(err, errFull) {
			return err
		}
		if page.More {
			break
		}
	}
	page.Next = at.String()
	return answer(w, http.StatusOK, page)
}

// stream sends events as they become durable (Server-Sent Events, WHATWG HTML § 9.2). Each id is the cursor after its event.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, sel *selection) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	events := make(chan v1.Event) // what a slow reader has not taken stays in the journals
	var followers sync.WaitGroup
	defer followers.Wait()
	defer cancel(nil)
	following := map[string]bool{}
	follow := func() error {
		names, err := s.cfg.Journals.Names(ctx)
		for _, name := range names {
			if following[name] || !sel.wants(name) {
				continue
			}
			following[name] = true
			after := sel.from[name]
			followers.Go(func() {
				err := s.cfg.Journals.Follow(ctx, name, after, func(e v1.Event) error {
					select {
					case events <- e:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				if err != nil && ctx.Err() == nil {
					cancel(fmt.Errorf("cannot follow journal %s: %w", name, err))
				}
			})
		}
		return err
	}
	if err := follow(); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	if _, err := fmt.Fprintf(w, "retry: 1000\n\n"); err != nil || out.Flush() != nil {
		return nil //nolint:nilerr // the client went away
	}
	beat, rescan := time.NewTicker(s.cfg.Heartbeat), time.NewTicker(s.cfg.Rescan)
	defer beat.Stop()
	defer rescan.Stop()
	at := sel.from
	for {
		var err error
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				s.cfg.Log.Error("a stream of events ended", "error", cause)
			}
			return nil
		case e := <-events:
			at[e.Journal] = e.Seq
			e.Cursor = at.String()
			err = send(w, e)
		case <-beat.C:
			_, err = fmt.Fprintf(w, ": %s\n\n", s.cfg.Now().UTC().Format(time.RFC3339))
		case <-rescan.C:
			if len(sel.journals) > 0 && len(following) == len(sel.journals) {
				rescan.Stop()
				continue
			}
			if err := follow(); err != nil {
				s.cfg.Log.Error("a stream of events ended", "error", err)
				return nil
			}
			continue
		}
		if err == nil && len(events) == 0 {
			err = out.Flush()
		}
		if err != nil {
			return nil //nolint:nilerr // the client went away
		}
	}
}

// send writes one event. JSON has no line breaks, so that one data line holds it.
func send(w http.ResponseWriter, e v1.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("cannot encode an event: %w", err)
	}
	_, err = fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.Cursor, e.Kind, data)
	return err
}
