package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

// The history is historyRuns runs over historyHosts hosts.
const (
	historyRuns  = 10_000
	historyHosts = 20
)

// historyRow measures how long lists of a long history take, as whole commands.
func historyRow(ctx context.Context, b *bench) error {
	state := "/run/history" // in memory, as a file that was read before
	env := append(os.Environ(), "XDG_STATE_HOME="+state)
	defer os.RemoveAll(state)
	begun := time.Now()
	for first := 0; first < historyRuns; first += 100 { // what one vsfleet takes in
		if err := writeJournals(filepath.Join(state, "vsfleet/history/journal"), first, 100); err != nil {
			return err
		}
		if err := inState(ctx, env, b.vsfleet, "history"); err != nil {
			return err
		}
	}
	info, err := os.Stat(filepath.Join(state, "vsfleet/history/runs.db"))
	if err != nil {
		return err
	}
	fmt.Printf("\nHistory of %d runs over %d hosts (target: a list in 50 ms); %d MB, filled in %s\n",
		historyRuns, historyHosts, info.Size()>>20, threeDigits(time.Since(begun)))
	for _, args := range [][]string{
		{"version"}, {"history"}, {"history", "--failed"}, {"history", "--host", "db1"}, {"history", "show", "last"}, {"history", "-n", "0", "-o", "ndjson"},
	} {
		var all []time.Duration
		for range b.rounds(20) {
			begun := time.Now()
			if err := inState(ctx, env, b.vsfleet, args...); err != nil {
				return err
			}
			all = append(all, time.Since(begun))
		}
		slices.Sort(all)
		fmt.Printf("  vsfleet %-28s %10s  %10s … %s\n", fmt.Sprint(args), threeDigits(all[len(all)/2]), threeDigits(all[0]), threeDigits(all[len(all)-1]))
	}
	return nil
}

func inState(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	return cmd.Run()
}

// writeJournals writes journals as vsfleets leave them that were killed at the end of
// their runs.
func writeJournals(dir string, first, n int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := first; i < first+n; i++ {
		run := report.Run{When: time.Now().Add(time.Duration(i-historyRuns) * time.Minute), Who: "root@ctl", Verb: "apply", Took: time.Second}
		run.ID = report.NewID(run.When)
		for k := range historyHosts {
			run.Hosts = append(run.Hosts, report.Host{Name: fmt.Sprintf("web%02d", k), Result: report.Result{Status: outcome.Changed}})
		}
		events := []report.Event{report.Began(run)}
		for _, h := range run.Hosts {
			h.Steps = []report.Step{
				{Kind: "guest.create", Name: "www", Why: "it is not on the host", Result: h.Result},
				{Kind: "guest.start", Name: "www", Why: "the inventory says running", Result: h.Result},
			}
			events = append(events, report.Event{Run: run.ID, Time: run.When, Kind: report.Done, Host: h.Name, Result: &h.Result, Report: &h})
		}
		f, err := os.OpenFile(filepath.Join(dir, run.ID+".jsonl"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		enc := json.NewEncoder(f)
		for _, e := range append(events, report.Ended(run)) {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
