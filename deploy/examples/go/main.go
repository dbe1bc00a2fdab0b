// net/http behind Doorward: the middleware, and a server that says who is talking.
//
//	DOORWARD_ASSERTION_KEY=… go run . 127.0.0.1:3000
//
// A request that the gateway did not sign is answered 401 and reaches no handler. A body is held here only where its digest
// was signed, up to MaxBody; any other streams through as it comes. What must answer without the gateway (a health check) is
// not wrapped.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

// MaxBody is the largest body that is held: the gateway's server.body_hold.
const MaxBody = 1 << 20

type identityKey struct{}

// Who is talking, in a handler that Middleware wraps.
func Who(r *http.Request) *Identity { return r.Context().Value(identityKey{}).(*Identity) }

// Middleware lets only requests through that the gateway signed. Wrap what strips prefixes, not the other way round.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := v.Head(r, time.Now().Unix())
		if err != nil {
			refuse(w, http.StatusUnauthorized, err)
			return
		}
		if who.BodyDigest != "" {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
			var long *http.MaxBytesError
			switch {
			case errors.As(err, &long):
				refuse(w, http.StatusRequestEntityTooLarge, err)
				return
			case err != nil || Digest(body) != who.BodyDigest:
				refuse(w, http.StatusUnauthorized, Refused("the body is not the one that was signed"))
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
	})
}

func refuse(w http.ResponseWriter, status int, why error) {
	answer(w, status, map[string]any{"refused": why.Error()})
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}

func whoami(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	who := Who(r)
	var subject *string
	if who.Subject != "" {
		subject = &who.Subject
	}
	tenant := who.Told["x-identity-tenant"]
	told := map[string]any{"level": who.Level, "tenant": tenant, "subject": subject, "claims": who.Claims, "bytes": size}
	answer(w, http.StatusOK, told)
}

func main() {
	key := []byte(os.Getenv("DOORWARD_ASSERTION_KEY"))
	verifier := &Verifier{KeyID: "a1", Audience: "agent", Key: key, Mapped: []string{"X-User-Email"}}
	server := &http.Server{
		Addr:              os.Args[1],
		Handler:           verifier.Middleware(http.HandlerFunc(whoami)),
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}
