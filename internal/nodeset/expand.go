package nodeset

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Max is the largest number of names that one set may stand for: a typing mistake
// in "[1-300]" should be an error and not fill the memory.
const Max = 1 << 16

// Expand returns the names that a text with sets stands for, in the order of the
// sets. A text without brackets stands for itself.
func Expand(s string) ([]string, error) {
	list := []string{""}
	for left := s; ; {
		before, rest, found := strings.Cut(left, "[")
		if strings.Contains(before, "]") {
			return nil, fmt.Errorf("%q: a ] without a [", s)
		}
		if !found {
			return cross(list, []string{before}), nil
		}
		inner, after, closed := strings.Cut(rest, "]")
		if !closed {
			return nil, fmt.Errorf("%q: a [ without a ]", s)
		}
		steps, err := expandSet(inner, Max/len(list))
		if err != nil {
			return nil, err
		}
		list, left = cross(cross(list, []string{before}), steps), after
	}
}

// ExpandGlob is like Expand, for patterns in which brackets may also be a character
// class of the shell, as in "db[abc]" or "web[!3]*", which is left as it is. A
// class of digits only is taken as a set, as other fleet tools print them.
func ExpandGlob(pattern string) ([]string, error) {
	list := []string{""}
	for left := pattern; ; {
		before, inner, after, found := cutBrackets(left)
		list = cross(list, []string{before})
		if !found {
			return list, nil
		}
		steps := []string{"[" + inner + "]"}
		switch {
		case isSet(inner):
			var err error
			if steps, err = expandSet(inner, Max/len(list)); err != nil {
				return nil, err
			}
		case hasLongNumber(inner):
			return nil, fmt.Errorf("[%s] matches one character, and has a number of several digits: want a set, as [8-11], and to leave hosts out a part of its own, as web*:!web[8-11]", inner)
		}
		list, left = cross(list, steps), after
	}
}

// cutBrackets cuts s around its first brackets without a backslash. A "]" that
// comes first in a class is part of it, as in a shell.
func cutBrackets(s string) (before, inner, after string, found bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '[':
			from := i + 1
			end := strings.IndexByte(s[from:], ']')
			if end < 0 {
				return s, "", "", false
			}
			return s[:i], s[from : from+end], s[from+end+1:], true
		}
	}
	return s, "", "", false
}

// isSet reports whether brackets hold a set and not a character class: they hold
// numbers only, or something that no class needs.
func isSet(inner string) bool {
	if strings.Trim(inner, "0123456789-,/:") == "" {
		return true
	}
	return inner[0] != '!' && inner[0] != '^' && strings.ContainsAny(inner, ",:/")
}

func hasLongNumber(inner string) bool {
	for i := 1; i < len(inner); i++ {
		if isDigits(inner[i-1 : i+1]) {
			return true
		}
	}
	return false
}

// cross appends each tail to each head.
func cross(heads, tails []string) []string {
	list := make([]string, 0, len(heads)*len(tails))
	for _, head := range heads {
		for _, tail := range tails {
			list = append(list, head+tail)
		}
	}
	return list
}

// expandSet expands the content of one pair of brackets to at most limit names.
func expandSet(inner string, limit int) ([]string, error) {
	if len(inner) > 1 && isDigits(inner) {
		return nil, fmt.Errorf("[%s] could be the number %s or any of its digits: write the number without brackets, or [%s]",
			inner, inner, strings.Join(strings.Split(inner, ""), ","))
	}
	var list []string
	for item := range strings.SplitSeq(inner, ",") {
		r, err := parseRange(item)
		if err != nil {
			if item != inner {
				err = fmt.Errorf("%q: %w", item, err)
			}
			return nil, fmt.Errorf("[%s]: %w", inner, err)
		}
		if r.count() > limit-len(list) {
			return nil, fmt.Errorf("[%s]: it makes more than %d names", inner, Max)
		}
		list = r.appendTo(list)
	}
	return list, nil
}

// span is a range of numbers, or of letters by their codes.
type span struct {
	first, last, step int
	width             int // of numbers with leading zeros
	letters           bool
}

func (r span) count() int { return (r.last-r.first)/r.step + 1 }

func (r span) appendTo(list []string) []string {
	for n := r.first; n <= r.last; n += r.step {
		if r.letters {
			list = append(list, string(rune(n)))
		} else {
			list = append(list, fmt.Sprintf("%0*d", r.width, n))
		}
	}
	return list
}

// parseRange reads "7", "01-10", "0-20/5", "1:10", "1:10:2" and "a:f".
func parseRange(s string) (span, error) {
	r := span{step: 1}
	ends, step, hasStep := strings.Cut(s, "/")
	first, last, isRange := strings.Cut(ends, ":")
	if isRange && !hasStep {
		last, step, hasStep = strings.Cut(last, ":")
	}
	if !isRange {
		first, last, isRange = strings.Cut(ends, "-")
	}
	if !isRange {
		last = first
	}
	var err error
	if hasStep {
		if r.step, err = strconv.Atoi(step); err != nil || !isDigits(step) || r.step < 1 || !isRange || r.step > Max {
			return r, fmt.Errorf("want a step of 1 to %d behind a range, as 0-20/5", Max)
		}
	}
	switch {
	case isLetter(first) && isLetter(last):
		r.letters, r.first, r.last = true, int(first[0]), int(last[0])
		if isUpper(first) != isUpper(last) {
			return r, errors.New("both ends must be small letters, or both capitals")
		}
	case isDigits(first) && isDigits(last):
		if isPadded(first) || isPadded(last) {
			if r.width = len(first); r.width != len(last) {
				return r, errors.New("both ends must have as many digits if one is padded with zeros")
			}
		}
		// 18 digits fit an int; Max bounds what is between them.
		if len(first) > 18 || len(last) > 18 {
			return r, errors.New("it has a number of more than 18 digits")
		}
		r.first, _ = strconv.Atoi(first) // 1 to 18 digits
		r.last, _ = strconv.Atoi(last)
	default:
		return r, errors.New("want numbers and ranges, as 01-10,17 or 0-20/5, or letters, as a:f")
	}
	if r.last < r.first {
		return r, errors.New("it ends before it begins")
	}
	return r, nil
}

func isPadded(s string) bool { return len(s) > 1 && s[0] == '0' }

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isUpper(s string) bool { return 'A' <= s[0] && s[0] <= 'Z' }

func isLetter(s string) bool { return len(s) == 1 && ('a' <= s[0] && s[0] <= 'z' || isUpper(s)) }
