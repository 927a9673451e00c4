package stat

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// Header is the heading of vserver-stat, to the letter.
const Header = "CTX   PROC    VSZ    RSS  userTIME   sysTIME    UPTIME NAME"

// Write writes the table of util-vserver's vserver-stat, with the same columns,
// widths and units, for scripts that parse them. It differs in two values that
// util-vserver got wrong: see [FormatTime].
func Write(w io.Writer, rows []api.StatRow) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, Header)
	for _, r := range rows {
		// The context begins at the left, the number of processes ends at column 10;
		// long ones use up the blanks between them.
		xid, procs := strconv.Itoa(r.Context), strconv.Itoa(r.Processes)
		gap := max(1, 10-len(xid)-len(procs))
		fmt.Fprintf(out, "%s%s%s%7s%7s%10s%10s%10s %.20s\n",
			xid, strings.Repeat(" ", gap), procs,
			FormatBytes(r.VSZ), FormatBytes(r.RSS),
			FormatTime(r.User), FormatTime(r.Sys), FormatTime(r.Uptime), r.Name)
	}
	return out.Flush()
}

// FormatBytes formats an amount of memory as vserver-stat does: in the smallest unit
// that gives a number below 1000, with one decimal that is truncated, not rounded,
// and omitted if it is 0. The unit of bytes is a blank.
func FormatBytes(n uint64) string {
	const units = " KMGT+"
	unit, decimal := 0, uint64(0)
	for n >= 1000 && unit < len(units)-1 {
		decimal = n % 1024 * 10 / 1024
		n /= 1024
		unit++
	}
	s := strconv.FormatUint(n, 10)
	if decimal != 0 {
		s += "." + strconv.FormatUint(decimal, 10)
	}
	return s + units[unit:unit+1]
}

// FormatTime formats a time as vserver-stat does: its two largest units and two
// digits of the next, truncated. Two values are corrected within the format:
// util-vserver printed the first two digits of the milliseconds as if they
// were hundredths of a second (20 ms: "20" instead of "02"), and cut the day of
// the year to two digits (1000 days: "2y27d00" instead of "2y270d00").
func FormatTime(d time.Duration) string {
	if d < 0 {
		return "INVALID"
	}
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
