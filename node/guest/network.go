package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/network"
)

// neighbours gives network modes access to the other guests of a host.
type neighbours struct{ h *Host }

func (n neighbours) Networks() (map[string]api.Guest, error) { return n.h.startedGuests() }

func (n neighbours) ContextNames() (map[int]string, error) {
	guests, err := n.h.configured()
	names := map[int]string{}
	for _, g := range guests {
		if g.Context != 0 { // otherwise it never ran
			names[g.Context] = g.Name
		}
	}
	return names, err
}

// mode returns the network mode of a guest that was started.
func (s notes) mode() network.Mode {
	name := api.Mode("")
	if s.Runs != nil {
		name = s.Runs.Network.Mode
	}
	return s.Notes.Mode(name)
}

// onNetwork returns a guest that was started in the form its network mode takes.
func (h *Host) onNetwork(name string, cg cgroup.Dir, n *notes) *network.Guest {
	g := n.startedAs(name)
	g.Name = name
	return &network.Guest{Guest: g, Cgroup: string(cg), Others: neighbours{h}, Notes: &n.Notes}
}

// publish opens the host's packet filter for a running guest.
func (g *Guest) publish(ctx context.Context) error {
	if g.noted.Runs == nil { // written by an older vsnode
		if !g.noted.NAT {
			return nil
		}
		return network.PublishAll(ctx, neighbours{g.host})
	}
	return network.Publish(ctx, g.onNetwork())
}

// repairNetwork restores what was taken from a running guest.
func (g *Guest) repairNetwork(ctx context.Context) (err error) {
	on, mode := g.onNetwork(), g.noted.mode()
	if mode.Private() {
		if on.Netns, err = g.openNamespace(); err != nil {
			return err
		}
		defer on.Netns.Close()
	}
	return mode.Repair(ctx, on)
}

// openNamespace opens the network namespace of a running guest.
func (g *Guest) openNamespace() (*os.File, error) {
	pid, err := g.cgroup.Init()
	if err != nil {
		return nil, err
	}
	netns, err := linux.Open(fmt.Sprintf("/proc/%d/ns/net", pid), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	return netns, err
}
