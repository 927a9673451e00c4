package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/network"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// neighbours are the guests of a host as network modes ask for them.
type neighbours struct{ h *Host }

func (n neighbours) Networks() (map[string]api.Guest, error) { return n.h.started() }

func (n neighbours) ContextNames() (map[int]string, error) {
	guests, err := n.h.configured()
	names := map[int]string{}
	for _, g := range guests {
		if g.Context != 0 { // else it never ran
			names[g.Context] = g.Name
		}
	}
	return names, err
}

// mode is the network mode of a guest that was started.
func (s notes) mode() network.Mode {
	name := api.Mode("")
	if s.Runs != nil {
		name = s.Runs.Network.Mode
	}
	return s.Notes.Mode(name)
}

// onNetwork returns a guest that was started as its network mode sees it. What the
// mode notes goes into st and to the disk.
func (h *Host) onNetwork(name string, cg procctx.Cgroup, st *notes) *network.Guest {
	g := st.runs(name)
	g.Name = name
	return &network.Guest{
		Guest: g, Cgroup: string(cg), Others: neighbours{h},
		Notes: &st.Notes, Save: func() error { return h.writeNotes(name, *st) },
	}
}

// publish makes way for a guest in the host's packet filter.
func (h *Host) publish(ctx context.Context, name string, cg procctx.Cgroup, st *notes) error {
	if st.Runs == nil { // an older vsnode's
		if !st.NAT {
			return nil
		}
		return network.PublishAll(ctx, neighbours{h})
	}
	return network.Publish(ctx, h.onNetwork(name, cg, st))
}

// openNamespace opens the network namespace of a running guest.
func openNamespace(cg procctx.Cgroup) (*os.File, error) {
	pid, err := cg.Init()
	if err != nil {
		return nil, err
	}
	netns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	return netns, err
}
