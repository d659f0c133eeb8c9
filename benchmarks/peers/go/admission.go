package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	amountMax   = 99_999_999_999
	metadataMax = 20
)

// request is the body of POST /v1/payments; null is the same as absent.
type request struct {
	Amount            *int64             `json:"amount"`
	Currency          *string            `json:"currency"`
	PaymentMethod     *string            `json:"payment_method"`
	Capture           *string            `json:"capture"`
	PSP               *string            `json:"psp"`
	CustomerID        *string            `json:"customer_id"`
	Description       *string            `json:"description"`
	ReturnURL         *string            `json:"return_url"`
	Metadata          map[string]*string `json:"metadata"`
	PaymentCheckoutID *string            `json:"payment_checkout_id"`
}

type problem struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

var rules = map[string]string{
	"amount":              fmt.Sprintf("must be an integer number of minor units, 1 to %d", amountMax),
	"currency":            "must be an ISO 4217 alphabetic code in upper case",
	"payment_method":      "must be a PSP's token, a string of 1 to 255 characters",
	"capture":             `must be "automatic" or "manual"`,
	"psp":                 "must name a PSP that is configured here",
	"customer_id":         "must be a string of at most 64 characters",
	"description":         "must be a string of at most 500 characters",
	"return_url":          "must be a string of at most 2048 characters",
	"metadata":            "must be at most 20 pairs of strings, keys up to 40 and values up to 500 characters",
	"payment_checkout_id": "must equal the X-PAYMENT-CHECKOUT-ID header",
}

const (
	unknownRule    = "is not a field of a payment"
	duplicateRule  = "holds a key more than once"
	cardRule       = "holds a card number; send the PSP's token in its place"
	cardKeyRule    = "is card data, which is not taken here; send the PSP's token in its place"
	nulRule        = "holds a NUL character"
	checkoutIDRule = "must be 8 to 64 of A-Z, a-z, 0-9, _ and -"
)

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z_.-]{0,39}$`)

func isCheckoutID(id string) bool {
	if len(id) < 8 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !isDigit(c) && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// admit decides over the body and the id in the header together. It lists every wrong field.
func admit(body []byte, checkoutID string) (*request, []problem) {
	var problems []problem
	if !isCheckoutID(checkoutID) {
		problems = append(problems, problem{"X-PAYMENT-CHECKOUT-ID", checkoutIDRule})
	} else if holdsCardNumber(checkoutID) {
		problems = append(problems, problem{"X-PAYMENT-CHECKOUT-ID", cardRule})
	}
	var r request
	if err := json.Unmarshal(body, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, append(problems, readProblems(body, checkoutID)...)
	}
	problems = append(problems, r.problems(checkoutID)...)
	if len(problems) > 0 {
		return nil, problems
	}
	return &r, nil
}

func (r *request) problems(checkoutID string) (found []problem) {
	wrong := func(field, rule string) { found = append(found, problem{field, rule}) }
	check := func(field string, value *string, required bool, least, most int) {
		switch {
		case value == nil && !required:
		case value == nil:
			wrong(field, "is required and "+rules[field])
		case utf8.RuneCountInString(*value) < least || utf8.RuneCountInString(*value) > most:
			wrong(field, rules[field])
		default:
			if rule := textProblem(*value); rule != "" {
				wrong(field, rule)
			}
		}
	}
	switch {
	case r.Amount == nil:
		wrong("amount", "is required and "+rules["amount"])
	case *r.Amount < 1 || *r.Amount > amountMax:
		wrong("amount", rules["amount"])
	}
	if r.Currency == nil {
		wrong("currency", "is required and "+rules["currency"])
	} else if _, known := currencies[*r.Currency]; !known {
		wrong("currency", rules["currency"])
	}
	check("payment_method", r.PaymentMethod, true, 1, 255)
	if r.Capture != nil && *r.Capture != "automatic" && *r.Capture != "manual" {
		wrong("capture", rules["capture"])
	}
	if r.PSP != nil && *r.PSP != "simulator" {
		wrong("psp", rules["psp"])
	}
	check("customer_id", r.CustomerID, false, 0, 64)
	check("description", r.Description, false, 0, 500)
	check("return_url", r.ReturnURL, false, 0, 2048)
	if r.PaymentCheckoutID != nil && *r.PaymentCheckoutID != checkoutID {
		wrong("payment_checkout_id", rules["payment_checkout_id"])
	}
	if rule := metadataProblem(r.Metadata); rule != "" {
		wrong("metadata", rule)
	}
	return found
}

func metadataProblem(metadata map[string]*string) string {
	if len(metadata) > metadataMax {
		return rules["metadata"]
	}
	for key, value := range metadata {
		if value == nil || utf8.RuneCountInString(key) > 40 || utf8.RuneCountInString(*value) > 500 {
			return rules["metadata"]
		}
		if isCardKey(key) {
			return cardKeyRule
		}
		for _, text := range []string{key, *value} {
			if rule := textProblem(text); rule != "" {
				return rule
			}
		}
	}
	return ""
}

func isCardKey(key string) bool {
	return len(key) == 3 && slices.Contains([]string{"cvv", "cvc", "pan"}, strings.ToLower(key))
}

func textProblem(text string) string {
	if strings.IndexByte(text, 0) >= 0 {
		return nulRule
	}
	if holdsCardNumber(text) {
		return cardRule
	}
	return ""
}

// readProblems reads a refused body again, member by member, to name all that is wrong and not only the first.
func readProblems(body []byte, checkoutID string) (found []problem) {
	decoder := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true))
	notJSON := []problem{{"body", "is not valid JSON in UTF-8"}}
	if decoder.PeekKind() != '{' {
		if _, err := decoder.ReadValue(); err != nil {
			return notJSON
		}
		return []problem{{"body", "must be a JSON object"}}
	}
	_, _ = decoder.ReadToken()
	seen := map[string]bool{}
	for decoder.PeekKind() == '"' {
		token, err := decoder.ReadToken()
		if err != nil {
			return notJSON
		}
		name := token.String()
		value, err := decoder.ReadValue()
		if err != nil {
			return notJSON
		}
		if rule := memberProblem(name, value, seen[name], checkoutID); rule != "" {
			found = append(found, problem{printable(name), rule})
		}
		seen[name] = true
	}
	if _, err := decoder.ReadToken(); err != nil {
		return notJSON
	}
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return notJSON
	}
	for _, name := range []string{"amount", "currency", "payment_method"} {
		if !seen[name] {
			found = append(found, problem{name, "is required and " + rules[name]})
		}
	}
	return found
}

func memberProblem(name string, value jsontext.Value, seen bool, checkoutID string) string {
	var alone request
	member := slices.Concat([]byte("{"), mustQuote(name), []byte(":"), value, []byte("}"))
	switch err := json.Unmarshal(member, &alone); {
	case seen:
		return "appears more than once"
	case isCardKey(name):
		return cardKeyRule
	case rules[name] == "":
		return unknownRule
	case err != nil && name == "metadata" && strings.Contains(err.Error(), "duplicate"):
		return duplicateRule
	case err != nil:
		return rules[name]
	}
	for _, wrong := range alone.problems(checkoutID) {
		if wrong.Field == name {
			return wrong.Message
		}
	}
	return ""
}

func mustQuote(name string) []byte {
	quoted, err := jsontext.AppendQuote(nil, name)
	if err != nil {
		return []byte(`""`)
	}
	return quoted
}

// printable is the name of a field that the client made up, when repeating it can't repeat a number.
func printable(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return "(a field whose name is not repeated)"
}

// fingerprint is the SHA-256 of what was asked for: null = absent, capture filled in, the repeated id left out, sorted.
func (r *request) fingerprint() [32]byte {
	content := struct {
		Amount        int64              `json:"amount"`
		Capture       string             `json:"capture"`
		Currency      string             `json:"currency"`
		CustomerID    *string            `json:"customer_id,omitzero"`
		Description   *string            `json:"description,omitzero"`
		Metadata      map[string]*string `json:"metadata,omitzero"`
		PaymentMethod string             `json:"payment_method"`
		PSP           *string            `json:"psp,omitzero"`
		ReturnURL     *string            `json:"return_url,omitzero"`
	}{*r.Amount, r.capture(), *r.Currency, r.CustomerID, r.Description, r.Metadata, *r.PaymentMethod, r.PSP, r.ReturnURL}
	canonical, err := json.Marshal(&content, json.Deterministic(true))
	if err != nil {
		panic(err) // strings that were just read as valid UTF-8
	}
	return sha256.Sum256(canonical)
}

func (r *request) capture() string {
	if r.Capture == nil {
		return "automatic"
	}
	return *r.Capture
}

// metadata in a stable order: Go's maps have none.
func (r *request) metadata() []entry {
	entries := make([]entry, 0, len(r.Metadata))
	for _, key := range slices.Sorted(maps.Keys(r.Metadata)) {
		entries = append(entries, entry{key, *r.Metadata[key]})
	}
	return entries
}
