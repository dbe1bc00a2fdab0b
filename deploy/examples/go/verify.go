package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

const skew, maxLifetime = 5, 60 // seconds: of clock difference that are forgiven, and of a signature's life

// The one way in which the gateway writes it; another label, or a second one, does not match.
var input = regexp.MustCompile(`^doorward=(\("([a-z0-9@-]+(?:" "[a-z0-9@-]+)*)"\);created=([0-9]{1,12});expires=([0-9]{1,12})` +
	`;nonce="[A-Za-z0-9_-]+";keyid="([A-Za-z0-9_.-]+)";alg="hmac-sha256";tag="doorward")$`)
var signature = regexp.MustCompile(`^doorward=:([A-Za-z0-9+/]{43}=):$`)
var separator = regexp.MustCompile(`[^a-z0-9]`)
var required = []string{"x-identity-level", "x-identity-tenant", "x-identity-audience", "x-identity-request-id"}

// Verifier is what a backend is configured with. Mapped: names of [upstream.headers] that it reads.
type Verifier struct {
	KeyID, Audience string
	Key             []byte
	Mapped          []string
}

// Head reads who is talking from a request that Doorward signed, at a time in Unix seconds. It refuses what is not exactly
// what the gateway signs (RFC 9421), and every identity header that the signature does not cover: read identity from its
// answer and from nowhere else. Where that has a BodyDigest, compare it with Digest of the body before you believe it.
func (v *Verifier) Head(r *http.Request, now int64) (*Identity, error) {
	path, query, _ := strings.Cut(r.RequestURI, "?") // as in the request line: r.URL.Path is decoded
	values := map[string][]string{"@method": {r.Method}, "@path": {path}, "@query": {"?" + query}}
	for name := range r.Header {
		values[strings.ToLower(name)] = r.Header[name]
	}
	for _, name := range []string{"signature-input", "signature"} {
		if len(values[name]) != 1 {
			return nil, Refused(name + " is missing or was sent twice")
		}
	}
	signed := input.FindStringSubmatch(values["signature-input"][0])
	mac := signature.FindStringSubmatch(values["signature"][0])
	if signed == nil || mac == nil {
		return nil, Refused("not the gateway's signature")
	}
	names, covered := strings.Split(signed[2], `" "`), map[string]bool{}
	for _, name := range names {
		covered[name] = true
	}
	for _, name := range append([]string{"@method", "@path", "@query"}, required...) {
		if !covered[name] || len(covered) != len(names) {
			return nil, Refused("a required component is not covered")
		}
	}
	created, _ := strconv.ParseInt(signed[3], 10, 64) // twelve digits fit
	expires, _ := strconv.ParseInt(signed[4], 10, 64)
	if signed[5] != v.KeyID || len(v.Key) == 0 {
		return nil, Refused("an unknown key")
	}
	if now < created-skew || now > expires+skew || expires <= created || expires > created+maxLifetime {
		return nil, Refused("expired, or signed in the future")
	}
	for name := range values {
		if v.identifies(name) && !covered[name] {
			return nil, Refused("an identity header is not covered")
		}
	}
	base, told := "", map[string]string{}
	for _, name := range names {
		if len(values[name]) != 1 {
			return nil, Refused(name + " is missing or was sent twice")
		}
		told[name] = values[name][0]
		base += `"` + name + `": ` + told[name] + "\n"
	}
	expected := hmac.New(sha256.New, v.Key)
	expected.Write([]byte(base + `"@signature-params": ` + signed[1]))
	if !hmac.Equal([]byte(mac[1]), []byte(base64.StdEncoding.EncodeToString(expected.Sum(nil)))) {
		return nil, Refused("the signature does not match")
	}
	if told["x-identity-audience"] != v.Audience {
		return nil, Refused("made for another audience")
	}
	return read(told)
}

// identifies says whether a backend could read who is talking from this header, in any spelling.
func (v *Verifier) identifies(name string) bool {
	fold := func(name string) string { return separator.ReplaceAllString(strings.ToLower(name), "") }
	folded := fold(name)
	for _, mapped := range v.Mapped {
		if folded == fold(mapped) {
			return true
		}
	}
	return strings.HasPrefix(folded, "xidentity") || strings.HasPrefix(folded, "xdoorward")
}
