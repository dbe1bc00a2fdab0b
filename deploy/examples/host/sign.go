// Signs who the user is, for your page to send to the gateway. Standard library only.
//
//	echo '{"format": "jwt", "claims": {"sub": "user_123"}}' | IDENTITY_SECRET=… go run sign.go
//
// Only for the user of your own login session: never an id that came from the page. One secret signs one format.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"
)

// UserHash is format hmac. It never expires: prefer UserToken where your client can carry one.
func UserHash(secret []byte, userID string) (string, error) {
	return hex.EncodeToString(mac(secret, userID)), signedIn(userID)
}

// KartaToken is format karta-v2: the user confirmed who they are, at this time and in this way, such as "mfa".
func KartaToken(secret []byte, userID string, steppedUpAt time.Time, aal string) (string, error) {
	payload := encoded(map[string]any{"user_id": userID, "stepped_up_at": steppedUpAt.Unix(), "aal": aal})
	return "v2." + payload + "." + hex.EncodeToString(mac(secret, payload)), signedIn(userID)
}

// UserToken is format jwt, HS256: the claims, with "sub" or "user_id" among them, good for a lifetime from now.
func UserToken(secret []byte, claims map[string]any, now time.Time, lifetime time.Duration) (string, error) {
	payload := map[string]any{}
	for name, value := range claims {
		payload[name] = value
	}
	payload["iat"], payload["exp"] = now.Unix(), now.Add(lifetime).Unix()
	userID, given := claims["user_id"]
	if !given {
		userID = claims["sub"]
	}
	signed := encoded(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + encoded(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac(secret, signed)), signedIn(userID)
}

// signedIn refuses what comes out where nobody is.
func signedIn(userID any) error {
	if text, _ := userID.(string); text == "" || text == "undefined" || text == "null" || text == "None" {
		return errors.New("nobody is signed in")
	}
	return nil
}

func mac(secret []byte, message string) []byte {
	key := hmac.New(sha256.New, secret)
	key.Write([]byte(message))
	return key.Sum(nil)
}

func encoded(value map[string]any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // a claim that JSON cannot say, such as a channel
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// A line of JSON in, a token out.
func main() {
	secret, lines := []byte(os.Getenv("IDENTITY_SECRET")), json.NewDecoder(os.Stdin)
	lines.UseNumber()
	for {
		asked := struct {
			Format, Aal string
			UserID      string `json:"user_id"`
			Claims      map[string]any
			Now         int64
		}{Now: time.Now().Unix()}
		if err := lines.Decode(&asked); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		now, token, err := time.Unix(asked.Now, 0), "", error(nil)
		switch asked.Format {
		case "hmac":
			token, err = UserHash(secret, asked.UserID)
		case "karta-v2":
			token, err = KartaToken(secret, asked.UserID, now, asked.Aal)
		default:
			token, err = UserToken(secret, asked.Claims, now, 5*time.Minute)
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(token)
	}
}
