package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
)

// Every option of util-vserver's build is taken or refused by name.
func TestBuildTakesOrRefusesEveryOption(t *testing.T) {
	const base = "-m debootstrap --interface nodev:192.0.2.1"
	for _, row := range []struct{ args, want string }{
		{"", ""},
		{"--context 666 --hostname www --initstyle plain -n www", ""},
		{"--netdev eth0 --netmask 255.255.255.0", ""},
		{"-n other", "option -n: the guest is www already"},
		{"--keep", "option --keep: what a failed build made is removed"},
		{"--i-know-its-there", "option --i-know-its-there: a guest's directory is made anew"},
		{"--rootdir /srv", "option --rootdir: guests lie below"},
		{"--pkgbase /srv", "option --pkgbase: packages"},
		{"--confdir /srv", "option --confdir: configurations"},
		{"--lockfile /x", "option --lockfile: "},
		{"--netbcast 192.0.2.255", "option --netbcast: the broadcast"},
		{"--flags=lock", "option --flags: what flags protected"},
		{"--cpuset x", "option --cpuset: "},
		{"--cpusetcpus 0-1", "option --cpusetcpus: a guest's cpuset is its cgroup; instead: write it into cgroup/cpuset.cpus"},
		{"--cpusetmems 0", "option --cpusetmems: "},
		{"--cpusetvirt", "option --cpusetvirt: "},
		{"--debug", "option --debug: there are no scripts"},
		{"-d bookworm", "option -d: belongs to the method; instead: write it behind --"},
		{"--hostnam x", "unknown option --hostnam; did you mean --hostname?"},
		{"--zzzzzzzz", "unknown option --zzzzzzzz"},
		{"--context", "option --context needs an argument"},
		{"--context many", `option --context: want a number, not "many"`},
		{"--force=maybe", "option --force takes no argument"},
		{"--=x", `"--=x" is not an option`},
		{"--interface nodev:192.0.2.300", `interface "nodev:192.0.2.300": "192.0.2.300" is not an address`},
		{"--interface eth0:192.0.2.2/255.0.255.0", "mask 255.0.255.0 has holes"},
		{"--interface eth0:192.0.2.2/many", `want a number from 0 to 32 for 192.0.2.2`},
	} {
		t.Run(row.args, func(t *testing.T) {
			_, err := parseBuild("www", append(strings.Fields(base), strings.Fields(row.args)...))
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			if err != nil && strings.Contains(err.Error(), "flag") && !strings.Contains(row.args, "flag") || err != nil && strings.Contains(err.Error(), "strconv") {
				t.Errorf("error %q speaks Go", err)
			}
		})
	}
}

func TestCommandsAreKnownOrRefusedByName(t *testing.T) {
	for _, row := range []struct {
		args   string
		status int
		want   string
	}{
		{"www unify", 2, "vserver: unify: files are shared whatever"},
		{"www hashify -x", 1, "vserver hashify: unknown option -x"},
		{"www pkgmgmt internalize", 2, "vserver: pkgmgmt: "},
		{"www strat", 2, `vserver: unknown command "strat"; did you mean start?`},
		{"--strace www start", 1, "vserver: option --strace: the trace would go on for as long as the guest runs; instead: strace -o FILE"},
		{"----insecure www start", 1, "vserver: option ----insecure: nothing runs"},
		{"--silnet www start", 1, "vserver: unknown option --silnet; did you mean --silent?"},
		{"./www start", 5, "vserver: ./www: configurations lie below /etc/vservers: move it there"},
		{"www", 2, "vserver: want vserver NAME COMMAND; vserver --help lists the commands\n"},
		{"--all", 2, "vserver: want vserver NAME COMMAND;"},
		{"start bb", 2, `vserver: unknown command "bb"; did you mean vserver bb start?; vserver --help lists them`},
		{"none-such exec -x true", 2, "vserver: exec: unknown option -x\n"},
		{"none-such exec -u= true", 2, "vserver: exec: option -u: its argument is empty\n"},
		{"none-such enter -w=", 2, "vserver: enter: option -w: its argument is empty\n"},
		{"none-such adopt --port 80/foo", 2, `vserver: adopt: option --port: port "80/foo": protocol is "foo", want tcp or udp`},
		{"none-such build -m clone", 1, "vserver: build: build by clone: which guest? want -s GUEST"},
		{"none-such build -m rpm", 1, "vserver: build: build by rpm: the method is not offered: it installed lists of packages"},
		{"none-such build -m template --nat", 1, "vserver: build: build by template: want -t FILE"},
		{"none-such limits", 5, "Can not find a vserver-setup at '/etc/vservers/none-such/'."},
		{"--mark web enter", 2, "vserver: enter is for one guest"},
		{"--mark", 1, "vserver: option --mark needs an argument"},
		{"-j many --all start", 1, "vserver: option -j: want a number of guests to work on at a time, not \"many\""},
		{"--runing start", 1, "vserver: unknown option --runing; did you mean --running?"},
		{"none-such exec -t -T true", 2, "vserver: exec: options -t and -T cannot be used together"},
		{"none-such exec -e A true", 2, "vserver: exec: environment \"A\": want NAME=VALUE"},
		{"none-such exec -w tmp true", 2, "vserver: exec: directory \"tmp\": want a path of the guest"},
		{"none-such enter sh", 2, "vserver: enter takes no command: vserver none-such exec sh"},
		{"none-such start now", 2, "vserver: start takes no argument \"now\"; a command goes with --rescue"},
		{"none-such start --recsue", 1, "vserver start: unknown option --recsue; did you mean --rescue?"},
		{"none-such start --sync now", 2, "vserver: start takes no argument \"now\""},
		{"none-such start --sync", 5, "Can not find a vserver-setup"},
		{"none-such stop --rescue", 1, "vserver stop: unknown option --rescue"},
		{"none-such pkg remove vim", 2, "vserver: pkg: unknown command \"remove\""},
		{"none-such start", 5, "Can not find a vserver-setup at '/etc/vservers/none-such/'.\n\nPossible solutions:\n"},
		{"none-such status", 5, "Can not find a vserver-setup at '/etc/vservers/none-such/'."},
		{"none-such exec true", 5, "Can not find a vserver-setup at '/etc/vservers/none-such/'."},
	} {
		t.Run(row.args, func(t *testing.T) {
			said, err := stderrOf(t, func() error { return run(context.Background(), "vserver", strings.Fields(row.args)) })
			var exit exitError
			if !errors.As(err, &exit) || int(exit) != row.status || !strings.HasPrefix(said, row.want) {
				t.Errorf("error %v, said %q, want %d and %q", err, said, row.status, row.want)
			}
		})
	}
}

// TestEveryWordIsTakenOrRefused: what the table takes is a verb, an option or a program
// that there is, and nothing else is.
func TestEveryWordIsTakenOrRefused(t *testing.T) {
	for _, w := range append(methodWords(), words...) {
		if w.of == tools && w.instead != "" {
			said, err := stderrOf(t, func() error { return run(context.Background(), w.name, []string{"-x"}) })
			if exit := exitError(1); !errors.Is(err, exit) || said != w.name+": not there: "+w.what+"; instead: "+w.instead+"\n" {
				t.Errorf("%s: %v, said %q", w.name, err, said)
			}
		}
		if w.of == "build" {
			_, err := parseBuild("www", []string{w.name + "=x"})
			if refused := err != nil && strings.HasPrefix(err.Error(), "option "+w.name+": "+w.what); refused != (w.instead != "") {
				t.Errorf("build %s: %v", w.name, err)
			}
		}
		if w.what == "" || strings.HasSuffix(w.what, ".") || strings.HasSuffix(w.instead, ".") {
			t.Errorf("%s %s: %q, %q", w.of, w.name, w.what, w.instead)
		}
	}
	linked := append([]string{"vserver"}, namesOf(tools)...)
	have := slices.Clone(node.Links)
	slices.Sort(have)
	slices.Sort(linked)
	b, err := os.ReadFile("../../packaging/vsnode.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range have {
		if !strings.Contains(string(b), "dst: /usr/sbin/"+name+", type: symlink") {
			t.Errorf("packaging/vsnode.yml has no link %s", name)
		}
	}
	if !slices.Equal(linked, have) {
		t.Errorf("linked are %q, programs are %q", have, linked)
	}
}

// TestWordsAreDocumented compares the table with docs/linux-vserver.md.
func TestWordsAreDocumented(t *testing.T) {
	const page, begin, end = "../../docs/linux-vserver.md", "<!-- words: go test ./cmd/vsnode -run TestWordsAreDocumented -update -->\n", "<!-- end of words -->\n"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s: the table's marks are gone", page)
	}
	want := before + begin + wordsTable() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(b) {
		t.Errorf("%s has another table than words.go: go test ./cmd/vsnode -run TestWordsAreDocumented -update", page)
	}
}

var update = flag.Bool("update", false, "write the documentation's tables")

// wordsTable is words in Markdown.
func wordsTable() string {
	var b strings.Builder
	cell := strings.NewReplacer("|", "\\|", "\n", " ", "<", "\\<", "*", "\\*").Replace
	group := func(title string, of string, wanted func(word) bool) {
		b.WriteString("\n### " + title + "\n\n| word | here | instead |\n|---|---|---|\n")
		for _, w := range wordsWith(of) {
			if w.of != of || !wanted(w) {
				continue
			}
			what := w.what
			if w.instead != "" {
				what = "refused: " + what
			}
			b.WriteString("| `" + strings.ReplaceAll(strings.TrimSpace(w.name+" "+w.args), "|", "\\|") + "` | " + cell(what) + " | " + cell(w.instead) + " |\n")
		}
	}
	group("Verbs of vserver", "", isVerb)
	group("Options of vserver", "", isOption)
	group("Options of start", "start", anyWord)
	group("Options of stop", "stop", anyWord)
	group("Options of exec and enter", "exec", anyWord)
	group("Options of log", "log", anyWord)
	group("Options of list", "list", anyWord)
	group("Options of hashify", "hashify", anyWord)
	group("Options of adopt", "adopt", anyWord)
	group("Options of delete", "delete", anyWord)
	group("Options of build", "build", anyWord)
	group("Methods of build", methods, anyWord)
	group("Programs", tools, anyWord)
	return b.String()
}

func TestLimitsAreReadAsUtilVserverWroteThem(t *testing.T) {
	page := uint64(os.Getpagesize())
	for _, row := range []struct{ args, want string }{
		{"-c 666", "666"},
		{"-a --xid=www", "www"},
		{"-c www --nproc 100", "www pids.max=100"},
		{"-c www --rss 1K --nproc=inf", fmt.Sprintf("www memory.max=%d pids.max=max", 1024*page)},
		{"-c www -S --rss 1k -H --swap 0", fmt.Sprintf("www memory.high=%d memory.swap.max=0", 1000*page)},
		{"-c www -S --nproc 10", "vlimit: option --nproc: it has no soft limit\n"},
		{"-c www --nofile 10", "vlimit: option --nofile: a running guest as a whole has limits of nproc, rss and swap;"},
		{"-c www --rss many", "vlimit: option --rss: "},
		{"-c www --rss 18446744073709551614", "vlimit: option --rss: "},
		{"-c", "vlimit: option -c needs an argument\n"},
		{"-M --rss 5", "vlimit: option -M: no limit has a minimum:"},
		{"--nproc 5", "vlimit: no context:"},
	} {
		t.Run(row.args, func(t *testing.T) {
			var got string
			said, err := stderrOf(t, func() error {
				ref, set, err := limitOptions(strings.Fields(row.args))
				got = ref
				for _, s := range set {
					got += " " + s.file + "=" + s.value
				}
				return err
			})
			if err != nil {
				got = said
			}
			if got != row.want && (err == nil || !strings.HasPrefix(got, row.want)) {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestMistakesAtTheProgramsBesideVserver(t *testing.T) {
	for _, row := range []struct {
		program, args string
		status        int
		want          string
	}{
		{"vlimit", "-c none-such", 5, "Can not find a vserver-setup at '/etc/vservers/none-such/'."},
		{"vkill", "bb", 1, "vkill: 'bb' is not a number; a guest's name goes behind -c\n"},
		{"vkill", "-9", 1, "vkill: No pid specified\n"},
		{"vkill", "-KILL x", 1, "vkill: 'x' is not a number"},
		{"vkill", "-NONE 1", 1, "vkill: unknown option -NONE"},
	} {
		t.Run(row.program+" "+row.args, func(t *testing.T) {
			said, err := stderrOf(t, func() error { return run(context.Background(), row.program, strings.Fields(row.args)) })
			if !errors.Is(err, exitError(row.status)) || !strings.HasPrefix(said, row.want) {
				t.Errorf("error %v, said %q, want %d and %q", err, said, row.status, row.want)
			}
		})
	}
}

func TestHelpIsAboutTheCommand(t *testing.T) {
	for command, want := range map[string]string{
		"install":      "vsnode install [--dir DIR]      put",
		"uninstall":    "vsnode uninstall [--dir DIR]    take back what install did\n",
		"image list":   "vsnode image list               reference installations on this host\n",
		"vserver-stat": "vserver-stat [--json]\n\nShow what the host",
		"vserver-info": "vserver-info [-q] NAME|PID|CONTEXT|- [TAG] | -l\n",
		"log":          "vserver NAME log [-n LINES] [-f]\n\nShow",
		"list":         "vserver NAME list [--json]\n\nShow guests, running or stopped",
		"serve":        "vsnode serve                    answer",
	} {
		if got := usageOf(command); !strings.HasPrefix(got, want) || strings.Count(got, "\n  vsnode ") > 0 {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// Every verb has a help, with its options, wherever --help stands.
func TestHelpOfVerbs(t *testing.T) {
	for _, row := range []struct{ args, want, option string }{
		{"start --help", "vserver NAME start [--sync]", "\n  --rescue-cmd COMMAND "},
		{"www start -h", "vserver NAME start [--sync]", "\n  --sync "},
		{"www start --sync --help", "vserver NAME start [--sync]", "\n  --sync "},
		{"--all stop --help", "vserver NAME stop\n\nStop it.\n", "\n  --rescue-init "},
		{"enter --help", "vserver NAME enter [-u USER]", "\n  -u USER "},
		{"www build -h", "vserver NAME build -m METHOD", "\nOther options of util-vserver are refused"},
		{"adopt --help", "vserver NAME adopt [--dry-run]", "\n  --keep-owners "},
		{"apt-cache --help", "vserver NAME apt-cache ARGUMENTS\n\nRun the program of that name in it.\n", ""},
		{"list --help", "vserver NAME list [--json]\n\nShow guests", "\n  --json "},
		{"--help", "vserver [OPTIONS]", "\nvserver COMMAND --help\n"},
	} {
		t.Run(row.args, func(t *testing.T) {
			var err error
			said, rerr := readStream(t, &os.Stdout, func() { err = run(context.Background(), "vserver", strings.Fields(row.args)) })
			if exit := exitError(0); err != nil && !errors.Is(err, exit) || rerr != nil || !strings.HasPrefix(said, row.want) || !strings.Contains(said, row.option) {
				t.Errorf("%v, %v, %q, want %q and %q", err, rerr, said, row.want, row.option)
			}
		})
	}
	for _, verb := range verbs() {
		if got, _, _ := strings.Cut(verbHelp(verb), "\nOptions:"); strings.Contains(got, likewise) || strings.Contains(got, "Likewise") {
			t.Errorf("%s: %q", verb, got)
		}
	}
	if wantsHelp("apt-get", []string{"--help"}) || wantsHelp("exec", []string{"ls", "--help"}) || wantsHelp("exec", []string{"--", "--help"}) {
		t.Error("the help of a program in a guest is not vserver's")
	}
}

func TestListOfGuests(t *testing.T) {
	rows := [][]string{
		{"CTX", "NAME", "STATE"},
		listRow(api.GuestState{
			Guest:  api.Guest{Name: "www", Context: 120, Network: api.Network{Mode: api.ModeShared, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}},
			Status: api.Running, Processes: 7, Started: time.Now().Add(-25*time.Hour - time.Minute),
		}, nil, "bookworm"),
		listRow(api.GuestState{
			Guest:  api.Guest{Name: "old\x1b", Context: 7, Network: api.Network{Mode: api.ModeNAT}},
			Status: api.Stopped, Ended: &api.End{Seen: true, Status: 3}, Unread: []api.Unread{{File: "apps/init/style", Why: "not known", Refuses: true}},
		}, []string{"disabled"}, ""),
	}
	rows[0] = append(rows[0], "PROC", "UPTIME", "NETWORK", "IMAGE", "ADDRESSES AND PORTS")
	var b strings.Builder
	if err := writeColumns(&b, rows); err != nil {
		t.Fatal(err)
	}
	const want = "" +
		"CTX  NAME     STATE    PROC  UPTIME         NETWORK  IMAGE     ADDRESSES AND PORTS\n" +
		"120  www      running  7     1 days, 01:01  shared   bookworm  192.0.2.1\n" +
		"7    old\\x1b  stopped  0     -              nat      -         (disabled; exit status 3; does not start: apps/init/style: not known)\n"
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}

func TestMistakesOfVsnode(t *testing.T) {
	for _, row := range []struct {
		name, args, want string
	}{
		{"vsnode", "chekc", `unknown command "chekc"; did you mean check?; vsnode help lists them`},
		{"vsnode", "check --jsno", "check: unknown option --jsno; did you mean --json?"},
		{"vsnode", "check now", `check: unexpected argument "now"`},
		{"vsnode", "serve -x", "serve: unknown option -x"},
	} {
		t.Run(row.args, func(t *testing.T) {
			err := run(context.Background(), row.name, strings.Fields(row.args))
			var use usageError
			if !errors.As(err, &use) || err.Error() != row.want {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
	said, err := stderrOf(t, func() error { return run(context.Background(), "vserver-stat", []string{"--nosuch"}) })
	if exit := exitError(1); !errors.Is(err, exit) || said != "vserver-stat: unknown option --nosuch\n" {
		t.Errorf("vserver-stat: %v, said %q", err, said)
	}
	if err := parse(flag.NewFlagSet("x", flag.ContinueOnError), []string{"-h"}, ""); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h is %v", err)
	}
}

// stderrOf runs f and returns what it said on standard error.
func stderrOf(t *testing.T, f func() error) (said string, err error) {
	t.Helper()
	said, rerr := readStream(t, &os.Stderr, func() { err = f() })
	if rerr != nil {
		t.Fatal(rerr)
	}
	return said, err
}

// readStream runs f and returns what it wrote to a standard stream, at most 64 KiB.
func readStream(t *testing.T, stream **os.File, f func()) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	old := *stream
	*stream = w
	f()
	*stream = old
	w.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}
