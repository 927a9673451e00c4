package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/probe"
)

// forwarding checks what others' rules on the host do to forwarded packets.
func forwarding(ctx context.Context) probe.Answer {
	problems, err := nat.Problems(ctx)
	switch {
	case err != nil:
		return probe.Unknown("%v", err)
	case len(problems) > 0:
		return probe.No("%s", strings.Join(problems, "; "))
	}
	return probe.Yes("nobody drops them")
}

// refusedPorts returns which guests had a bind refused because they do not own the
// port. Inside the guest only the program's own log shows that.
func refusedPorts(context.Context) probe.Answer {
	mount, err := cgroup.Mount()
	if errors.Is(err, cgroup.ErrNotMounted) {
		return probe.Yes("")
	}
	if err != nil {
		return probe.Tried(err)
	}
	guests, err := cgroup.Guests(mount)
	if err != nil {
		return probe.Tried(err)
	}
	var refused []string
	for _, name := range guests {
		dir, err := os.Open(string(cgroup.Guest(mount, name)))
		if err != nil {
			continue // a guest that has just stopped
		}
		times, last, err := netctx.RefusedPorts(dir)
		dir.Close()
		if err == nil && times > 0 { // a guest in mode nat has no network context
			refused = append(refused, fmt.Sprintf("guest %s was refused port %s (of %d refusals the last)", name, last, times))
		}
	}
	if refused != nil {
		return probe.No("%s", strings.Join(refused, "; "))
	}
	return probe.Yes("")
}

// firewall checks for chains that drop incoming packets. A start compares what they
// accept with the guest's ports.
func firewall(ctx context.Context) probe.Answer {
	walls, err := netctx.Firewalls(ctx)
	if err != nil {
		return probe.Unknown("%v", err)
	}
	var chains []string
	for _, f := range walls {
		chains = append(chains, f.Chain)
	}
	if chains != nil {
		return probe.No("chain %s drops what comes in", strings.Join(chains, ", "))
	}
	return probe.Yes("")
}
