package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/fleet/remote"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Forward is a TCP port of this machine that leads to a service of a guest.
type Forward struct {
	Listen netip.AddrPort // port 0: any
	To     netip.AddrPort // as the guest's own programs would name it
}

func (f Forward) String() string { return fmt.Sprintf("%s to %s", f.Listen, f.To) }

// ParseForward parses [ADDRESS:]PORT[:[ADDRESS:]PORT]: where to listen on this machine,
// and where the service is in the guest. The addresses default to 127.0.0.1, the second
// port to the first. IPv6 addresses are in brackets.
func ParseForward(s string) (Forward, error) {
	f, err := parseForward(s)
	if err != nil {
		return f, fmt.Errorf("forward %q: %w; want [ADDRESS:]PORT[:[ADDRESS:]PORT], as 8080:80", s, err)
	}
	return f, nil
}

func parseForward(s string) (f Forward, err error) {
	listen, rest, err := endpoint(s)
	if err != nil {
		return f, err
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), listen.Port())
	if rest != "" {
		if to, rest, err = endpoint(rest); err != nil {
			return f, err
		}
	}
	switch {
	case rest != "":
		return f, fmt.Errorf("%q is too much", rest)
	case to.Port() == 0:
		return f, errors.New("the guest's port cannot be 0")
	}
	return Forward{Listen: listen, To: to}, nil
}

// endpoint takes [ADDRESS:]PORT off the beginning of s.
func endpoint(s string) (e netip.AddrPort, rest string, err error) {
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var word, after string
	if inner, ok := strings.CutPrefix(s, "["); ok {
		word, after, _ = strings.Cut(inner, "]")
		after = strings.TrimPrefix(after, ":")
	} else {
		word, after, _ = strings.Cut(s, ":")
	}
	if port, err := strconv.ParseUint(word, 10, 16); err == nil && !strings.HasPrefix(s, "[") {
		return netip.AddrPortFrom(addr, uint16(port)), after, nil
	}
	if word != "localhost" {
		if addr, err = netip.ParseAddr(word); err != nil {
			return e, "", fmt.Errorf("%q is neither a port nor an address", word)
		}
	}
	word, after, _ = strings.Cut(after, ":")
	port, err := strconv.ParseUint(word, 10, 16)
	if err != nil {
		return e, "", fmt.Errorf("%q is not a port", word)
	}
	return netip.AddrPortFrom(addr, uint16(port)), after, nil
}

// maxForwarded bounds the open connections of one forward; further ones wait. Each
// needs a vsnode on the host.
const maxForwarded = 100

// Forward forwards connections to services of a guest until ctx ends. They go through the
// SSH connection to the host, where no port is opened. opened is called for each forward
// once it listens, failed for each connection that could not be made.
func (a *Access) Forward(ctx context.Context, h *inventory.Host, guest string, forwards []Forward, opened func(Forward), failed func(error)) error {
	conn, err := a.Dial(ctx, h)
	if err != nil {
		return err
	}
	defer conn.Close()
	host := remote.New(conn)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	for i, f := range forwards {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", f.Listen.String())
		if err != nil {
			return fmt.Errorf("forward %s: %w", f, err)
		}
		listeners = append(listeners, l)
		forwards[i].Listen = l.Addr().(*net.TCPAddr).AddrPort()
		opened(forwards[i])
	}
	var g errgroup.Group
	for i, l := range listeners {
		g.Go(func() error {
			defer cancel()
			return accept(ctx, l, func(local net.Conn) {
				req := api.Connect{Guest: guest, To: forwards[i].To}
				if err := host.Connect(ctx, req, local, local); err != nil && ctx.Err() == nil {
					failed(err)
				}
			})
		})
	}
	err = g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// accept calls serve for each connection of a listener, a bounded number at a time, until
// ctx ends.
func accept(ctx context.Context, l net.Listener, serve func(net.Conn)) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var g errgroup.Group
	g.SetLimit(maxForwarded)
	for {
		local, err := l.Accept()
		if err != nil {
			_ = g.Wait() // its functions return no errors
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		g.Go(func() error {
			defer local.Close()
			defer context.AfterFunc(ctx, func() { local.Close() })()
			serve(local)
			return nil
		})
	}
}
