package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func TestDrift(t *testing.T) {
	tests := []struct {
		name  string
		want  []*inventory.Guest
		have  []api.GuestState
		files []api.GuestFilesState
		drift string // guest, what, have, want, one per line
	}{
		{"nothing differs", []*inventory.Guest{www()}, []api.GuestState{there()}, nil, ""},
		{"a guest is missing", []*inventory.Guest{www()}, nil, nil, "www | guest |  | running"},
		{"a guest is not in the inventory", nil, []api.GuestState{there()}, nil, "www | guest | there | not in the inventory"},
		{
			"a guest should be absent", []*inventory.Guest{www(func(g *inventory.Guest) { g.State = inventory.Absent })},
			[]api.GuestState{there()}, nil, "www | guest | there | absent",
		},
		{
			"a setting was edited", []*inventory.Guest{www()},
			[]api.GuestState{there(func(g *api.GuestState) { g.Network.Ports = []port.Range{tcp(81)}; g.Nice = 5 })}, nil,
			"www | ports | 81/tcp | 80/tcp\nwww | nice | 5 | 0",
		},
		{
			"a setting was edited, and has not been taken yet", []*inventory.Guest{www()},
			[]api.GuestState{there(func(g *api.GuestState) {
				runs := g.Guest
				runs.Hostname = "old"
				g.Runs = &runs
			})}, nil, "www | hostname (running) | old | www",
		},
		{
			"a guest ended by itself", []*inventory.Guest{www()},
			[]api.GuestState{there(func(g *api.GuestState) {
				g.Status, g.Ended = api.Stopped, &api.End{Seen: true, Signal: "SIGSEGV"}
			})}, nil, "www | state | stopped (killed by SIGSEGV) | running",
		},
		{
			"an address was taken away", []*inventory.Guest{www()},
			[]api.GuestState{there(func(g *api.GuestState) { g.Drift = []string{"address 192.0.2.10 is gone from eth0"} })}, nil,
			"www | running | address 192.0.2.10 is gone from eth0 | ",
		},
		{
			"a file was edited, and another one was not passed on", []*inventory.Guest{www(motd())}, []api.GuestState{there()},
			[]api.GuestFilesState{{
				Guest: "www", Files: []api.FileState{{Path: "/etc/motd", Differs: "content"}},
				Pending: []api.OnChange{{Command: []string{"nginx", "-s", "reload"}}},
			}},
			"www | file /etc/motd | content | \nwww | files | changed, without nginx -s reload | ",
		},
		{
			"a configuration cannot be read", []*inventory.Guest{www()},
			[]api.GuestState{there(func(g *api.GuestState) { g.Problem = "context: no number" })}, nil,
			"www | configuration | context: no number | ",
		},
		{
			"the context that the host chose is no difference", []*inventory.Guest{www(func(g *inventory.Guest) { g.Context = 0 })},
			[]api.GuestState{there()}, nil, "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Make(&inventory.Host{Name: "web01", Guests: tt.want}, state(tt.have...), api.FilesAnswer{Guests: tt.files}, Rules{Image: images})
			var got []string
			for _, d := range p.Drift {
				got = append(got, fmt.Sprintf("%s | %s | %s | %s", d.Guest, d.What, d.Have, d.Want))
			}
			if text := strings.Join(got, "\n"); text != tt.drift {
				t.Errorf("got\n%s\nwant\n%s", text, tt.drift)
			}
			if len(p.Refused) > 0 {
				t.Errorf("refused: %v", p.Refused)
			}
		})
	}
}

// A guest that is pruned gives its context and its ports to one of the inventory.
func TestPrune(t *testing.T) {
	have := state(there(isNamed("old", 120, tcp(80))))
	p := Make(&inventory.Host{Guests: []*inventory.Guest{www()}}, have, api.FilesAnswer{}, Rules{Image: images, Prune: true})
	if got, want := written(p), lines(`guest.delete old: it is not in the inventory (--prune)
		--
		guest.create www sha256:b1: it is not on the host
		guest.start www: the inventory says running`); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(p.Refused)+len(p.Foreign) > 0 {
		t.Errorf("refused %v, left alone %v", p.Refused, p.Foreign)
	}
}

func TestFingerprint(t *testing.T) {
	guest := api.Guest{Name: "www", Context: 120}
	step := func(change func(*api.Step)) api.Step {
		g := guest
		s := api.Step{
			Kind: api.StepCreate, Name: "www", Guest: &g, Why: "it is not on the host",
			Files: []api.File{{Path: "/etc/motd", Digest: "sha256:1", Content: []byte("a"), Mode: 0o644}},
		}
		change(&s)
		return s
	}
	as := Fingerprint(step(func(*api.Step) {}))
	for _, tt := range []struct {
		name   string
		change func(*api.Step)
		same   bool
	}{
		{"another reason is the same step", func(s *api.Step) { s.Why = "you say so" }, true},
		{"content that is not there yet is the same step", func(s *api.Step) { s.Files[0].Content = nil }, true},
		{"other content is another step", func(s *api.Step) { s.Files[0].Digest = "sha256:2" }, false},
		{"another setting is another step", func(s *api.Step) { s.Guest.Network.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")} }, false},
		{"another kind is another step", func(s *api.Step) { s.Kind = api.StepConfigure }, false},
		{
			"an import of another image is another step",
			func(s *api.Step) { s.Kind, s.Why = api.StepImport, "lab3 has it (0123)" }, false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := step(tt.change)
			if got := Fingerprint(s) == as; got != tt.same {
				t.Errorf("the same: %v, want %v", got, tt.same)
			}
			if s.Files[0].Path != "/etc/motd" || s.Why == "" {
				t.Error("the step itself was changed")
			}
		})
	}
}
