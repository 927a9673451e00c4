package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func TestPlanInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.plan")
	run := report.Run{ID: "1", Hosts: []report.Host{
		{Name: "lab1", Result: report.Result{Status: outcome.Changed}, Steps: []report.Step{{Kind: api.StepStart, Name: "www", Fingerprint: "ab"}}},
		{Name: "lab2", Result: report.Result{Status: outcome.OK}},
		{Name: "lab3", Result: report.Result{Status: outcome.Unreachable, Class: outcome.KindUnreachable, Error: "no route"}},
	}}
	if err := WritePlan(path, SavedPlan{Version: "1.2", Inventories: []string{"saved_test.go"}, Plan: run}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others can read it", info.Mode(), err)
	}
	p, err := ReadPlan(path, "1.2")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Plan.Hosts) != 2 || p.Plan.Hosts[0].Steps[0].Fingerprint != "ab" || !filepath.IsAbs(p.Inventories[0]) {
		t.Errorf("read %+v", p)
	}
	if _, err := ReadPlan(path, "1.3"); err == nil || !strings.Contains(err.Error(), "plan again") {
		t.Errorf("of another version: %v", err)
	}
	if _, err := p.Hosts(&inventory.Inventory{Hosts: []*inventory.Host{{Name: "lab1"}}}); err == nil || !strings.Contains(err.Error(), "lab2") {
		t.Errorf("a host that the inventory lacks: %v", err)
	}
	err = WritePlan(path, SavedPlan{Plan: report.Run{Hosts: run.Hosts[2:]}})
	if err == nil {
		t.Error("a plan of no host was saved")
	}
}

func TestFilesThatAreNoPlans(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "not a plan"},
		{"an inventory", "hosts: {a: {}}\n", "not a plan"},
		{"another JSON", `{"hosts": []}`, "not a plan"},
		{"half a plan", `{"format": "vsfleet-plan-1", "pl`, "not a plan"},
		{"a newer plan", `{"format": "vsfleet-plan-9", "plan": {"hosts": [{"name": "a"}]}}`, "plan again"},
		{"no hosts", `{"format": "vsfleet-plan-1"}`, "no hosts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := decodePlan([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzDecodePlan(f *testing.F) {
	f.Add([]byte(`{"format": "vsfleet-plan-1", "version": "1", "plan": {"id": "1", "hosts": [{"name": "lab1", "status": "ok"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePlan(b); err == nil && len(p.Plan.Hosts) == 0 {
			t.Error("a plan without hosts")
		}
	})
}
