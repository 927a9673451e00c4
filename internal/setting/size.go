package setting

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseSize parses an amount of memory: bytes, or with K, M, G or T (also KiB, MiB, …)
// powers of 1024, as cgroup v2 and systemd read them. "1.5G" is allowed if the result
// is a whole number of bytes.
func parseSize(s string) (int64, error) {
	num, unit := s, int64(1)
	if cut := strings.TrimSuffix(s, "iB"); cut != "" {
		if power := strings.IndexByte("KMGT", cut[len(cut)-1]); power >= 0 {
			num, unit = cut[:len(cut)-1], int64(1)<<(10*(power+1))
		}
	}
	whole, fraction, hasFraction := strings.Cut(num, ".")
	if !isDigits(whole) || hasFraction && (!isDigits(fraction) || len(fraction) > 3) {
		return 0, fmt.Errorf("%q is no size", s)
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > math.MaxInt64/unit-1 {
		return 0, fmt.Errorf("%q is more than can be counted", s)
	}
	n *= unit
	if hasFraction {
		thousandths, err := strconv.ParseInt((fraction + "00")[:3], 10, 64)
		if err != nil || unit == 1 {
			return 0, fmt.Errorf("%q is no whole number of bytes", s)
		}
		n += thousandths * unit / 1000
	}
	return n, nil
}

// size is the inverse of parseSize.
func size(n int64) string {
	for i, unit := range []string{"T", "G", "M", "K"} {
		if in := int64(1) << (10 * (4 - i)); n >= in && n%in == 0 {
			return strconv.FormatInt(n/in, 10) + unit
		}
	}
	return count(n)
}

func count(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// WholeNumber parses decimal digits. A leading zero is refused: 010 means eight in YAML
// 1.1, and ten in YAML 1.2.
func WholeNumber(s string, first, last int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !isDigits(s) || s[0] == '0' && s != "0" || n < first || n > last {
		return 0, fmt.Errorf("want a number from %d to %d, have %q", first, last, s)
	}
	return n, nil
}

// isDigits reports whether s consists of digits: no sign, exponent, underscore or 0x.
func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
