package batch

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is a number of hosts, or a percentage of them. The zero value is unset.
type Size struct {
	n       int // the number plus 1, to distinguish 0 hosts from unset
	percent bool
}

// Count returns a Size of n hosts.
func Count(n int) Size { return Size{n: n + 1} }

// Percent returns a Size of p percent of the hosts.
func Percent(p int) Size { return Size{n: p + 1, percent: true} }

// maxCount bounds a number of hosts, so that sums do not overflow.
const maxCount = 1_000_000

// ParseSize reads "3" or "10%".
func ParseSize(text string) (Size, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 0 || n > maxCount || strings.Trim(number, "0123456789") != "":
		return Size{}, fmt.Errorf("want a number of hosts or a percentage, as 3 or 10%%, have %q", text)
	case !percent:
		return Count(n), nil
	case n > 100:
		return Size{}, fmt.Errorf("want a percentage from 0%% to 100%%, have %q", text)
	}
	return Percent(n), nil
}

// ParseSizes reads the sizes of batches, "1,10%,100%".
func ParseSizes(text string) ([]Size, error) {
	var list []Size
	for part := range strings.SplitSeq(text, ",") {
		size, err := ParseSize(strings.TrimSpace(part))
		if err == nil && size.n == 1 {
			err = fmt.Errorf("a batch has at least one host, have %q", strings.TrimSpace(part))
		}
		if err != nil {
			return nil, err
		}
		list = append(list, size)
	}
	return list, nil
}

// Set sets the size to that of ParseSize.
func (s *Size) Set(text string) (err error) {
	*s, err = ParseSize(text)
	return err
}

// IsSet reports whether the size was set.
func (s Size) IsSet() bool { return s.n > 0 }

// Of returns the number of hosts that the size means for total hosts. Percentages are
// rounded down.
func (s Size) Of(total int) int {
	switch {
	case !s.IsSet():
		return total
	case s.percent:
		return (s.n - 1) * total / 100
	}
	return s.n - 1
}

// String returns the size in the form that ParseSize reads, or "" if it is unset.
func (s Size) String() string {
	switch {
	case !s.IsSet():
		return ""
	case s.percent:
		return strconv.Itoa(s.n-1) + "%"
	}
	return strconv.Itoa(s.n - 1)
}

// Cut divides total hosts into batches and returns the number of hosts in each. Each
// batch has at least one host. The last size repeats; without sizes, Cut returns one
// batch.
func Cut(total int, sizes []Size) []int {
	var list []int
	for left := total; left > 0; {
		n := left
		if len(sizes) > 0 {
			n = min(max(sizes[min(len(list), len(sizes)-1)].Of(total), 1), left)
		}
		list = append(list, n)
		left -= n
	}
	return list
}
