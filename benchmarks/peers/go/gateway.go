package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/go-json-experiment/json"
)

const bodyMax = 64 << 10

type gateway struct {
	store      *store
	merchants  map[[32]byte]string // SHA-256 of a secret key → merchant
	signingKey []byte
	waiters    sync.Pool
}

func newGateway(apiKey, merchant, signingKey string) *gateway {
	return &gateway{
		merchants:  map[[32]byte]string{sha256.Sum256([]byte(apiKey)): merchant},
		signingKey: []byte(signingKey),
		waiters:    sync.Pool{New: func() any { return make(chan result, 1) }},
	}
}

func (g *gateway) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/payments", g.create)
	mux.HandleFunc("GET /v1/payments/{id}", g.read)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if g.store.broken.Load() {
			refuse(w, http.StatusServiceUnavailable, "not_ready", "The store failed.")
			return
		}
		_, _ = io.WriteString(w, `{"status":"ready"}`)
	})
	return mux
}

func (g *gateway) merchant(r *http.Request) (string, bool) {
	key, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	merchant, known := g.merchants[sha256.Sum256([]byte(key))]
	return merchant, isBearer && known
}

func (g *gateway) clientSecret(merchant, checkoutID string) string {
	mac := hmac.New(sha256.New, g.signingKey)
	_, _ = io.WriteString(mac, merchant+"/"+checkoutID)
	return merchant + "-" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (g *gateway) create(w http.ResponseWriter, r *http.Request) {
	merchant, known := g.merchant(r)
	if !known {
		refuse(w, http.StatusUnauthorized, "unauthorized", "The secret key is missing or not known.")
		return
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "unsupported_media_type", "Send application/json.")
		return
	}
	ids := r.Header.Values("X-PAYMENT-CHECKOUT-ID")
	if len(ids) != 1 {
		refuse(w, http.StatusBadRequest, "missing_checkout_id", "Send X-PAYMENT-CHECKOUT-ID once.")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "content_too_large", "A body has at most 64 KiB.")
		return
	}
	asked, problems := admit(body, ids[0])
	if problems != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", "The request is not a payment.", problems...)
		return
	}
	g.accept(w, asked, merchant, ids[0])
}

func (g *gateway) accept(w http.ResponseWriter, asked *request, merchant, checkoutID string) {
	fingerprint := asked.fingerprint()
	p := newPayment(asked, merchant, checkoutID, fingerprint[:], time.Now())
	done := g.waiters.Get().(chan result)
	a := &acceptance{paymentKey(merchant, checkoutID), p.encode(), fingerprint[:], done}
	got, err := g.store.submit(a)
	g.waiters.Put(done)
	switch {
	case errors.Is(err, errOverloaded):
		refuse(w, http.StatusServiceUnavailable, "overloaded", "Retry with the same id.")
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, "not_ready", "Retry with the same id.")
	case got.outcome == conflicted:
		refuse(w, http.StatusUnprocessableEntity, "idempotency_key_reused", "This id was used for another payment.")
	case got.outcome == replayed:
		if p, err = decodePayment(got.record); err != nil {
			refuse(w, http.StatusServiceUnavailable, "not_ready", "Retry with the same id.")
			return
		}
		w.Header().Set("Idempotent-Replayed", "true")
		g.answer(w, http.StatusOK, p, false)
	default:
		w.Header().Set("Location", "/v1/payments/"+checkoutID)
		g.answer(w, http.StatusAccepted, p, false)
	}
}

func (g *gateway) read(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	merchant, known := g.merchant(r)
	browser := false
	if secret := r.URL.Query().Get("client_secret"); !known && secret != "" {
		merchant, _, _ = strings.Cut(secret, "-")
		known = hmac.Equal([]byte(secret), []byte(g.clientSecret(merchant, id)))
		browser = true
	}
	if !known {
		refuse(w, http.StatusUnauthorized, "unauthorized", "The secret key is missing or not known.")
		return
	}
	record, err := g.store.get(paymentKey(merchant, id))
	if errors.Is(err, pebble.ErrNotFound) {
		refuse(w, http.StatusNotFound, "not_found", "There is no such payment.")
		return
	}
	var p *payment
	if err == nil {
		p, err = decodePayment(record)
	}
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "not_ready", "Try again.")
		return
	}
	header := w.Header()
	header.Set("ETag", `"0"`)
	header.Set("Cache-Control", "no-store")
	if r.Header.Get("If-None-Match") == `"0"` {
		header.Set("Retry-After", "2")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	g.answer(w, http.StatusOK, p, browser)
}

func (g *gateway) answer(w http.ResponseWriter, status int, p *payment, browser bool) {
	body := p.document(make([]byte, 0, 1024), g.clientSecret(p.merchant, p.checkoutID), browser)
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Retry-After", "2")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func refuse(w http.ResponseWriter, status int, code, detail string, problems ...problem) {
	body, _ := json.Marshal(struct {
		Type   string    `json:"type"`
		Title  string    `json:"title"`
		Status int       `json:"status"`
		Detail string    `json:"detail"`
		Code   string    `json:"code"`
		Errors []problem `json:"errors,omitempty"`
	}{"about:blank", http.StatusText(status), status, detail, code, problems})
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
