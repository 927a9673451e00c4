package network

import (
	"context"
	"fmt"
	"strings"

	"github.com/vsfleet/vsfleet/node/netctx"
)

// takenError names the program that holds a port a guest owns. The host's sshd on every
// address is the oldest pitfall of all: a login to the guest would land on the host.
type takenError struct {
	host   []string // the listeners
	guests []string
}

func (e *takenError) Error() string {
	if len(e.host) == 0 {
		return fmt.Sprintf("another guest still listens where this one would: %s; restart that guest, or give one of them other ports", strings.Join(e.guests, "; "))
	}
	return fmt.Sprintf("the host itself listens where the guest would: %s; bind these to the host's own address (sshd: ListenAddress) or give the guest other ports", strings.Join(append(e.host, e.guests...), ", "))
}

// listeners returns a takenError if others' sockets are where the guest's would be.
func (m hostNetwork) listeners(ctx context.Context, g *Guest) error {
	taken, err := netctx.Listeners(ctx, m.spec(g))
	if err != nil || len(taken) == 0 {
		return err
	}
	names, err := g.Others.ContextNames()
	if err != nil {
		names = nil // the sockets can be reported without names
	}
	e := &takenError{}
	for _, l := range taken {
		if name := names[l.Context]; l.Context != 0 && name != "" {
			e.guests = append(e.guests, fmt.Sprintf("guest %s, %s", name, l))
		} else {
			e.host = append(e.host, l.String())
		}
	}
	return e
}
