package main

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"testing"
)

type vector struct {
	Name, Method, Path string
	Query              *string
	Now                int64
	Headers            [][2]string
	Body               []byte  `json:"body_base64"`
	Key                *[]byte `json:"key_base64"`
	Accepted           *accepted
	Refused            string
}

type accepted struct {
	Level, Tenant  string
	Subject        *string
	ClaimedSubject *string `json:"claimed_subject"`
	Claims         map[string]any
}

// Runs ../vectors.json through this verifier: go test
func TestVectors(t *testing.T) {
	var vectors struct {
		KeyID    string `json:"key_id"`
		Key      []byte `json:"key_base64"`
		Audience string
		Mapped   []string
		Requests []vector
	}
	text, err := os.ReadFile("../vectors.json")
	if err == nil {
		err = json.Unmarshal(text, &vectors)
	}
	if err != nil || len(vectors.Requests) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, one := range vectors.Requests {
		v := Verifier{KeyID: vectors.KeyID, Key: vectors.Key, Audience: vectors.Audience, Mapped: vectors.Mapped}
		if one.Key != nil {
			v.Key = *one.Key
		}
		told, why := judge(&v, one)
		if why != one.Refused || !reflect.DeepEqual(told, one.Accepted) {
			t.Errorf("%s: %q, %+v", one.Name, why, told)
		}
	}
	t.Logf("%d vectors", len(vectors.Requests))
}

func judge(v *Verifier, one vector) (*accepted, string) {
	request := &http.Request{Method: one.Method, RequestURI: one.Path, Header: http.Header{}}
	if one.Query != nil {
		request.RequestURI += "?" + *one.Query
	}
	for _, header := range one.Headers {
		value := []byte{} // one byte a character
		for _, c := range header[1] {
			value = append(value, byte(c))
		}
		request.Header.Add(header[0], string(value))
	}
	who, err := v.Head(request, one.Now)
	if err == nil && who.BodyDigest != "" && who.BodyDigest != Digest(one.Body) {
		err = Refused("the body is not the one that was signed")
	}
	if err != nil {
		return nil, err.Error()
	}
	told := accepted{who.Level, who.Told["x-identity-tenant"], nil, nil, who.Claims}
	if who.Subject != "" {
		told.Subject = &who.Subject
	}
	if claimed := who.Told["x-identity-claimed-subject"]; claimed != "" {
		told.ClaimedSubject = &claimed
	}
	return &told, ""
}
