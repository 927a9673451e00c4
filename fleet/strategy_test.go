package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/inventory"
)

func TestStrategy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yml")
	if err := os.WriteFile(path, []byte(`hosts: {"web[1:3]": {labels: {site: fra}}, db1: {}}
rollout: {serial: [1, 100%], max_fail: 2, on_failure: keep, retries: 1, pause: 5s, budget: {site: 1}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		given string // options on the command line
		o     StrategyOptions
		want  string // of the strategy, or a part of the error
	}{
		{"the inventory's", "", StrategyOptions{}, "[1 100%] canary 0 pause 5s max 2 keep 1 [{site 1}]"},
		{"a flag wins", "serial max-fail", StrategyOptions{Serial: "10%", MaxFail: "0"}, "[10%] canary 0 pause 5s max 0 keep 1 [{site 1}]"},
		{"flags for all", "serial canary pause max-fail on-failure retries budget", StrategyOptions{
			Serial: "2", Canary: "web1", Pause: time.Minute, MaxFail: "50%", OnFailure: "revert", Retries: 3, Budget: []string{"site=50%"},
		}, "[2] canary 1 pause 1m0s max 50% revert 3 [{site 50%}]"},
		{"a canary that matches nothing", "canary", StrategyOptions{Canary: "nobody"}, "--canary: no host or group"},
		{"a canary that is not in the run", "canary", StrategyOptions{Canary: "db1"}, "--canary db1: none of these hosts is in the run"},
		{"a label that nobody has", "budget", StrategyOptions{Budget: []string{"rack=1"}}, `--budget: no host has a label "rack"`},
		{"a budget without a number", "budget", StrategyOptions{Budget: []string{"site"}}, "--budget: want a label and a number of hosts"},
		{"a budget with an odd number", "budget", StrategyOptions{Budget: []string{"site=x"}}, "--budget: want a number of hosts"},
		{"sizes that are none", "serial", StrategyOptions{Serial: "a"}, "--serial: want a number of hosts"},
		{"a negative number", "retries", StrategyOptions{Retries: -1}, "--retries: want a number from 0 on"},
		{"a negative time", "pause", StrategyOptions{Pause: -1}, "want a time from 0 on"},
		{"what is not known for failures", "on-failure", StrategyOptions{OnFailure: "stop"}, "--on-failure: want revert or keep"},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.o.Given = func(name string) bool { return slices.Contains(strings.Fields(row.given), name) }
			row.o.Hosts = inv.Hosts[:3]
			s, err := Strategy(inv, row.o)
			got := fmt.Sprintf("%v canary %d pause %s max %s %s %d %v", s.Serial, len(s.Canary), s.Pause, s.MaxFail, s.OnFailure, s.Retries, s.Budget)
			if err != nil {
				got = err.Error()
			}
			if got != row.want && (err == nil || !strings.Contains(got, row.want)) {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestAPauseNeedsBatches(t *testing.T) {
	o := StrategyOptions{Pause: time.Second, Given: func(name string) bool { return name == "pause" }}
	if _, err := Strategy(&inventory.Inventory{}, o); err == nil || !strings.Contains(err.Error(), "--pause needs --serial or --canary") {
		t.Error(err)
	}
	o.OwnBatches = true
	if _, err := Strategy(&inventory.Inventory{}, o); err != nil {
		t.Errorf("a playbook has batches of its own: %v", err)
	}
}
