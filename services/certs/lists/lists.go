// Package lists serves revocation lists over HTTP, to whoever asks: they are public, and signed by the authority whose
// certificates they are about.
//
// No certificate names where its list is (RFC 5280 § 4.2.1.13): a peer that fetched it there could not do without the
// engine. Who wants to check fetches the list beforehand, and gives it to a program as a file.
package lists

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/gorilla/mux"
)

// ContentType is that of a list in DER (RFC 2585 § 4.2).
const ContentType = "application/pkix-crl"

// Source has the lists; certs.Service is one.
type Source interface {
	// CRL gives the list of a cluster's authority, in DER: of the cluster's intermediate if name is empty, of the site's root
	// if both are. It must make no authority, nor sign a list anew as long as the last one will do: anybody may ask, as often as
	// he likes. The error is fs.ErrNotExist where there is no such authority.
	CRL(ctx context.Context, cluster, name string) ([]byte, error)
}

// Handler answers GET and HEAD of /crl/{cluster} and /crl/{cluster}/{authority}, and of /crl, the root's. Its answers may be kept,
// but have to be asked for again each time (304 while nothing is new), so that a revocation is seen at once.
func Handler(source Source, log *slog.Logger) http.Handler {
	h := handler{source, log}
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	for _, path := range []string{"/crl", "/crl/{cluster}", "/crl/{cluster}/{authority}"} {
		r.HandleFunc(path, h.serve).Methods(http.MethodGet, http.MethodHead)
	}
	r.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "a revocation list can only be fetched", http.StatusMethodNotAllowed)
	})
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { none(w) })
	return r
}

type handler struct {
	source Source
	log    *slog.Logger
}

func (h handler) serve(w http.ResponseWriter, r *http.Request) {
	at := mux.Vars(r)
	list, err := h.source.CRL(r.Context(), at["cluster"], at["authority"])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		none(w)
		return
	case err != nil:
		h.log.Error("cannot serve a revocation list", "path", r.URL.Path, "error", err)
		http.Error(w, "the list cannot be made; the engine's log says why", http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(list)
	header := w.Header()
	header.Set("Content-Type", ContentType)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "public, no-cache")
	header.Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	// No time of change: two lists of one second would pass for the same.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(list))
}

func none(w http.ResponseWriter) {
	http.Error(w, "there is no such list: no cluster has an authority of this name, or the cluster is gone and its authorities with it", http.StatusNotFound)
}
