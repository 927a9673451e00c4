package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/test/fakesshd"
)

// The hosts of a large fleet are servers in one process: sshd and a shell for each of a
// thousand would measure this machine, and not the controller.
const (
	manyHosts  = 1000
	guestsEach = 10
	manyPort   = "2200"
)

// serversVar names the directory for which a process is the servers of a large fleet.
const serversVar = "VSFLEET_BENCH_SERVERS"

// serveHosts answers for all hosts until it is killed. Each has the state in the file
// state.json.
func serveHosts(dir string) error {
	text, err := os.ReadFile(dir + "/state.json")
	if err != nil {
		return err
	}
	var state api.State
	if err := json.Unmarshal(text, &state); err != nil {
		return err
	}
	if _, err := fakesshd.Start(dir, fakesshd.Options{Listen: "0.0.0.0:" + manyPort, State: &state}); err != nil {
		return err
	}
	select {} // until it is killed
}

// thousandRow measures the controller with 1,000 hosts, and what a plan costs beyond the
// network.
func thousandRow(ctx context.Context, b *bench) (err error) {
	const forks = "256"
	f := &fleet{dir: "/run/thousand", hosts: addresses(manyHosts), port: manyPort}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	if err := f.writeClient(); err != nil {
		return err
	}
	if err := f.addGuests(); err != nil {
		return err
	}
	servers := exec.CommandContext(ctx, "/proc/self/exe")
	servers.Env = append(os.Environ(), serversVar+"="+f.dir)
	servers.Stderr = os.Stderr
	if err := servers.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, servers.Process.Kill())
		servers.Wait() // "signal: killed", as intended
	}()
	if err := awaitPort(f.hosts[0] + ":" + manyPort); err != nil {
		return err
	}
	read := tool{name: "vsfleet inventory list", args: append(f.vsfleet(b, forks, "inventory", "list"), "-o", "csv")}
	ping := tool{name: "vsfleet ping", args: append(f.vsfleet(b, forks, "ping"), "-o", "csv")}
	plan := tool{name: "vsfleet plan", args: f.vsfleet(b, forks, "plan", "--detailed-exitcode")}
	title := fmt.Sprintf("%d hosts with %d guests each, servers in one process, %s at once (targets: 1.5 ms and 100 KB a host beyond 20 MB; inventory 0.5 s; plan 1.5 s beyond the network)", manyHosts, guestsEach, forks)
	return compare(ctx, b, title, manyHosts, b.rounds(3), []tool{ping, plan, read})
}

// addGuests adds guests to the inventory, and writes the state of a host that has them.
func (f *fleet) addGuests() error {
	file := f.dir + "/fleet.yml"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var more strings.Builder
	more.WriteString("images:\n  busybox: {method: template, args: [-t, /srv/busybox.tar]}\nguests:\n")
	for i := range guestsEach {
		fmt.Fprintf(&more, "  g%d:\n    on: all\n    image: busybox\n    context: %d\n    network: {mode: nat, forward: [\"%d:80/tcp\"]}\n    init: plain\n", i, 1000+i, 8000+i)
	}
	if err := os.WriteFile(file, append(text, more.String()...), 0o600); err != nil {
		return err
	}
	inv, err := inventory.Load(file)
	if err != nil {
		return err
	}
	host := inv.Hosts[0]
	image := inv.Image("busybox")
	spec := plan.Spec(image)
	state := api.State{
		Host:   api.Host{Hostname: "fake", Version: "fake", Kernel: "6.12.0", OS: "Debian", Arch: "amd64"},
		Images: []api.Image{{ID: "sha256:" + strings.Repeat("5", 64), Spec: spec, Key: spec.Key()}},
	}
	made := plan.Make(host, state, api.FilesAnswer{}, plan.Rules{Image: inv.Image})
	for _, step := range made.Steps {
		if step.Kind == api.StepCreate {
			state.Guests = append(state.Guests, api.GuestState{Guest: *step.Guest, Status: api.Running})
		}
	}
	if len(state.Guests) != guestsEach {
		return fmt.Errorf("a host would have %d guests, want %d", len(state.Guests), guestsEach)
	}
	encoded, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return os.WriteFile(f.dir+"/state.json", encoded, 0o600)
}
