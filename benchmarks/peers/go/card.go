package main

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a card number is: 13-19 digits, unbroken or grouped 4-4-4-4, 4-6-4 or 4-6-5 by spaces or dashes, not next to a
// letter or digit, with an issuer's prefix, that brand's length, and Luhn.

var groupings = [][]int{{4, 4, 4, 4}, {4, 6, 4}, {4, 6, 5}}

type prefixes struct{ low, high string }

type brand struct {
	ranges  []prefixes
	lengths []int
}

var brands = []brand{
	{[]prefixes{{"4", "4"}}, []int{13, 16, 19}},
	{[]prefixes{{"51", "55"}, {"2221", "2720"}}, []int{16}},
	{[]prefixes{{"34", "34"}, {"37", "37"}}, []int{15}},
	{[]prefixes{{"6011", "6011"}, {"644", "649"}, {"65", "65"}, {"622126", "622925"}}, []int{16, 17, 18, 19}},
	{[]prefixes{{"300", "305"}, {"3095", "3095"}, {"36", "36"}, {"38", "39"}}, []int{14, 16, 19}},
	{[]prefixes{{"3528", "3589"}}, []int{16, 17, 18, 19}},
	{[]prefixes{{"62", "62"}}, []int{16, 17, 18, 19}},
	{[]prefixes{{"5018", "5018"}, {"5020", "5020"}, {"5038", "5038"}, {"5893", "5893"}, {"6304", "6304"},
		{"6759", "6759"}, {"6761", "6763"}, {"676770", "676770"}, {"676774", "676774"}},
		[]int{13, 14, 15, 16, 17, 18, 19}},
}

func holdsCardNumber(text string) bool {
	for i := 0; i+13 <= len(text); i++ {
		if !isDigit(text[i]) {
			continue
		}
		run := digitRun(text[i:])
		if i > 0 && isAlphanumericBefore(text, i) {
			i += run - 1
			continue
		}
		if run >= 13 && run <= 19 && endsThere(text, i+run) && isCardNumber(text[i:i+run]) {
			return true
		}
		if run == 4 && holdsGroupedAt(text, i) {
			return true
		}
		i += run - 1
	}
	return false
}

func holdsGroupedAt(text string, start int) bool {
	for _, grouping := range groupings {
		at, digits := start, make([]byte, 0, 16)
		for n, size := range grouping {
			if n > 0 {
				if at >= len(text) || (text[at] != ' ' && text[at] != '-') {
					break
				}
				at++
			}
			if digitRun(text[at:]) != size {
				break
			}
			digits = append(digits, text[at:at+size]...)
			at += size
			if n == len(grouping)-1 && endsThere(text, at) && isCardNumber(string(digits)) {
				return true
			}
		}
	}
	return false
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func digitRun(text string) int {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return i
		}
	}
	return len(text)
}

func isAlphanumericBefore(text string, at int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:at])
	return unicode.IsLetter(before) || unicode.IsNumber(before)
}

func endsThere(text string, at int) bool {
	if at == len(text) {
		return true
	}
	after, _ := utf8.DecodeRuneInString(text[at:])
	return !unicode.IsLetter(after) && !unicode.IsNumber(after)
}

func isCardNumber(digits string) bool { return hasIssuer(digits) && passesLuhn(digits) }

func hasIssuer(digits string) bool {
	for _, brand := range brands {
		for _, length := range brand.lengths {
			if length != len(digits) {
				continue
			}
			for _, r := range brand.ranges {
				prefix := digits[:len(r.low)]
				if strings.Compare(r.low, prefix) <= 0 && strings.Compare(prefix, r.high) <= 0 {
					return true
				}
			}
		}
	}
	return false
}

func passesLuhn(digits string) bool {
	sum := 0
	for i := range len(digits) {
		digit := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			digit *= 2
			if digit > 9 {
				digit -= 9
			}
		}
		sum += digit
	}
	return sum%10 == 0
}
