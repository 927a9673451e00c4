package e2e

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vsfleet/vsfleet/fleet/registry/registrytest"
	"github.com/vsfleet/vsfleet/test/script"
)

// TestScripts runs testdata/*.txtar. $HOST1… are the addresses of the lab's
// hosts and $NET their first three numbers; commands beside testscript's own and
// those of package script:
//
//	lab HOSTS               make a lab and go on with its environment
//	archive HOST…           put the archive of the busybox image there
//	registry                start a docker-registry: its address is $REGISTRY
//	on HOST COMMAND…        run it on a host, but not over SSH (! on: it fails)
//	records FORMAT COUNT    standard output must be COUNT records of json, ndjson or csv
//	totals                  standard output must be vsfleet stat's table, and its sum right
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

func runScripts(t *testing.T, dir string) {
	// Before go test ends everything: the scripts that hang are named, and labs removed.
	deadline, limited := t.Deadline()
	if limited {
		deadline = deadline.Add(-time.Minute)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		ContinueOnError:     true, // all that is wrong, at once
		Deadline:            deadline,
		Setup: func(env *testscript.Env) error {
			env.Values[labKey{}] = new(*practice)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lab": makeLab, "archive": archive, "fill": script.Fill, "exits": script.Exits, "on": on,
			"registry": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Setenv("REGISTRY", registrytest.Start(t, registrytest.Options{}).Addr)
			},
			"fetch": script.Fetch, "records": records, "totals": totals,
		},
	})
}

type labKey struct{}

// labOf is the lab that a script made.
func labOf(ts *testscript.TestScript) *practice {
	p := ts.Value(labKey{}).(**practice)
	if *p == nil {
		ts.Fatalf("no lab: begin with lab HOSTS")
	}
	return *p
}

func makeLab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lab HOSTS")
	}
	hosts, err := strconv.Atoi(args[0])
	ts.Check(err)
	p, err := labUp(hosts, ts.Getenv("WORK"))
	ts.Check(err)
	ts.Defer(func() { ts.Check(p.down()) })
	*ts.Value(labKey{}).(**practice) = p
	for k, v := range p.environment() {
		ts.Setenv(k, v)
	}
	ts.Check(os.MkdirAll(ts.Getenv("HOME"), 0o700))
}

func archive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: archive HOST…")
	}
	tar, err := busyboxArchive(nil)
	ts.Check(err)
	for _, host := range args {
		ts.Check(labOf(ts).put(host, "/srv/busybox.tar", tar))
	}
}

func on(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: on HOST COMMAND…")
	}
	stdout, stderr, exit, err := labOf(ts).on(args[0], nil, args[1:]...)
	ts.Check(err)
	_, err = io.WriteString(ts.Stdout(), stdout)
	ts.Check(err)
	_, err = io.WriteString(ts.Stderr(), stderr)
	ts.Check(err)
	if (exit != 0) != neg {
		ts.Fatalf("exit status %d", exit)
	}
}

func records(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: records FORMAT COUNT")
	}
	text := ts.ReadFile("stdout")
	n := 0
	switch args[0] {
	case "json":
		var list []map[string]any
		ts.Check(json.Unmarshal([]byte(text), &list))
		n = len(list)
	case "ndjson":
		for line := range strings.Lines(text) {
			ts.Check(json.Unmarshal([]byte(line), new(map[string]any)))
			n++
		}
	case "csv":
		list, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		ts.Check(err)
		n = len(list) - 1 // the header
	default:
		ts.Fatalf("format %q", args[0])
	}
	if strconv.Itoa(n) != args[1] {
		ts.Fatalf("%d records, want %s", n, args[1])
	}
}

func totals(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: totals")
	}
	sum := 0
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		f := strings.Fields(line)
		switch f[0] {
		case "HOST":
		case "SUM":
			if f[1] != strconv.Itoa(sum) {
				ts.Fatalf("sum of processes %s, want %d", f[1], sum)
			}
			return
		default:
			n, err := strconv.Atoi(f[2])
			ts.Check(err)
			sum += n
		}
	}
	ts.Fatalf("no line SUM")
}
