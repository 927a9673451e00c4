package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

// screen is an output that tells when something is on it.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wants string
	seen  chan struct{}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	if s.wants != "" && strings.Contains(s.text.String(), s.wants) {
		s.wants = ""
		close(s.seen)
	}
	return len(b), nil
}

// A command that takes long on one host: lab3 ends only when the output of the others
// is on the screen, or after its timeout, or after Ctrl-C.
func TestASlowHostHidesNoOther(t *testing.T) {
	for _, row := range []struct {
		name     string
		format   view.Format
		terminal bool
		timeout  time.Duration
		wants    string // before lab3 ends; empty: nothing can be wanted
		ctrlC    bool
		ends     []string
		exit     int
	}{
		{name: "on a terminal, equal output together", format: view.AsTable, terminal: true, wants: "lab[1-2]:\n  hello\n",
			ends: []string{"lab3:\n  late\n"}, exit: 0},
		{name: "as ndjson", format: view.AsNDJSON, wants: `"host":"lab2"`, ends: []string{`"host":"lab3"`, `"stdout":"late\n"`}, exit: 0},
		{name: "in a pipe after its time, with what it wrote until then", format: view.AsTable, timeout: 50 * time.Millisecond,
			ends: []string{"lab[1-2]:\n  hello\nlab3 (not to its end):\n  so far\n", "no end after 50ms"}, exit: 2},
		{name: "as json after its time", format: view.AsJSON, timeout: 50 * time.Millisecond,
			ends: []string{`"host": "lab1"`, `"exit": null`, `"class": "timeout"`, `"stdout": "so far\n"`}, exit: 2},
		{name: "as json after Ctrl-C", format: view.AsJSON, ctrlC: true,
			ends: []string{`"host": "lab1"`, `"class": "interrupted"`, `"stdout": "so far\n"`}, exit: 130},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			out := &screen{wants: row.wants, seen: make(chan struct{})}
			a := &app{output: row.format, forks: 3}
			a.access.Timeout = row.timeout
			a.stdout = view.Output{Writer: out, Terminal: row.terminal, Width: func() int { return 80 }}
			a.stderr = view.Plain(out)
			var others sync.WaitGroup
			others.Add(2)
			do := func(ctx context.Context, c fleet.Command, _ io.Reader, stdout, _ io.Writer) (int, error) {
				if c.Host.Name != "lab3" {
					defer others.Done()
					_, err := fmt.Fprintln(stdout, "hello")
					return 0, err
				}
				if row.wants != "" {
					select {
					case <-out.seen:
					case <-time.After(20 * time.Second):
						return 0, errors.New("the output of the others was not shown")
					}
					_, err := fmt.Fprintln(stdout, "late")
					return 0, err
				}
				fmt.Fprintln(stdout, "so far")
				others.Wait()
				if row.ctrlC {
					cancel(outcome.ErrInterrupted)
				}
				<-ctx.Done()
				return -1, errors.New("the connection is closed")
			}
			var commands []fleet.Command
			for _, name := range []string{"lab1", "lab2", "lab3"} {
				commands = append(commands, fleet.Command{Host: &inventory.Host{Name: name}})
			}
			cmd := &cobra.Command{}
			cmd.SetContext(ctx)
			err := a.run(cmd, commands, do)
			var exit exitStatus
			if err != nil && !errors.As(err, &exit) || int(exit) != row.exit {
				t.Errorf("%v, want exit status %d", err, row.exit)
			}
			for _, text := range row.ends {
				if got := out.text.String(); !strings.Contains(got, text) {
					t.Errorf("%q is missing in:\n%s", text, got)
				}
			}
		})
	}
}

func TestChangesThatAreAskedFor(t *testing.T) {
	var hosts, guests []string
	prod := &inventory.Group{Name: "prod", Protected: true}
	for i := range fewDeletes + 1 {
		hosts = append(hosts, fmt.Sprintf("web%02d", i))
		guests = append(guests, fmt.Sprintf("web%02d/www", i))
	}
	prod.Hosts = []*inventory.Host{{Name: "web03"}}
	inv := &inventory.Inventory{Groups: []*inventory.Group{prod, {Name: "test", Hosts: []*inventory.Host{{Name: "web00"}}}}}
	for _, tt := range []struct {
		name    string
		changes rollout.Changes
		prune   bool
		want    string // what would be done; empty: nothing is asked
	}{
		{"a few deletes", rollout.Changes{Hosts: hosts[:1], Deletes: guests[1:]}, false, ""},
		{"many deletes", rollout.Changes{Deletes: guests}, false, "it would delete 11 guests, including all data, because the inventory says so (state: absent) (web[00-10]/www), and"},
		{"one delete that the inventory lacks", rollout.Changes{Deletes: guests[:1]}, true, "it would delete 1 guest, including all data, because the inventory lacks them"},
		{"no delete, though pruning", rollout.Changes{Hosts: hosts[:1]}, true, ""},
		{"a protected host", rollout.Changes{Hosts: hosts[:4]}, false, "it would change web03 of the protected group prod, and"},
		{"many hosts", rollout.Changes{Hosts: append(hosts[4:], hosts...)}, false, "it would change 18 hosts, change web03 of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &app{stderr: view.Plain(io.Discard), confirmHosts: 12}
			err := a.confirmChanges(t.Context(), inv, tt.changes, tt.prune)
			var use *usageError
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!errors.As(err, &use) || use.hint != "to do it: --yes" || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPingPrintsHostsAsTheyAnswer(t *testing.T) {
	var out strings.Builder
	a := &app{output: view.AsTable, stderr: view.Plain(io.Discard)}
	a.stdout = view.Output{Writer: &out, Terminal: true, Width: func() int { return 200 }}
	hosts := []*inventory.Host{{Name: "lab1", Address: "192.0.2.1"}, {Name: "lab2", Address: "192.0.2.2"}}
	_, err := a.ping(hosts, func(w fleet.Watch[report.Ping]) fleet.Answers[report.Ping] {
		w.Begin(hosts[0])
		w.Begin(hosts[1])
		w.End(1, fanout.Result[*inventory.Host, report.Ping]{Host: hosts[1], Outcome: outcome.OK})
		if got := out.String(); !strings.Contains(got, "HOST") || !strings.Contains(got, "lab2  192.0.2.2") {
			t.Errorf("before the slow host answers:\n%s", got)
		}
		w.End(0, fanout.Result[*inventory.Host, report.Ping]{Host: hosts[0], Outcome: outcome.OK})
		return nil
	})
	if got := out.String(); err != nil || strings.Count(got, "\n") != 3 || strings.Count(got, "HOST") != 1 {
		t.Errorf("%v:\n%s", err, got)
	}
}
