package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// abstractSockets asks who closes them.
func abstractSockets(*System) finding {
	guard, err := netctx.Guard()
	if errors.Is(err, netctx.ErrNoGuard) {
		return no("this kernel has none that vsnode can use")
	}
	if err != nil {
		return tried(err)
	}
	return yes("%s", guard)
}

func nfTables(*System) finding {
	c, err := nftables.New()
	if err != nil {
		return tried(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return tried(fmt.Errorf("list tables: %w", err))
	}
	return yes("%d tables", len(tables))
}

const probeLink = "vsncheck"

// vethPair makes one in a network namespace of its own.
func vethPair(*System) finding {
	return tried(onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: probeLink + "0"}, PeerName: probeLink + "1"}); err != nil {
			return fmt.Errorf("veth: %w", err)
		}
		return nil
	}))
}

// forwarding asks for what others on the host do to packets that it forwards.
func forwarding(*System) finding {
	problems, err := nat.Problems(context.Background())
	switch {
	case err != nil:
		return unknown("%v", err)
	case len(problems) > 0:
		return no("%s", strings.Join(problems, "; "))
	}
	return yes("nobody drops them")
}

// refusedPorts asks which guests had a bind refused, of a port that they do not
// own. Inside a guest only a program's own log says so.
func refusedPorts(*System) finding {
	mount, err := procctx.CgroupMount()
	if errors.Is(err, procctx.ErrNoCgroup2) {
		return yes("")
	}
	if err != nil {
		return tried(err)
	}
	guests, err := os.ReadDir(string(procctx.GuestCgroup(mount, "")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return tried(err)
	}
	var refused []string
	for _, g := range guests {
		dir, err := os.Open(string(procctx.GuestCgroup(mount, g.Name())))
		if err != nil {
			continue // a file of the kernel's, or a guest that has just stopped
		}
		times, last, err := netctx.Refused(dir)
		dir.Close()
		if err == nil && times > 0 { // one in mode nat has no network context
			refused = append(refused, fmt.Sprintf("guest %s was refused port %s (of %d refusals the last)", g.Name(), last, times))
		}
	}
	if refused != nil {
		return no("%s", strings.Join(refused, "; "))
	}
	return yes("")
}

// firewall asks for chains that drop what comes in. What they accept, a start
// compares with the guest's ports.
func firewall(*System) finding {
	walls, err := netctx.Firewalls(context.Background())
	if err != nil {
		return unknown("%v", err)
	}
	var chains []string
	for _, f := range walls {
		chains = append(chains, f.Chain)
	}
	if chains != nil {
		return no("chain %s drops what comes in", strings.Join(chains, ", "))
	}
	return yes("")
}

// pingRange: a ping socket is allowed to groups of this range. The kernel's
// bound for its end is 2^31-1, the last id of context 32767.
func pingRange(s *System) finding {
	const last = 1<<31 - 1
	text, err := s.read("proc/sys/net/ipv4/ping_group_range")
	if err != nil {
		return unknown("%v", err)
	}
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return unknown("net.ipv4.ping_group_range is %q", text)
	}
	from, err1 := strconv.ParseInt(fields[0], 10, 64)
	to, err2 := strconv.ParseInt(fields[1], 10, 64)
	if err1 != nil || err2 != nil {
		return unknown("net.ipv4.ping_group_range is %q", text)
	}
	if from > api.MinContext*idsPerGuest || to < last {
		return no("net.ipv4.ping_group_range is %d %d", from, to)
	}
	return yes("contexts up to %d; the kernel has no word for higher ones", last/idsPerGuest)
}
