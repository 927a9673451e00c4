package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/inventory"
)

// StrategyOptions is the strategy that a command line gives.
type StrategyOptions struct {
	Serial, Canary, MaxFail, OnFailure string
	Pause, HostTimeout                 time.Duration
	Retries                            int
	RetrySteps                         bool
	Budget                             []string

	Hosts []*inventory.Host // of the run

	OwnBatches bool // the run may have batches that are not of the options: a playbook's

	// Given reports whether an option was given, by its name on the command line.
	Given func(name string) bool
}

// Strategy returns the strategy of an inventory; options override it.
func Strategy(inv *inventory.Inventory, o StrategyOptions) (s rollout.Strategy, err error) {
	r := inv.Rollout
	option := func(name string, set func() error) {
		if err != nil || !o.Given(name) {
			return
		}
		if err = set(); err != nil {
			err = fmt.Errorf("--%s: %w", name, err)
		}
	}
	option("serial", func() (err error) { r.Serial, err = batch.ParseSizes(o.Serial); return err })
	option("canary", func() error { r.Canary = o.Canary; return nil })
	option("pause", func() error { r.Pause = o.Pause; return nil })
	option("max-fail", func() error { return r.MaxFail.Set(o.MaxFail) })
	option("on-failure", func() error { r.OnFailure = o.OnFailure; return nil })
	option("retries", func() error { r.Retries = o.Retries; return nil })
	option("host-timeout", func() error { r.HostTimeout = o.HostTimeout; return nil })
	option("budget", func() (err error) { r.Budget, err = parseBudget(inv, o.Budget); return err })
	if err != nil {
		return s, err
	}
	s = rollout.Strategy{
		Serial: r.Serial, Pause: r.Pause, MaxFail: r.MaxFail, OnFailure: rollout.OnFailure(r.OnFailure),
		Retries: r.Retries, RetrySteps: o.RetrySteps, HostTimeout: r.HostTimeout,
	}
	switch {
	case r.Retries < 0:
		return s, fmt.Errorf("--retries: want a number from 0 on, have %d", r.Retries)
	case !o.OwnBatches && o.Given("pause") && r.Pause > 0 && len(r.Serial) == 0 && r.Canary == "":
		return s, fmt.Errorf("--pause needs --serial or --canary: all hosts are one batch")
	case r.Pause < 0 || r.HostTimeout < 0:
		return s, fmt.Errorf("--pause, --host-timeout: want a time from 0 on")
	case !slices.Contains([]rollout.OnFailure{"", rollout.Revert, rollout.Keep}, s.OnFailure):
		return s, fmt.Errorf("--on-failure: want revert or keep, have %q", r.OnFailure)
	}
	if r.Canary != "" {
		if s.Canary, err = inv.Select(r.Canary); err != nil {
			return s, fmt.Errorf("--canary: %w", err)
		}
		in := slices.ContainsFunc(s.Canary, func(h *inventory.Host) bool { return slices.Contains(o.Hosts, h) })
		if !in && o.Given("canary") {
			return s, fmt.Errorf("--canary %s: none of these hosts is in the run", r.Canary)
		}
	}
	for label, most := range r.Budget {
		s.Budget = append(s.Budget, rollout.Budget{Label: label, Most: most})
	}
	slices.SortFunc(s.Budget, func(a, b rollout.Budget) int { return strings.Compare(a.Label, b.Label) })
	return s, nil
}

// parseBudget reads budgets such as "site=1".
func parseBudget(inv *inventory.Inventory, list []string) (map[string]batch.Size, error) {
	budget := map[string]batch.Size{}
	for _, text := range list {
		label, number, ok := strings.Cut(text, "=")
		if !ok || label == "" {
			return nil, fmt.Errorf("want a label and a number of hosts, as site=1, have %q", text)
		}
		size, err := batch.ParseSize(number)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(inv.Hosts, func(h *inventory.Host) bool { return h.Labels[label] != "" }) {
			return nil, fmt.Errorf("no host has a label %q", label)
		}
		budget[label] = size
	}
	return budget, nil
}
