package view

import (
	"fmt"
	"strconv"
	"time"
)

// Bytes formats a size as vserver-stat does: in the unit that leaves less than 1000,
// with one decimal, rounded down, unless it is 0: "999", "1.5K", "33.2M".
func Bytes(n uint64) string {
	const units = "KMGTPE"
	unit, decimal := -1, uint64(0)
	for n >= 1000 && unit < len(units)-1 {
		decimal = n % 1024 * 10 / 1024
		n /= 1024
		unit++
	}
	s := strconv.FormatUint(n, 10)
	if decimal != 0 {
		s += "." + strconv.FormatUint(decimal, 10)
	}
	if unit >= 0 {
		s += units[unit : unit+1]
	}
	return s
}

// clock formats a time as vserver-stat does: "0m01s63", "4h48m24", "3d14h53".
func clock(d time.Duration) string {
	d = max(d, 0)
	days, hours := d/(24*time.Hour), d/time.Hour%24
	minutes, seconds := d/time.Minute%60, d/time.Second%60
	switch {
	case days > 999:
		return fmt.Sprintf("%dy%02dd%02d", days/365, days%365, hours)
	case days > 0:
		return fmt.Sprintf("%dd%02dh%02d", days, hours, minutes)
	case hours > 0:
		return fmt.Sprintf("%dh%02dm%02d", hours, minutes, seconds)
	default:
		return fmt.Sprintf("%dm%02ds%02d", minutes, seconds, d/(10*time.Millisecond)%100)
	}
}

// Duration formats a duration in at most two units: "830µs", "42ms", "3.4s", "2m05s", "4h48m", "3d14h".
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d/time.Second%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d/time.Minute%60)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d/time.Hour%24)
}
