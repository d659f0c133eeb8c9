package main

import (
	"errors"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protowire"
)

type entry struct{ key, value string }

// payment is the stored record: the fields of proto/tollgate/v1/payment.proto that an acceptance fills.
type payment struct {
	merchant, checkoutID         string
	amount                       int64
	currency, capture            string
	paymentMethod, psp           string
	customerID, description, url string
	metadata                     []entry
	fingerprint                  []byte
	createdAtUs                  int64
}

const (
	fieldMerchant protowire.Number = iota + 1
	fieldCheckoutID
	fieldStatus
	fieldVersion
	fieldAmount
	fieldCurrency
	fieldCapture
	fieldPaymentMethod
	fieldPSP
	fieldCustomerID
	fieldDescription
	fieldReturnURL
	fieldMetadata
	fieldFingerprint
	fieldTraceparent
	fieldCreatedAt
	fieldUpdatedAt
	fieldExpiresAt
)

const (
	statusPending    = 1
	captureAutomatic = 1
	captureManual    = 2
	expiresAfter     = time.Hour
)

func newPayment(r *request, merchant, checkoutID string, fingerprint []byte, now time.Time) *payment {
	return &payment{
		merchant: merchant, checkoutID: checkoutID, amount: *r.Amount, currency: *r.Currency, capture: r.capture(),
		paymentMethod: *r.PaymentMethod, psp: "simulator", customerID: orEmpty(r.CustomerID),
		description: orEmpty(r.Description), url: orEmpty(r.ReturnURL), metadata: r.metadata(),
		fingerprint: fingerprint, createdAtUs: now.UnixMicro(),
	}
}

func orEmpty(value *string) string {
	if value == nil {
		return ""
	}
	return *value
}

func appendText(b []byte, field protowire.Number, value string) []byte {
	if value == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func appendNumber(b []byte, field protowire.Number, value int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(value))
}

func (p *payment) encode() []byte {
	capture := int64(captureAutomatic)
	if p.capture == "manual" {
		capture = captureManual
	}
	b := make([]byte, 0, 512)
	b = appendText(b, fieldMerchant, p.merchant)
	b = appendText(b, fieldCheckoutID, p.checkoutID)
	b = appendNumber(b, fieldStatus, statusPending)
	b = appendNumber(b, fieldAmount, p.amount)
	b = appendText(b, fieldCurrency, p.currency)
	b = appendNumber(b, fieldCapture, capture)
	b = appendText(b, fieldPaymentMethod, p.paymentMethod)
	b = appendText(b, fieldPSP, p.psp)
	b = appendText(b, fieldCustomerID, p.customerID)
	b = appendText(b, fieldDescription, p.description)
	b = appendText(b, fieldReturnURL, p.url)
	for _, pair := range p.metadata {
		inner := appendText(appendText(nil, 1, pair.key), 2, pair.value)
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldMetadata, protowire.BytesType), inner)
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldFingerprint, protowire.BytesType), p.fingerprint)
	b = appendNumber(b, fieldCreatedAt, p.createdAtUs)
	b = appendNumber(b, fieldUpdatedAt, p.createdAtUs)
	return appendNumber(b, fieldExpiresAt, p.createdAtUs+expiresAfter.Microseconds())
}

var errCorrupt = errors.New("a stored record can't be read")

// eachField calls visit with every field of an encoded message.
func eachField(b []byte, visit func(field protowire.Number, number uint64, value []byte) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errCorrupt
		}
		b = b[n:]
		var number uint64
		var value []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		default:
			return errCorrupt
		}
		if n < 0 {
			return errCorrupt
		}
		b = b[n:]
		if err := visit(field, number, value); err != nil {
			return err
		}
	}
	return nil
}

func decodePayment(b []byte) (*payment, error) {
	p := &payment{capture: "automatic"}
	err := eachField(b, func(field protowire.Number, number uint64, value []byte) error {
		switch field {
		case fieldMerchant:
			p.merchant = string(value)
		case fieldCheckoutID:
			p.checkoutID = string(value)
		case fieldAmount:
			p.amount = int64(number)
		case fieldCurrency:
			p.currency = string(value)
		case fieldCapture:
			if number == captureManual {
				p.capture = "manual"
			}
		case fieldPSP:
			p.psp = string(value)
		case fieldCustomerID:
			p.customerID = string(value)
		case fieldDescription:
			p.description = string(value)
		case fieldMetadata:
			var pair entry
			err := eachField(value, func(field protowire.Number, _ uint64, text []byte) error {
				if field == 1 {
					pair.key = string(text)
				} else {
					pair.value = string(text)
				}
				return nil
			})
			p.metadata = append(p.metadata, pair)
			return err
		case fieldFingerprint:
			p.fingerprint = append([]byte(nil), value...)
		case fieldCreatedAt:
			p.createdAtUs = int64(number)
		}
		return nil
	})
	return p, err
}

// document appends the payment as a client sees it. A browser's view has neither metadata nor customer.
func (p *payment) document(b []byte, clientSecret string, browser bool) []byte {
	at := time.UnixMicro(p.createdAtUs).UTC().Format("2006-01-02T15:04:05.000000Z")
	b = appendMember(append(b, '{'), "payment_checkout_id", p.checkoutID)
	b = append(b, `,"status":"pending","amount":`...)
	b = appendInt(b, p.amount)
	b = appendMember(append(b, ','), "currency", p.currency)
	b = append(b, `,"captured_amount":0,"refunded_amount":0`...)
	b = appendMember(append(b, ','), "capture", p.capture)
	b = append(b, `,"version":0`...)
	b = appendMember(append(b, ','), "psp", p.psp)
	b = append(b, `,"psp_reference":null,"risk_score":null,"failure":null,"next_action":null`...)
	if !browser {
		b = appendOptional(append(b, ','), "customer_id", p.customerID)
	}
	b = appendOptional(append(b, ','), "description", p.description)
	if !browser {
		b = append(b, `,"metadata":{`...)
		for i, pair := range p.metadata {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendMember(b, pair.key, pair.value)
		}
		b = append(b, '}')
	}
	b = append(b, `,"operations":[]`...)
	b = appendMember(append(b, ','), "client_secret", clientSecret)
	b = appendMember(append(b, ','), "created_at", at)
	b = appendMember(append(b, ','), "updated_at", at)
	return append(b, '}')
}

func appendInt(b []byte, value int64) []byte { return strconv.AppendInt(b, value, 10) }

func appendMember(b []byte, name, value string) []byte {
	b = appendQuoted(b, name)
	return appendQuoted(append(b, ':'), value)
}

func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return append(appendQuoted(b, name), `:null`...)
	}
	return appendMember(b, name, value)
}

// Stored text was valid UTF-8 when it was taken.
func appendQuoted(b []byte, text string) []byte {
	quoted, _ := jsontext.AppendQuote(b, text)
	return quoted
}
