package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/port"
)

// guestSpec is a guest as its file gives it, before it is resolved for a host.
type guestSpec struct {
	name  string
	pos   Position
	index int // in builder.guests
	on    []text

	image, context, hostname, state, mark text
	memory, cpu, processes                text

	init    text
	command []text
	network networkSpec
}

type networkSpec struct {
	mode, address, dev         text
	addresses, ports, forwards []text
	unusable                   bool // something is wrong with it that was reported
}

var (
	methods = []string{"debootstrap", "template"}
	modes   = []string{Shared, Own, NAT}
	states  = []string{Running, Stopped, Absent}
	inits   = []string{"plain"}
)

// oneOf reads a word of a short list.
func oneOf(what, word string, known []string) *Error {
	if slices.Contains(known, word) {
		return nil
	}
	hint := didYouMean(word, known)
	return &Error{Msg: fmt.Sprintf("%s: there is no %q, want %s", what, word, orList(known)), Hint: hint}
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// image reads one entry of images.
func (b *builder) image(d *decoder, k text, v *yaml.Node) {
	image := &Image{Name: k.value, Pos: k.pos}
	var method text
	var args, packages []text
	given := d.fields("image "+k.value, v, "a mapping, as {method: debootstrap, args: [-d, bookworm]}", []key{
		{"method", d.text(&method, "how it is made: "+orList(methods))},
		{"args", d.texts(&args, "a list of the method's arguments, as [-d, bookworm]")},
		{"packages", d.texts(&packages, "a list of packages, as [openssh-server]")},
	})
	if err := checkName(k.value, maxName); err != nil {
		d.add(k.pos, "", "image %v", err)
		return
	}
	if first := b.inv.images[k.value]; first != nil {
		d.add(k.pos, "", "image %q is there twice, first at %s", k.value, first.Pos)
		return
	}
	if _, named := given["method"]; given != nil && !named {
		d.add(k.pos, "give it method: "+orList(methods), "image %q has no method", k.value)
	} else if err := oneOf("method", method.value, methods); method.ok() && err != nil {
		d.failed(method.pos, err)
	}
	image.Method = method.value
	for _, arg := range args {
		image.Args = append(image.Args, arg.value)
	}
	for _, p := range packages {
		// A package is an argument of apt-get: "-o…" would be an option.
		if p.value == "" || p.value[0] == '-' || strings.ContainsAny(p.value, " \t\n") {
			d.add(p.pos, "", "packages: %q is no package", p.value)
		}
		image.Packages = append(image.Packages, p.value)
	}
	b.inv.images[image.Name] = image
	b.inv.Images = append(b.inv.Images, image)
}

// guest reads one entry of guests.
func (b *builder) guest(d *decoder, k text, v *yaml.Node) {
	g := &guestSpec{name: k.value, pos: k.pos}
	given := d.fields("guest "+k.value, v, "a mapping, as {on: web, image: bookworm}", []key{
		{"on", d.patterns(&g.on)},
		{"image", d.text(&g.image, "an image's name")},
		{"context", d.text(&g.context, "a number from 2 to 49151")},
		{"hostname", d.text(&g.hostname, "a hostname")},
		{"state", d.text(&g.state, orList(states))},
		{"mark", d.text(&g.mark, "a mark, as default")},
		{"network", func(name string, v *yaml.Node) { d.network(&g.network, name, v) }},
		{"init", func(name string, v *yaml.Node) { d.init(g, name, v) }},
		{"limits", func(name string, v *yaml.Node) {
			d.fields(name, v, "a mapping, as {memory: 512M, cpu: 1.5, processes: 500}", []key{
				{"memory", d.text(&g.memory, "a size, as 512M or 2G")},
				{"cpu", d.text(&g.cpu, "a number of cores, as 1.5")},
				{"processes", d.text(&g.processes, "a number, as 500")},
				{"disk", func(_ string, v *yaml.Node) {
					d.add(d.at(v), "leave disk out", "limits: this version sets no disk limits")
				}},
			})
		}},
	})
	if err := checkName(k.value, maxName); err != nil {
		d.add(k.pos, "", "guest %v", err)
		return
	}
	if first := b.guestAt[k.value]; first != nil {
		d.add(k.pos, "", "guest %q is there twice, first at %s", k.value, first.pos)
		return
	}
	if given == nil {
		return
	}
	if _, named := given["on"]; !named {
		d.add(k.pos, `say on which hosts it is, as on: "web*"`, "guest %q has no on", k.value)
	}
	if _, named := given["image"]; !named {
		d.add(k.pos, "", "guest %q has no image", k.value)
	}
	g.index = len(b.guests)
	b.guestAt[g.name] = g
	b.guests = append(b.guests, g)
}

// init reads "plain" or {command: [...]}.
func (d *decoder) init(g *guestSpec, name string, v *yaml.Node) {
	const want = "plain or {command: [/usr/sbin/sshd, -D]}"
	if target(v).Kind != yaml.MappingNode {
		d.text(&g.init, want)(name, v)
		if err := oneOf(name, g.init.value, inits); g.init.ok() && err != nil {
			d.failed(g.init.pos, &Error{Msg: fmt.Sprintf("init: want %s, have %q", want, g.init.value), Hint: err.Hint})
		}
		return
	}
	d.fields(name, v, want, []key{{"command", d.texts(&g.command, "a list of words, as [/usr/sbin/sshd, -D]")}})
	if len(g.command) == 0 || g.command[0].value == "" {
		d.add(d.at(target(v)), "", "init: the command is empty, want %s", want)
	}
}

// network reads a network block. Which keys make sense hangs on the mode.
func (d *decoder) network(net *networkSpec, name string, v *yaml.Node) {
	given := d.fields(name, v, "a mapping, as {mode: shared, ports: [80/tcp]}", []key{
		{"mode", d.text(&net.mode, orList(modes))},
		{"address", d.text(&net.address, "host or an address, as 203.0.113.11")},
		{"addresses", d.texts(&net.addresses, "a list of addresses, as [192.0.2.10/24]")},
		{"dev", d.text(&net.dev, "a network device, as eth0")},
		{"ports", d.texts(&net.ports, "a list of ports, as [80/tcp, 443/tcp]")},
		{"forward", d.texts(&net.forwards, `a list of forwards, as ["2222:22/tcp"]`)},
	})
	if _, named := given["mode"]; given == nil || named && !net.mode.ok() {
		return
	}
	mode := cmp.Or(net.mode.value, Shared)
	if err := oneOf("mode", mode, modes); err != nil {
		d.failed(net.mode.pos, err)
		net.unusable = true
		return
	}
	for _, k := range modeKeys {
		pos, named := given[k.name]
		if !named || slices.Contains(k.modes, mode) {
			continue
		}
		d.add(pos, fmt.Sprintf("%s belongs to mode: %s", k.name, orList(k.modes)), "network: %s makes no sense in mode %s", k.name, mode)
		net.unusable = true
	}
	_, one := given["address"]
	pos, several := given["addresses"]
	if one && several {
		d.add(pos, "", "network: address and addresses are both given, want one of them")
		net.unusable = true
	}
	if mode == Own && !one && (!several || net.addresses != nil && len(net.addresses) == 0) {
		d.add(d.at(target(v)), "give it addresses: [192.0.2.10/24]", "network: mode own has no address")
		net.unusable = true
	}
}

// modeKeys says in which modes the keys of a network make sense.
var modeKeys = []struct {
	name  string
	modes []string
}{
	{"address", []string{Shared, Own}},
	{"addresses", []string{Shared, Own}},
	{"dev", []string{Own}},
	{"ports", []string{Shared}},
	{"forward", []string{NAT}},
}

// placed is a guest on a host with the spec it came from, for the places.
type placed struct {
	guest *Guest
	spec  *guestSpec
}

// resolveGuests makes an instance of each guest on each of its hosts.
func (b *builder) resolveGuests() {
	b.placed = make([][]placed, len(b.inv.Hosts))
	found := map[string][]bool{} // pattern: often the same for many guests
	for _, spec := range b.guests {
		b.resolve(spec, nil)
		set := make([]bool, len(b.inv.Hosts))
		for _, pattern := range spec.on {
			hosts, known := found[pattern.value]
			if !known {
				var err *Error
				if hosts, err = b.inv.hosts.match(pattern.value); err != nil {
					b.failed(pattern.pos, err)
					continue
				}
				found[pattern.value] = hosts
			}
			union(set, hosts)
		}
		for i, on := range set {
			if !on {
				continue
			}
			if guest := b.resolve(spec, b.inv.Hosts[i]); guest != nil {
				b.placed[i] = append(b.placed[i], placed{guest, spec})
			}
		}
	}
	for i, h := range b.inv.Hosts {
		slices.SortFunc(b.placed[i], func(x, y placed) int { return cmp.Compare(x.guest.Name, y.guest.Name) })
		for _, p := range b.placed[i] {
			h.Guests = append(h.Guests, p.guest)
		}
	}
}

// resolver resolves the texts of one guest for one host, or, without a host,
// checks those that hold no variables, so that each mistake is found even if
// the guest is on no host.
type resolver struct {
	*builder
	scope  scope
	failed bool
}

// value gives the expanded text to read, and reports what is wrong with it.
func (r *resolver) value(t text, name string, read func(string) error) {
	if !t.ok() {
		return
	}
	s, bad := r.scope.expand(t.value)
	if bad == nil && r.scope.host == nil && hasVariable(t.value) {
		return
	}
	if bad == nil {
		if err := read(s); err != nil {
			if bad, _ = err.(*Error); bad == nil {
				bad = &Error{Msg: name + ": " + err.Error()}
			}
		}
	}
	if bad != nil {
		r.failed = true
		if r.scope.host != nil && hasVariable(t.value) && !strings.Contains(bad.Msg, " on host ") {
			bad.Msg += " on host " + r.scope.host.Name
		}
		r.builder.failed(t.pos, bad)
	}
}

// resolve gives the guest on that host, or nil if something is wrong with it.
func (b *builder) resolve(spec *guestSpec, h *Host) *Guest {
	r := &resolver{builder: b, scope: scope{host: h, guest: spec.name}}
	g := &Guest{Name: spec.name, Hostname: spec.name, State: Running, Init: Init{Style: "plain"}, Pos: spec.pos}
	r.value(spec.image, "image", func(s string) error {
		g.Image = s
		if b.inv.images[s] != nil {
			return nil
		}
		return &Error{Msg: fmt.Sprintf("image: there is no image %q", s), Hint: b.didYouMean(s, sortedKeys(b.inv.images))}
	})
	r.value(spec.context, "context", func(s string) error {
		n, err := wholeNumber(s, 2, 49151)
		if s == "0" {
			return &Error{Msg: "context: " + err.Error(), Hint: "leave context out to let the host choose"}
		}
		g.Context = int(n)
		return err
	})
	r.value(spec.hostname, "hostname", func(s string) error {
		g.Hostname = s
		// sethostname(2) takes 64 bytes (__NEW_UTS_LEN).
		if s == "" || len(s) > 64 || !isWord(s) || strings.IndexByte("_.-", s[0]) >= 0 {
			return fmt.Errorf("want at most 64 letters, digits, _ . -, have %q", s)
		}
		return nil
	})
	r.value(spec.state, "state", func(s string) error {
		g.State = s
		if err := oneOf("state", s, states); err != nil {
			return err
		}
		return nil
	})
	r.value(spec.mark, "mark", func(s string) error {
		g.Mark = s
		return checkName(s, maxName)
	})
	r.limits(spec, &g.Limits)
	for _, word := range spec.command {
		g.Init.Style = "command"
		r.value(word, "init", func(s string) error {
			g.Init.Command = append(g.Init.Command, s)
			if strings.ContainsRune(s, 0) {
				return fmt.Errorf("%q holds a zero byte, which no argument can", s)
			}
			return nil
		})
	}
	r.network(&spec.network, g)
	if r.failed || h == nil {
		return nil
	}
	return g
}

func (r *resolver) limits(spec *guestSpec, to *Limits) {
	r.value(spec.memory, "memory", func(s string) (err error) {
		to.MemoryBytes, err = parseSize(s)
		if err != nil || to.MemoryBytes < 1<<20 {
			return fmt.Errorf("want a size of at least 1M, as 512M or 2G, have %q", s)
		}
		return nil
	})
	r.value(spec.cpu, "cpu", func(s string) (err error) {
		to.CPUs, err = strconv.ParseFloat(s, 64)
		// The kernel's smallest quota is 1 ms in each 100 ms, and it has at most
		// 8192 processors (CONFIG_NR_CPUS).
		if err != nil || strings.Trim(s, "0123456789.") != "" || to.CPUs < 0.01 || to.CPUs > 8192 {
			return fmt.Errorf("want a number of cores from 0.01 to 8192, as 1.5, have %q", s)
		}
		return nil
	})
	r.value(spec.processes, "processes", func(s string) (err error) {
		to.Processes, err = wholeNumber(s, 1, 1<<22) // PID_MAX_LIMIT
		return err
	})
}

func (r *resolver) network(net *networkSpec, g *Guest) {
	if net.unusable {
		r.failed = true
		return
	}
	g.Mode = cmp.Or(net.mode.value, Shared)
	for _, t := range net.allAddresses() {
		r.value(t, "address", func(s string) error {
			if s == "host" && g.Mode == Shared && t == net.address {
				g.HostAddress = true
				return nil
			}
			prefix, err := parsePrefix(s, g.Mode)
			g.Addresses = append(g.Addresses, prefix)
			return err
		})
	}
	g.HostAddress = g.HostAddress || g.Mode == Shared && len(net.allAddresses()) == 0
	if g.Mode == Own && r.scope.host != nil {
		g.Dev = r.scope.host.Netdev
	}
	r.value(net.dev, "dev", func(s string) error {
		g.Dev = s
		return checkDevice(s)
	})
	for _, t := range net.ports {
		r.value(t, "ports", func(s string) error {
			p, err := port.Parse(s)
			g.Ports = append(g.Ports, p)
			return err
		})
	}
	for _, t := range net.forwards {
		r.value(t, "forward", func(s string) error {
			f, err := port.ParseForward(s)
			g.Forwards = append(g.Forwards, f)
			return err
		})
	}
}

// allAddresses are the addresses as they were given, in either way.
func (net *networkSpec) allAddresses() []text {
	if net.address.ok() {
		return []text{net.address}
	}
	return net.addresses
}

// parsePrefix reads an address of a guest, with the prefix that goes onto the
// device in mode own.
func parsePrefix(s, mode string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if addr, bad := netip.ParseAddr(s); bad == nil && mode == Shared && addr.Zone() == "" {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	} else if bad == nil && mode == Own {
		return netip.Prefix{}, &Error{
			Msg:  fmt.Sprintf("address: %s has no prefix, which goes onto the device", s),
			Hint: fmt.Sprintf("write %s/%d, or the length that your network has", s, min(addr.BitLen(), map[bool]int{true: 24, false: 64}[addr.Is4()])),
		}
	}
	addr := prefix.Addr()
	switch {
	case err != nil && mode == Shared:
		return netip.Prefix{}, fmt.Errorf("want host or an address, as 203.0.113.11, have %q", s)
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("want an address with its prefix, as 192.0.2.10/24, have %q", s)
	case addr.Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 address in IPv6 form, write %s", s, addr.Unmap())
	case addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Prefix{}, fmt.Errorf("%s is no address that a machine can have", s)
	case addr.Is4() && prefix.Bits() < 31 && (addr == prefix.Masked().Addr() || addr == broadcast(prefix)):
		return netip.Prefix{}, fmt.Errorf("%s is the address of a whole network, not of a machine in it", s)
	}
	return prefix, nil
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}
