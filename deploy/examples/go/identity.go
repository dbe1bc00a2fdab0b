package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Refused says why a request names nobody.
type Refused string

func (why Refused) Error() string { return string(why) }

// Identity is who is talking. What does not apply is empty. Told has every X-Identity-* header, decoded, by its name in lower
// case: "x-identity-tenant", "x-identity-origin", "x-identity-claimed-subject" …
type Identity struct {
	Level, Subject string
	Claims         map[string]any
	Told           map[string]string
	BodyDigest     string
}

var hasSubject = map[string]bool{"anonymous": false, "claimed": false, "verified": true, "stepped_up": true}

// read takes covered headers only, once the signature holds. An empty one does not apply: behind a forward-auth listener
// every name is there.
func read(covered map[string]string) (*Identity, error) {
	told := map[string]string{}
	for name, value := range covered {
		if !strings.HasPrefix(name, "x-identity-") || name == "x-identity-audience" {
			continue // not encoded
		}
		text, err := url.PathUnescape(value)
		if err != nil || !utf8.ValidString(text) {
			return nil, Refused("an identity header does not decode")
		}
		told[name] = text
	}
	who := Identity{Level: told["x-identity-level"], Subject: told["x-identity-subject"], Claims: map[string]any{}, Told: told}
	if claims := covered["x-identity-claims"]; claims != "" {
		text, err := base64.RawURLEncoding.DecodeString(claims)
		if err != nil || json.Unmarshal(text, &who.Claims) != nil {
			return nil, Refused("an identity header does not decode")
		}
	}
	for _, name := range required {
		if covered[name] == "" {
			return nil, Refused("a required header is empty")
		}
	}
	if has, known := hasSubject[who.Level]; !known || has != (who.Subject != "") {
		return nil, Refused("level and subject contradict each other")
	}
	who.BodyDigest = covered["content-digest"]
	return &who, nil
}

// Digest is the Content-Digest of a body (RFC 9530).
func Digest(body []byte) string {
	digest := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
}
