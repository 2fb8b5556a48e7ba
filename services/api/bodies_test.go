package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "joist/services/api/v1"
)

// slow counts how many plans are made at once, each for two minutes.
type slow struct {
	fakeClusters
	mu        sync.Mutex
	now, most int
}

func (s *slow) Preview(context.Context, v1.Apply) (*v1.Plan, error) {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	time.Sleep(2 * time.Minute)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	return &v1.Plan{}, nil
}

// declaration is one of a size, in bytes.
func declaration(size int) string {
	body := `{"file_name":"a","file":"YQ=="}`
	return body + strings.Repeat(" ", size-len(body))
}

func slowServer(t *testing.T) (*Server, *slow) {
	f := newFake()
	clusters := &slow{fakeClusters: fakeClusters{f}}
	s, err := New(Config{
		Clusters: clusters, Instances: clusters, Changes: fakeClusters{f}, Machines: fakeMachines{f}, Journals: f, MaxBody: 1 << 20, MaxBodies: 2 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, clusters
}

// TestLargeBodiesTogether: no more bytes of bodies are held at once than is said; small requests do not wait for large ones, and who
// cannot be let in is told when to come again.
func TestLargeBodiesTogether(t *testing.T) {
	for name, c := range map[string]struct {
		size, requests int
		streamed       bool // its length is not stated
		most, refused  int
	}{
		"all have room":          {1 << 19, 4, false, 4, 0},
		"two have room":          {1 << 20, 8, false, 2, 2}, // two later, two later still, and then it is too late
		"of unknown length":      {1 << 10, 4, true, 2, 0},
		"small ones":             {maxSmall, 100, false, 100, 0},
		"more than may wait":     {1 << 20, maxWaiting + 10, false, 2, maxWaiting + 10 - 6},
		"larger than any may be": {1<<20 + 1, 3, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, clusters := slowServer(t)
				text := declaration(c.size)
				answers := make(chan *httptest.ResponseRecorder, c.requests)
				for range c.requests {
					var body io.Reader = strings.NewReader(text)
					if c.streamed {
						body = io.MultiReader(body)
					}
					r := httptest.NewRequest(http.MethodPost, "/v1/plan", body)
					go func() {
						w := httptest.NewRecorder()
						s.ServeHTTP(w, r)
						answers <- w
					}()
				}
				refused := 0
				for range c.requests {
					switch w := <-answers; {
					case w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") != "":
						refused++
					case w.Code != http.StatusOK && (c.most > 0 || w.Code != http.StatusRequestEntityTooLarge):
						t.Errorf("%d %s", w.Code, w.Body)
					}
				}
				if clusters.most != c.most || refused != c.refused {
					t.Errorf("%d at once, %d refused, want %d and %d", clusters.most, refused, c.most, c.refused)
				}
			})
		})
	}
}

// TestLargeBodyGivesUp: who goes away while it waits leaves no trace.
func TestLargeBodyGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := slowServer(t)
		done := make(chan int, 3)
		post := func(ctx context.Context) {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/plan", strings.NewReader(declaration(1<<20))))
			done <- w.Code
		}
		go post(t.Context())
		go post(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go post(ctx)
		if code := <-done; code != http.StatusServiceUnavailable || len(done) != 0 {
			t.Errorf("%d, and %d are served before", code, len(done))
		}
		<-done
		<-done
		if s.bodies.waiting.Load() != 0 || !s.bodies.room.TryAcquire(2<<20) {
			t.Error("some room was not given back")
		}
	})
}

// TestLargeRoutes: only routes whose bodies are counted take large ones.
func TestLargeRoutes(t *testing.T) {
	s := newServer(t, newFake())
	for _, r := range s.routes() {
		if r.Method == http.MethodGet || r.Method == http.MethodHead || strings.Contains(r.Path, "artifacts") {
			continue // those stream
		}
		target := strings.NewReplacer("{cluster}", "demo", "{machine}", "n1", "{set}", "winter").Replace(r.Path)
		w := ask(s, r.Method, target, strings.Repeat(" ", 1<<20))
		if over := w.Code == http.StatusBadRequest; over != r.large {
			t.Errorf("%s %s reads a large body: %v, which is counted: %v (%d %s)", r.Method, r.Path, over, r.large, w.Code, w.Body)
		}
	}
}
