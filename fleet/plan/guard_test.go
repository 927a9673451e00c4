package plan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

func TestGuarded(t *testing.T) {
	tcp := func(first, last uint16) port.Range { return port.Range{Proto: port.TCP, First: first, Last: last} }
	shared := func(ports ...port.Range) api.Network { return api.Network{Mode: api.ModeShared, Ports: ports} }
	own := api.Network{Mode: api.ModeOwn, Dev: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}
	nat := api.Network{Mode: api.ModeNAT}
	forwards := func() api.Network {
		f, err := port.ParseForward("2222:22")
		if err != nil {
			t.Fatal(err)
		}
		return api.Network{Mode: api.ModeNAT, Forwards: []port.Forward{f}}
	}()
	guest := func(n api.Network) *api.Guest { return &api.Guest{Name: "www", Network: n} }
	is := func(status api.Status, n api.Network) api.GuestState {
		return api.GuestState{Guest: *guest(n), Status: status}
	}
	create := func(n api.Network) api.Step { return api.Step{Kind: api.StepCreate, Name: "www", Guest: guest(n)} }
	configure := func(n api.Network) api.Step {
		return api.Step{Kind: api.StepConfigure, Name: "www", Guest: guest(n)}
	}
	limited := configure(nat)
	limited.Guest.Limits.MemoryBytes = 1 << 30
	step := func(kind api.StepKind) api.Step { return api.Step{Kind: kind, Name: "www"} }
	start, stop, restart, files := step(api.StepStart), step(api.StepStop), step(api.StepRestart), step(api.StepFiles)
	behind := is(api.Running, shared())
	behind.Runs = guest(own)
	for _, row := range []struct {
		name  string
		have  []api.GuestState
		steps []api.Step
		want  bool
	}{
		{"no steps", nil, nil, false},
		{"an own address is put on the host's device", nil, []api.Step{create(own), start}, true},
		{"a guest with an own address is made and not started", nil, []api.Step{create(own)}, false},
		{"an own address is taken off", []api.GuestState{is(api.Running, own)}, []api.Step{stop}, true},
		{"a guest with an own address is deleted", []api.GuestState{is(api.Running, own)}, []api.Step{step(api.StepDelete)}, true},
		{"a stopped guest with an own address is deleted", []api.GuestState{is(api.Stopped, own)}, []api.Step{step(api.StepDelete)}, false},
		{"an own address becomes a shared one", []api.GuestState{is(api.Running, own)}, []api.Step{configure(shared(tcp(80, 80))), restart}, true},
		{"a shared address becomes an own one", []api.GuestState{is(api.Running, shared())}, []api.Step{configure(own), restart}, true},
		{"what a guest still runs with has an own address", []api.GuestState{behind}, []api.Step{restart}, true},
		{"a private network", nil, []api.Step{create(nat), start}, true},
		{"a private network is put back", []api.GuestState{is(api.Running, nat)}, []api.Step{step(api.StepRepair)}, true},
		{"a guest with a private network is reverted", []api.GuestState{is(api.Running, nat)}, []api.Step{step(api.StepRevert)}, false},
		{"a forward of a running guest", []api.GuestState{is(api.Running, nat)}, []api.Step{configure(forwards)}, true},
		{"a forward of a stopped guest", []api.GuestState{is(api.Stopped, nat)}, []api.Step{configure(forwards)}, false},
		{"limits of a running guest", []api.GuestState{is(api.Running, nat)}, []api.Step{limited}, false},
		{"files of a running guest", []api.GuestState{is(api.Running, nat)}, []api.Step{files}, false},
		{"a shared address", nil, []api.Step{create(shared(tcp(80, 80), tcp(443, 443))), start}, false},
		{"the port of sshd", nil, []api.Step{create(shared(tcp(22, 22))), start}, true},
		{"the port of sshd, in a range", nil, []api.Step{create(shared(tcp(20, 25))), start}, true},
		{"the port of sshd, in UDP", nil, []api.Step{create(shared(port.Range{Proto: port.UDP, First: 22, Last: 22})), start}, false},
		{"a running guest gets the port of sshd", []api.GuestState{is(api.Running, shared())}, []api.Step{configure(shared(tcp(22, 22)))}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			other := api.Step{Kind: api.StepStart, Name: "other"}
			got := strings.Join(Guarded(append([]api.Step{other}, row.steps...), row.have, 22), " ")
			if (got == "www") != row.want || !row.want && got != "" {
				t.Errorf("%q", got)
			}
		})
	}
}
