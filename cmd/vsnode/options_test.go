package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
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
		{"--cpusetcpus 0-1", "option --cpusetcpus: write it into cgroup/cpuset.cpus"},
		{"--cpusetmems 0", "option --cpusetmems: "},
		{"--cpusetvirt", "option --cpusetvirt: "},
		{"--debug", "option --debug: there are no scripts"},
		{"-d bookworm", "option -d: is of the method: write it behind --"},
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
		{"www unify", 2, "vserver: unify: guests share what their image holds"},
		{"www hashify -n", 2, "vserver: hashify: "},
		{"www pkg install vim", 2, "vserver: pkg: use the guest's own tool"},
		{"www pkgmgmt internalize", 2, "vserver: pkgmgmt: "},
		{"www strat", 2, `vserver: unknown command "strat"; did you mean start?`},
		{"--strace www start", 1, "vserver: option --strace: trace it yourself"},
		{"----insecure www start", 1, "vserver: option ----insecure: nothing runs"},
		{"--silnet www start", 1, "vserver: unknown option --silnet; did you mean --silent?"},
		{"./www start", 5, "vserver: ./www: configurations lie below /etc/vservers"},
		{"www", 2, "build -m METHOD"},
	} {
		t.Run(row.args, func(t *testing.T) {
			said, err := stderrOf(t, func() error { return run(context.Background(), "vserver", strings.Fields(row.args)) })
			var exit exitError
			if !errors.As(err, &exit) || int(exit) != row.status || !strings.HasPrefix(said, row.want) && !strings.Contains(said, "\n  "+row.want) {
				t.Errorf("error %v, said %q, want %d and %q", err, said, row.status, row.want)
			}
		})
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
	if err := parse(flag.NewFlagSet("x", flag.ContinueOnError), []string{"-h"}, nil); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h is %v", err)
	}
}

// stderrOf runs f and gives what it said on standard error.
func stderrOf(t *testing.T, f func() error) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	old := os.Stderr
	os.Stderr = w
	ferr := f()
	os.Stderr = old
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), ferr
}
