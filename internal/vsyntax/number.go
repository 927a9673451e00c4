package vsyntax

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Infinity is the value of Limit for a limit that does not limit (RLIM_INFINITY).
const Infinity = math.MaxUint64

var units = map[byte]uint64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'k': 1e3, 'm': 1e6, 'g': 1e9}

// Number reads a number up to 2⁶³-1. A leading zero is refused: util-vserver read 010
// as eight.
func Number(s string) (uint64, error) {
	wrong := func() (uint64, error) {
		return 0, fmt.Errorf("%q: want a number, as 4096, 0x1000, 4k (4000) or 4K (4096)", s)
	}
	digits, unit := s, uint64(1)
	base := 10
	if hex, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		digits, base = hex, 16
	}
	if digits == "" {
		return wrong()
	}
	if by, ok := units[s[len(s)-1]]; ok {
		digits, unit = digits[:len(digits)-1], by
	}
	if digits == "" || digits[0] == '+' || digits[0] == '-' || base == 10 && len(digits) > 1 && digits[0] == '0' {
		return wrong()
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return wrong()
	}
	if n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q: the number is too large", s)
	}
	return n * unit, nil
}

// Limit reads a number, or "inf" for no limit.
func Limit(s string) (uint64, error) {
	switch strings.ToLower(s) {
	case "inf", "infinite", "infinity", "-1":
		return Infinity, nil
	}
	n, err := Number(s)
	if err != nil {
		return 0, fmt.Errorf("%w, or inf", err)
	}
	return n, nil
}
