package plan

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

// difference is one setting that a guest has otherwise than it should.
type difference struct {
	text    string // "ports 80/tcp → 80/tcp, 443/tcp"
	restart bool   // a running guest has it only after a restart; else at once
	stop    bool   // it cannot be changed while the guest runs
}

// differences compares a guest as it should be with what its host has. Both
// are brought to one form first: a host may leave out what is the default. was
// and is are what people call their images; controllers are the host's.
func differences(want, have api.Guest, was, is string, controllers []string) []difference {
	var list []difference
	add := func(name, from, to string, d difference) {
		if from != to {
			d.text = fmt.Sprintf("%s %s → %s", name, cmp.Or(from, "none"), cmp.Or(to, "none"))
			list = append(list, d)
		}
	}
	restart, live := difference{restart: true}, difference{}
	if want.Image != have.Image || want.Image == "" {
		add("image", was, is, restart)
	}
	add("context", strconv.Itoa(have.Context), strconv.Itoa(want.Context), difference{restart: true, stop: true})
	add("hostname", cmp.Or(have.Hostname, have.Name), cmp.Or(want.Hostname, want.Name), restart)
	add("network", string(have.Network.Mode), string(want.Network.Mode), restart)
	add("addresses", addresses(have.Network), addresses(want.Network), restart)
	add("dev", have.Network.Dev, want.Network.Dev, restart)
	add("ports", set(have.Network.Ports), set(want.Network.Ports), difference{restart: !kept(have.Network.Ports, want.Network.Ports)})
	add("forwards", set(have.Network.Forwards), set(want.Network.Forwards), live)
	add("metadata", allowed(have.Network.Metadata), allowed(want.Network.Metadata), live)
	add("raw sockets", allowed(have.Network.Raw), allowed(want.Network.Raw), restart)
	add("init", command(have.Init), command(want.Init), restart)
	add("nesting", allowed(!have.NoNesting), allowed(!want.NoNesting), restart)
	add("memory", size(have.Limits.MemoryBytes), size(want.Limits.MemoryBytes), live)
	if !sameCPUs(have.Limits.CPUs, want.Limits.CPUs) {
		add("cpu", cpus(have.Limits.CPUs), cpus(want.Limits.CPUs), live)
	}
	add("processes", count(have.Limits.Processes), count(want.Limits.Processes), difference{restart: !slices.Contains(controllers, "pids")})
	return list
}

// addresses in one form. In mode shared only the address counts: its prefix is
// the host's matter, and never put onto a device by us.
func addresses(n api.Network) string {
	if n.Mode != api.ModeShared {
		return set(n.Addresses)
	}
	var list []netip.Addr
	for _, a := range n.Addresses {
		list = append(list, a.Addr())
	}
	return set(list)
}

// kept says whether all ports stay. One that a guest gives up may still have its
// listener, which nobody can take but by ending it.
func kept(have, want []port.Range) bool {
	return !slices.ContainsFunc(have, func(h port.Range) bool {
		return !slices.ContainsFunc(want, func(w port.Range) bool {
			return w.Proto == h.Proto && w.First <= h.First && h.Last <= w.Last
		})
	})
}

// set writes a list for which the order says nothing: a host reads it back
// sorted by the names of its files.
func set[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, item := range list {
		words[i] = item.String()
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}

func allowed(yes bool) string {
	if yes {
		return "allow"
	}
	return "refuse"
}

func command(i api.Init) string {
	if len(i.Command) == 0 {
		return cmp.Or(i.Style, "plain")
	}
	words := make([]string, len(i.Command))
	for n, word := range i.Command {
		if words[n] = word; word == "" || strings.ContainsAny(word, " \t\n\"'\\") {
			words[n] = strconv.Quote(word)
		}
	}
	return strings.Join(words, " ")
}

// sameCPUs compares as finely as cpu.max does, which is kept as microseconds
// in each 100 ms: 0.29 may come back as 0.28999.
func sameCPUs(a, b float64) bool { return math.Abs(a-b)*100_000 < 1.5 }

func cpus(n float64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatFloat(n, 'g', -1, 64)
}

func count(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// size as the inventory writes them, exactly.
func size(n int64) string {
	for i, unit := range []string{"T", "G", "M", "K"} {
		if in := int64(1) << (10 * (4 - i)); n >= in && n%in == 0 {
			return strconv.FormatInt(n/in, 10) + unit
		}
	}
	return count(n)
}
