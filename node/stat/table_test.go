package stat

import (
	"bytes"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/node/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestFormatBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes uint64
		want  string
	}{
		{"nothing", 0, "0 "},
		{"bytes have a blank for a unit", 999, "999 "},
		{"1000 is already the next unit", 1000, "0.9K"},
		{"a decimal that is 0 is left out", 1024, "1K"},
		{"one decimal", 1536, "1.5K"},
		{"the last value of a unit", 1022976, "999K"},
		{"the first value of the next one", 1024000, "0.9M"},
		{"the article's root server", 34823008, "33.2M"},
		{"whole megabytes", 151 << 20, "151M"},
		{"cut off, not rounded", 1e12, "931.3G"},
		{"terabytes", 5 << 40, "5T"},
		{"more than terabytes", 3 << 50, "3+"},
		{"all that a number holds", 1<<64 - 1, "16383.9+"},
	} {
		if got := FormatBytes(c.bytes); got != c.want {
			t.Errorf("%s: FormatBytes(%d) = %q, want %q", c.name, c.bytes, got, c.want)
		}
	}
}

func TestFormatTime(t *testing.T) {
	const ms, day = time.Millisecond, 24 * time.Hour
	for _, c := range []struct {
		name string
		time time.Duration
		want string
	}{
		{"nothing", 0, "0m00s00"},
		{"hundredths are cut off", 1784270 * ms, "29m44s27"},
		{"seconds", 1630 * ms, "0m01s63"},
		{"real hundredths: util-vserver printed 20", 20 * ms, "0m00s02"},
		{"real hundredths: util-vserver printed 05", 5 * ms, "0m00s00"},
		{"real hundredths: util-vserver printed 63", 630 * ms, "0m00s63"},
		{"hours", 17304000 * ms, "4h48m24"},
		{"days", 312780000 * ms, "3d14h53"},
		{"the last day before years", 999*day + 23*time.Hour, "999d23h00"},
		{"the whole day of the year: util-vserver printed 2y27d00", 1000 * day, "2y270d00"},
		{"a short day of the year is padded", 1100 * day, "3y05d00"},
		{"a time that runs backwards", -ms, "INVALID"},
	} {
		if got := FormatTime(c.time); got != c.want {
			t.Errorf("%s: FormatTime(%v) = %q, want %q", c.name, c.time, got, c.want)
		}
	}
}

// The rows are those that manuals and wikis show of a real vserver-stat, and
// the extremes.
func TestWrite(t *testing.T) {
	const day = 24 * time.Hour
	hms := func(h, m, s, cs int) time.Duration {
		return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute +
			time.Duration(s)*time.Second + time.Duration(cs)*10*time.Millisecond
	}
	rows := []api.StatRow{
		{Context: 0, Name: HostName, Processes: 71, VSZ: 1127 << 20, RSS: 101<<20 + 103<<10,
			User: hms(2, 33, 3, 0), Sys: hms(0, 7, 39, 14), Uptime: 4*day + hms(1, 3, 0, 0)},
		{Context: 666, Name: "testme", Processes: 2, VSZ: 3 << 20, RSS: 286,
			User: hms(0, 0, 0, 45), Sys: hms(0, 0, 0, 2), Uptime: hms(0, 0, 2, 91)},
		{Context: 40000, Name: "aname-of-more-than-20-letters", Processes: 100000, RSS: 999, Uptime: 1000 * day},
		{Context: 49151, Name: "mem-autopar-01", Processes: 18, VSZ: 316<<20 + 717<<10, RSS: 131<<20 + 820<<10,
			User: day + hms(10, 45, 0, 0), Sys: day + hms(0, 51, 0, 0), Uptime: 4*day + hms(5, 11, 0, 0)},
	}
	var got bytes.Buffer
	if err := Write(&got, rows); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/table.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
