package setting

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/port"
)

// ValidHostname returns an error for names that no guest is given.
func ValidHostname(s string) error {
	// sethostname(2) accepts 64 bytes (__NEW_UTS_LEN).
	letter := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-'
	}
	if s == "" || len(s) > 64 || strings.ContainsFunc(s, func(c rune) bool { return !letter(c) }) || strings.IndexByte("_.-", s[0]) >= 0 {
		return fmt.Errorf("want at most 64 letters, digits, _ . -, have %q", s)
	}
	return nil
}

// ValidDevice returns an error for device names that the kernel refuses (dev_valid_name
// in net/core/dev.c).
func ValidDevice(s string) error {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c > '~' }) {
		return errors.New("want a network device of at most 15 letters, as eth0")
	}
	return nil
}

func memory(s string) (int64, error) {
	n, err := parseSize(s)
	if err != nil || n < 1<<20 {
		return 0, fmt.Errorf("want a size of at least 1M, as 512M or 2G, have %q", s)
	}
	return n, nil
}

func processes(s string) (int64, error) { return WholeNumber(s, 1, 1<<22) } // PID_MAX_LIMIT

func notNegative[T int64 | float64](n T) error {
	if n < 0 || math.IsNaN(float64(n)) {
		return fmt.Errorf("%v is less than nothing", n)
	}
	return nil
}

func within(n, first, last int) error {
	if n < first || n > last {
		return fmt.Errorf("want a number from %d to %d, have %d", first, last, n)
	}
	return nil
}

// addresses returns addresses in a form that can be compared. In mode shared the prefix
// length does not count: it is the host's, and vsnode never sets it on a device.
func addresses(g *Guest) string {
	if g.Network.Mode != Shared {
		return set(g.Network.Addresses)
	}
	var list []netip.Addr
	for _, a := range g.Network.Addresses {
		list = append(list, a.Addr())
	}
	return set(list)
}

// command returns the command of process 1 as one would type it.
func command(g *Guest) string {
	if len(g.Init.Command) == 0 {
		if g.Init.Style == "" {
			return "plain"
		}
		return g.Init.Style
	}
	words := slices.Clone(g.Init.Command)
	for i, word := range words {
		if word == "" || strings.ContainsAny(word, " \t\n\"'\\") {
			words[i] = strconv.Quote(word)
		}
	}
	return strings.Join(words, " ")
}

// keepsPorts reports whether b has all ports of a. A port that is taken away may still
// have a listener, which only a restart ends.
func keepsPorts(a, b *Guest) bool {
	return !slices.ContainsFunc(a.Network.Ports, func(had port.Range) bool {
		return !slices.ContainsFunc(b.Network.Ports, func(has port.Range) bool {
			return has.Proto == had.Proto && has.First <= had.First && had.Last <= has.Last
		})
	})
}

// hasPids reports whether a cgroup counts processes. Otherwise the user namespace
// does, with a limit that is set at the start.
func hasPids(_, _ *Guest, controllers []string) bool { return slices.Contains(controllers, "pids") }
