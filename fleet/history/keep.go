package history

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Keep limits which runs are kept. A zero field sets no limit.
type Keep struct {
	Runs int
	For  time.Duration
}

// KeepByDefault is the default of the setting keep.
const KeepByDefault = "10000"

// ParseKeep reads a setting: "500" runs, "90d" days, or both: "500,90d".
func ParseKeep(text string) (k Keep, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if n, err := strconv.Atoi(part); err == nil && n > 0 {
			k.Runs = n
			continue
		}
		d, err := ParseAge(part)
		if err != nil || d == 0 {
			return Keep{}, fmt.Errorf("want a number of runs or days, as 500, 90d or 500,90d, have %q", text)
		}
		k.For = d
	}
	return k, nil
}

// ParseAge reads an age: "7d", "2w", "36h", "90m".
func ParseAge(text string) (time.Duration, error) {
	for unit, day := range map[string]int{"d": 1, "w": 7} {
		if n, err := strconv.Atoi(strings.TrimSuffix(text, unit)); err == nil && strings.HasSuffix(text, unit) && n >= 0 && n < 100_000 {
			return time.Duration(n*day) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("want a time, as 7d, 2w, 36h or 90m, have %q", text)
	}
	return d, nil
}
