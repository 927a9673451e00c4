package view

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what f writes with testdata/NAME.golden.
func golden(t *testing.T, name string, f func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := f(&got); err != nil {
		t.Fatal(err)
	}
	path := "testdata/" + name + ".golden"
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// inColour is a terminal, in so far as colour goes.
func inColour(w io.Writer) Output { return Output{Writer: w, Colour: true} }

func TestTable(t *testing.T) {
	golden(t, "table", func(w io.Writer) error {
		return Table(w, []string{"NAME", ">GUESTS", "KERNEL", "NOTE"}, [][]string{
			{"web01", "12", "6.1.0-50-amd64", ""},
			{"db-with-a-long-name.example.net", "3", "", "  two leading blanks, and a long text that is neither wrapped nor cut off whatever its length"},
			{"mün", "100", "6.18.0", "\x1b[2Jcleared\nnext"},
		})
	})
	golden(t, "table-empty", func(w io.Writer) error { return Table(w, []string{"NAME", "KERNEL"}, nil) })
}

func TestWriteFormats(t *testing.T) {
	type inner struct {
		Shared string `json:"shared"`
	}
	type record struct {
		inner
		Name  string         `json:"name"`
		Count int            `json:"count"`
		Share float64        `json:"share"`
		On    bool           `json:"on"`
		At    time.Time      `json:"at"`
		Tags  []string       `json:"tags"`
		Vars  map[string]int `json:"vars,omitempty"`
		Inner *inner         `json:"inner"`
		Gone  string         `json:"-"`
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	records := []record{
		{inner: inner{"s"}, Name: "web01", Count: 3, Share: 0.5, On: true, At: at, Tags: []string{"a", "b"}, Vars: map[string]int{"z": 1, "a": 2}, Inner: &inner{"x"}},
		{Name: "yes", At: at, Tags: []string{}},
		{Name: `quotes " , <tag> and` + "\nlines", Count: -1, At: at},
		{Name: "0x10", At: at, Inner: &inner{"null"}},
	}
	for _, f := range []Format{AsJSON, AsNDJSON, AsYAML, AsCSV} {
		golden(t, "format-"+string(f), func(w io.Writer) error { return Write(w, f, records, nil) })
	}
	for f, want := range map[Format]string{AsJSON: "[]\n", AsNDJSON: "", AsYAML: "[]\n", AsCSV: "shared\n"} {
		var got bytes.Buffer
		if err := Write(&got, f, []inner(nil), nil); err != nil || got.String() != want {
			t.Errorf("nothing as %s: %q, %v, want %q", f, got.String(), err, want)
		}
	}
}

// What a host prints must neither end the report nor command a terminal.
func TestControlCharactersAreEscaped(t *testing.T) {
	type record struct {
		Text string            `json:"text"`
		List []string          `json:"list"`
		Map  map[string]string `json:"map"`
		Deep *record           `json:"deep"`
	}
	text := "a\x7fb\u009bc\ufffed\u202ee\x1b[2J\x00\u0085\u2066"
	in := record{text, []string{text}, map[string]string{text: text}, &record{Text: text}}
	for _, f := range []Format{AsJSON, AsNDJSON, AsYAML, AsCSV} {
		var got bytes.Buffer
		if err := Write(Output{Writer: &got, Terminal: true}, f, []record{in}, nil); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		for _, r := range got.String() {
			if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || hidden(r) {
				t.Errorf("%s: %q has %q", f, got.String(), r)
			}
		}
		var back []record
		if err := yaml.Unmarshal(got.Bytes(), &back); (f == AsJSON || f == AsYAML) && (err != nil || back[0].Text != text || back[0].Deep.Text != text) {
			t.Errorf("%s: read back as %+v, %v", f, back, err)
		}
	}
}

func TestTextsInCSV(t *testing.T) {
	type record struct {
		Text string `json:"text"`
	}
	for _, row := range []struct {
		name, in         string
		file, onTerminal string
	}{
		{"lines stay lines", "a\nb\n", "\"a\nb\n\"", "\"a\nb\n\""},
		{"tabs stay tabs", "a\tb", "a\tb", "a\tb"},
		{"commands for a terminal are shown there", "a\x1b[2J", "a\x1b[2J", `a\x1b[2J`},
		{"what is not UTF-8 is replaced, as in JSON", "a\xff", "a\ufffd", `a\xff`},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, terminal := range []bool{false, true} {
				var got bytes.Buffer
				want := row.file
				if terminal {
					want = row.onTerminal
				}
				err := Write(Output{Writer: &got, Terminal: terminal}, AsCSV, []record{{row.in}}, nil)
				if err != nil || got.String() != "text\n"+want+"\n" {
					t.Errorf("on a terminal %t: %q, %v; want %q", terminal, got.String(), err, want)
				}
			}
		})
	}
}

func TestParseFormat(t *testing.T) {
	if f, err := ParseFormat("ndjson"); err != nil || f != AsNDJSON {
		t.Errorf("got %q, %v", f, err)
	}
	if _, err := ParseFormat("xml"); err == nil || err.Error() != `unknown output format "xml": want table, json, yaml, ndjson, csv` {
		t.Errorf("got %v", err)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name             string
		terminal, noFlag bool
		env              map[string]string
		colour, redraw   bool
	}{
		{"a terminal", true, false, nil, true, true},
		{"a pipe", false, false, nil, false, false},
		{"--no-color", true, true, nil, false, true},
		{"NO_COLOR", true, false, map[string]string{"NO_COLOR": "1"}, false, true},
		{"a dumb terminal", true, false, map[string]string{"TERM": "dumb"}, false, false},
		{"colour forced into a pipe", false, false, map[string]string{"CLICOLOR_FORCE": "1"}, true, false},
		{"CLICOLOR_FORCE=0 forces nothing", false, false, map[string]string{"CLICOLOR_FORCE": "0"}, false, false},
		{"NO_COLOR outweighs CLICOLOR_FORCE", true, false, map[string]string{"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, false, true},
	} {
		o := judge(io.Discard, c.terminal, c.noFlag, func(k string) string { return c.env[k] }, nil)
		if o.Colour != c.colour || o.Terminal != c.redraw {
			t.Errorf("%s: colour %v, redrawn %v", c.name, o.Colour, o.Terminal)
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain text", "unpacking libc6 (2.36-9)", "unpacking libc6 (2.36-9)"},
		{"letters of any script", "mün 日本", "mün 日本"},
		{"clear the screen", "\x1b[2J", `\x1b[2J`},
		{"go back and overwrite", "ok\rno", `ok\rno`},
		{"the C1 form of escape", "\u009b2J", `\u009b2J`},
		{"right to left", "a\u202eb", `a\u202eb`},
		{"what is no UTF-8", "a\xffb", `a\xffb`},
		{"lines", "a\nb\tc", "a b c"},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("%s: Clean(%q) = %q, want %q", c.name, c.in, got, c.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b]0;title\x07")
	f.Add("a\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		if got := Clean(s); strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("Clean(%q) = %q", s, got)
		}
	})
}

func TestBytesAndDuration(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 999: "999", 1000: "0.9K", 1024: "1K", 34823008: "33.2M", 1e12: "931.3G", 1<<64 - 1: "15.9E",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0µs", 830 * time.Microsecond: "830µs", 42 * time.Millisecond: "42ms", 3490 * time.Millisecond: "3.4s",
		125 * time.Second: "2m05s", 17304 * time.Second: "4h48m", 312780 * time.Second: "3d14h", -time.Minute: "-1m00s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		1784270 * time.Millisecond: "29m44s27", 20 * time.Millisecond: "0m00s02", -1: "0m00s00",
		17304 * time.Second: "4h48m24", 312780 * time.Second: "3d14h53", 24000 * time.Hour: "2y270d00",
	} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) = %q, want %q", d, got, want)
		}
	}
}

// terminal of that many columns.
func terminal(w io.Writer, columns int) Output {
	return Output{Writer: w, Terminal: true, Width: func() int { return columns }}
}

func TestATableFitsItsTerminal(t *testing.T) {
	type record struct{ Host string }
	rows := [][]string{
		{"web01.example.net", "www", "120", "running", "203.0.113.11 80/tcp 443/tcp 8000-8999/udp", "Debian GNU/Linux 12 (bookworm)"},
		{"web02.example.net", "mail", "125", "stopped (its configuration cannot be used: no context)", "203.0.113.11 25/tcp", "Debian GNU/Linux 12 (bookworm)"},
	}
	for _, columns := range []int{80, 60, 200} {
		var out strings.Builder
		err := Write(terminal(&out, columns), AsTable, []record{}, func(w io.Writer) error {
			return Table(w, []string{"HOST", "GUEST", ">CTX", "STATUS", "ADDRESSES AND PORTS", "OS"}, rows)
		})
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%d columns: %d: %s", columns, n, line)
			}
		}
		for _, whole := range []string{"web02.example.net", "mail", "125"} {
			if !strings.Contains(out.String(), whole) {
				t.Errorf("%d columns: %s is cut off:\n%s", columns, whole, out.String())
			}
		}
		if cut := strings.Contains(out.String(), "…"); cut != (columns < 200) {
			t.Errorf("%d columns:\n%s", columns, out.String())
		}
	}
	var out strings.Builder
	if err := Stat(terminal(&out, 80), AsTable, fleet(), StatOptions{}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("stat: %d: %s", n, line)
		}
	}
}

func TestRowsThatComeOneByOne(t *testing.T) {
	for _, columns := range []int{80, 200} {
		var out strings.Builder
		r := NewRows(terminal(&out, columns), []string{"HOST", "OS", ">RTT"}, []int{17, 30, 7})
		var got []string
		for _, row := range [][]string{
			{"web01.example.net", "Debian GNU/Linux 12 (bookworm)", "3ms"},
			{"db1", "An operating system with a very long name that does not fit in\x1b[2J", "12ms"},
		} {
			if err := r.Add(row); err != nil {
				t.Fatal(err)
			}
			got = strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		}
		want := []string{
			"HOST               OS                                  RTT",
			"web01.example.net  Debian GNU/Linux 12 (bookworm)      3ms",
			"db1                An operating system with a ve…     12ms",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d columns:\n%s\nwant\n%s", columns, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestManyErrorsAreCutShort(t *testing.T) {
	var hosts []report.Host
	for i := range 500 {
		hosts = append(hosts, report.HostOf(fmt.Sprintf("web%03d", i), "", outcome.Failed, fmt.Errorf("error %d of its own", 1000+i)))
	}
	var lines []error
	for i := range 1000 {
		lines = append(lines, fmt.Errorf("guest g%d: no", i))
	}
	hosts[0].Error = errors.Join(lines...).Error()
	var out strings.Builder
	if err := Errors(Plain(&out), hosts); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != 2*mostErrors+1 {
		t.Errorf("%d lines:\n%s", len(got), out.String())
	}
	if want := "    and 980 more"; !strings.Contains(out.String(), want) {
		t.Errorf("%q is missing", want)
	}
	if last, want := got[len(got)-1], "web[020-499]: 480 other errors (-o json has them all)"; last != want {
		t.Errorf("the last line is %q, want %q", last, want)
	}
}

func TestRecap(t *testing.T) {
	var hosts []report.Host
	for i := range 480 {
		hosts = append(hosts, report.HostOf(fmt.Sprintf("app%03d", i), "", outcome.OK, nil))
	}
	for i := range 12 {
		hosts = append(hosts, report.HostOf(fmt.Sprintf("web%02d", 50+i), "", outcome.Changed, nil))
	}
	for _, host := range []string{"web07", "web09", "web33"} {
		hosts = append(hosts, report.HostOf(host, "", outcome.Failed, fmt.Errorf("host %s: start guest www: %w", host, errors.New("no space left on device"))))
	}
	hosts = append(hosts,
		report.HostOf("db1", "192.0.2.9", outcome.Unreachable, errors.New("connect to db1 (192.0.2.9:22): connection refused")),
		report.HostOf("db2", "192.0.2.10", outcome.Unreachable, errors.New("connect to db2 (192.0.2.10:22): connection refused")),
		report.HostOf("db1x", "", outcome.Failed, errors.Join(errors.New("guest db1: one"), errors.New("guest two: \x1b[2J"))),
		report.HostOf("db3", "", outcome.NotStarted, nil),
		// What all say of one of them, to the letter, is one line.
		report.HostOf("lab1", "", outcome.Failed, errors.New("image bookworm: build on lab1: no space left on device")),
		report.HostOf("lab2", "", outcome.Failed, errors.New("image bookworm: build on lab1: no space left on device")),
	)
	golden(t, "recap", func(w io.Writer) error { return Recap(Plain(w), hosts) })
	golden(t, "recap-colour", func(w io.Writer) error { return Recap(inColour(w), hosts[480:]) })
	golden(t, "recap-nothing", func(w io.Writer) error { return Recap(Plain(w), nil) })
	golden(t, "recap-batches", func(w io.Writer) error {
		const why = "web05 failed, more than the 0 of 40 hosts that may (--max-fail 0)"
		return RecapRun(Plain(w), report.Run{
			Stopped: why,
			Batches: []report.Batch{
				{Number: 1, Of: 4, Canary: true, Hosts: []string{"web01"}},
				{Number: 2, Of: 4, Hosts: []string{"web02", "web03", "web04", "web05"}},
				{Number: 3, Of: 4, Retry: 1, Hosts: []string{"web02"}},
			},
			Hosts: []report.Host{
				{Name: "web01", Result: report.Result{Status: outcome.Changed}},
				{Name: "web05", Result: report.Result{Status: outcome.Failed, Error: "start guest www: exit status 1"}},
				{Name: "web06", Result: report.Result{Status: outcome.Stopped, Class: outcome.KindStopped, Error: "not begun: " + why}},
				{Name: "web07", Result: report.Result{Status: outcome.Stopped, Class: outcome.KindStopped, Error: "not begun: web05 failed, and at most 1 with site=fra may be disrupted"}},
			},
		})
	})
}

func TestCheck(t *testing.T) {
	ok := api.CheckRow{Name: "kernel", For: "everything", Required: true, Verdict: api.Yes, Detail: "6.1"}
	userns := api.CheckRow{Name: "user namespaces", For: "a guest's root is nobody", Required: true, Verdict: api.No,
		Detail: "user.max_user_namespaces is 0", Lost: "no guest starts", Cure: "sysctl -w user.max_user_namespaces=65536"}
	ports := api.CheckRow{Name: "ports for guests", For: "no listener on all addresses", Verdict: api.No,
		Detail: "sshd listens on 0.0.0.0:22", Lost: "who connects reaches the host", Cure: "ListenAddress"}
	lsm := api.CheckRow{Name: "abstract socket guard", For: "shared guests", Verdict: api.Unknown, Detail: "no securityfs"}
	var records [][]report.CheckRecord
	for _, h := range []struct {
		name string
		rows []api.CheckRow
	}{
		{"web01", []api.CheckRow{ok, ports}},
		{"web02", []api.CheckRow{ok, ports, lsm}},
		{"db1", []api.CheckRow{ok, userns}},
	} {
		records = append(records, report.CheckRecords(h.name, api.Check{Rows: h.rows}, report.Result{Status: outcome.OK}))
	}
	golden(t, "check", func(w io.Writer) error { return CheckTable(Plain(w), w, slices.Concat(records...), 3) })
	golden(t, "check-silent", func(w io.Writer) error { return CheckTable(Plain(w), w, records[0], 2) })
	golden(t, "check-ndjson", func(w io.Writer) error {
		out := NewRecords[report.CheckRecord](w, AsNDJSON, 3)
		for i, r := range records {
			if err := out.Put(i, r...); err != nil {
				return err
			}
		}
		late := report.Result{Status: outcome.Failed, Class: outcome.KindTimeout, Error: "no end after 5s"}
		if err := out.Put(0, report.CheckRecords("db2", api.Check{}, late)...); err != nil {
			return err
		}
		return out.Close(nil)
	})
}

func TestNotesOfManyGuestsDoNotFillTheScreen(t *testing.T) {
	var out strings.Builder
	h := report.Host{Name: "lab1"}
	for i := range 1000 {
		h.Notes = append(h.Notes, fmt.Sprintf("guest g%d is not in the inventory: left alone", i))
	}
	Notes(Plain(&out), []report.Host{h, {Name: "lab2", Notes: h.Notes[:1]}})
	if n := strings.Count(out.String(), "\n"); n != mostNotes+1 || !strings.HasPrefix(out.String(), "lab[1-2]: guest g0 ") || !strings.Contains(out.String(), "and 900 more") {
		t.Errorf("%d lines: %s", n, out.String()[max(0, out.Len()-200):])
	}
}
