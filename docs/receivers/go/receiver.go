// Receives webhooks: verifies, drops duplicates and stale news, fills gaps.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type Event struct {
	Type     string
	Sequence int64
	Epoch    int64
	Data     struct{ Payment *Payment }
}

// Received came as a webhook, or stands in the event log.
type Received struct {
	ID   string // The webhook-id.
	Body Event
}

type Payment struct {
	ID, Status string
	Version    int64
}

const never = time.Duration(math.MaxInt64)

var (
	started = time.Now()
	gap     = 60 * time.Second
	inbox   = make(chan Received, 10_000) // Make it a table of your database.

	// Keep all of this in your database, changed in one transaction with what you do about an event.
	seen     = map[string]bool{}
	payments = map[string]Payment{}
	epoch    int64
	after    int64 // You have every event up to after, and those in ahead.
	ahead    = map[int64]bool{}
	fetchAt  = never
)

func receiver(webhook *standardwebhooks.Webhook) http.HandlerFunc {
	return func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(answer, request.Body, 64<<10))
		received := Received{ID: request.Header.Get("webhook-id")}
		// The bytes as they came, not JSON written anew.
		if err != nil || webhook.Verify(body, request.Header) != nil || json.Unmarshal(body, &received.Body) != nil {
			answer.WriteHeader(http.StatusBadRequest)
			return
		}
		select {
		case inbox <- received:
			answer.WriteHeader(http.StatusNoContent) // At once; the work is done later.
		default:
			answer.WriteHeader(http.StatusServiceUnavailable)
		}
	}
}

func handle(id string, event Event) {
	if seen[id] {
		fmt.Println("duplicate", id)
		return
	}
	seen[id] = true
	if event.Epoch > epoch { // The first event of all, or numbers begin again after a restore.
		epoch, after, ahead = event.Epoch, event.Sequence-1, map[int64]bool{}
	}
	if event.Sequence > 0 && event.Epoch == epoch { // Notices have none.
		ahead[event.Sequence] = true
		advance(after)
	}
	payment := event.Data.Payment
	if payment == nil {
		fmt.Println(event.Type, id)
	} else if payments[payment.ID].Version >= payment.Version {
		fmt.Println("stale", payment.ID, payment.Version)
	} else {
		payments[payment.ID] = *payment
		fmt.Println(event.Type, payment.ID, payment.Status, payment.Version)
	}
}

func advance(to int64) {
	after = max(after, to)
	for ahead[after+1] {
		after++
	}
	for sequence := range ahead {
		if sequence <= after {
			delete(ahead, sequence)
		}
	}
	if len(ahead) == 0 {
		fetchAt = never
	} else {
		fetchAt = min(fetchAt, time.Since(started)+gap)
	}
}

func fillGap() error {
	before := after
	fetchAt = time.Since(started) + gap // When this fails, again then.
	var page struct {
		Data           []Received
		ScannedThrough int64 `json:"scanned_through"`
	}
	if err := get("?after="+strconv.FormatInt(after, 10), &page); err != nil {
		return err
	}
	for _, event := range page.Data {
		handle(event.ID, event.Body)
	}
	advance(page.ScannedThrough) // Also past events of types that this endpoint does not get.
	if len(ahead) > 0 && after > before {
		fetchAt = 0
	}
	return nil
}

// Signed as RFC 9421 says.
func get(query string, into any) error {
	target, err := url.Parse(os.Getenv("WIRED_URL") + "/v1/events" + query)
	if err != nil {
		return err
	}
	params := fmt.Sprintf(`("@method" "@authority" "@path" "@query");created=%d;keyid="%s"`, time.Now().Unix(), os.Getenv("WIRED_KEY_ID"))
	base := fmt.Sprintf("\"@method\": GET\n\"@authority\": %s\n\"@path\": %s\n\"@query\": %s\n\"@signature-params\": %s", target.Host, target.Path, query, params)
	key, err := base64.StdEncoding.DecodeString(os.Getenv("WIRED_KEY_SECRET"))
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(base))
	request := http.Request{Method: "GET", URL: target, Header: http.Header{
		"Signature-Input": {"sig=" + params},
		"Signature":       {"sig=:" + base64.StdEncoding.EncodeToString(mac.Sum(nil)) + ":"},
	}}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Do(&request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func main() {
	if seconds, err := strconv.ParseFloat(os.Getenv("GAP_SECONDS"), 64); err == nil {
		gap = time.Duration(seconds * float64(time.Second))
	}
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("WIRED_WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.ListenAndServe(os.Getenv("WIRED_WEBHOOK_LISTEN"), receiver(webhook))) }()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case received := <-inbox:
			handle(received.ID, received.Body)
		case <-tick.C:
		}
		if time.Since(started) >= fetchAt {
			if err := fillGap(); err != nil {
				fmt.Println("the event log:", err)
			}
		}
	}
}
