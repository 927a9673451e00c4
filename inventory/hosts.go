package inventory

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// hostSpec is an entry of hosts as written in its file: one host or a range.
type hostSpec struct {
	layer
	files           layer // of host_vars
	address, netdev text
	ours            bool // a file of ours has it, so that a second one may not
}

// with returns the combined values of two sources for a host: o wins.
func (s *hostSpec) with(o *hostSpec) *hostSpec {
	both := *s
	both.ours = s.ours || o.ours
	both.add(&o.layer)
	overlay(&both.address, o.address, "", nil)
	overlay(&both.netdev, o.netdev, "", nil)
	return &both
}

// layer holds the values that one place of the inventory gives to hosts: the top of a
// file, a group, a host.
type layer struct {
	ssh    sshSpec
	labels map[string]string
	vars   map[string]Var
	conn   connection // what vars say of how hosts are reached
}

// add adds the values of another source for the same place, which win.
func (l *layer) add(o *layer) {
	l.ssh.over(&o.ssh, nil)
	l.labels, l.vars = merged(l.labels, o.labels), merged(l.vars, o.vars)
}

// merged returns a new map with the entries of both maps; b wins.
func merged[V any](a, b map[string]V) map[string]V {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// sshSpec are the SSH settings of a block or of a host.
type sshSpec struct {
	user, identity, jump, knownHosts, hostKeyAlias text
	config, hostKey, becomeMethod, becomeUser      text

	port   given[int]
	become given[bool]
}

// text returns the setting of a key that is a text, or nil.
func (s *sshSpec) text(key string) *text {
	switch key {
	case "user":
		return &s.user
	case "identity":
		return &s.identity
	case "jump":
		return &s.jump
	case "known_hosts":
		return &s.knownHosts
	case "host_key_alias":
		return &s.hostKeyAlias
	case "config":
		return &s.config
	case "host_key":
		return &s.hostKey
	case "become_method":
		return &s.becomeMethod
	}
	return nil
}

// over takes over the settings that o has. clash is called for those that both
// have; if it is nil, o wins.
func (s *sshSpec) over(o *sshSpec, clash func(key string, first, second Position)) {
	overlay(&s.user, o.user, "user", clash)
	overlay(&s.identity, o.identity, "identity", clash)
	overlay(&s.jump, o.jump, "jump", clash)
	overlay(&s.knownHosts, o.knownHosts, "known_hosts", clash)
	overlay(&s.hostKeyAlias, o.hostKeyAlias, "host_key_alias", clash)
	overlay(&s.config, o.config, "config", clash)
	overlay(&s.hostKey, o.hostKey, "host_key", clash)
	overlay(&s.becomeMethod, o.becomeMethod, "become_method", clash)
	overlay(&s.becomeUser, o.becomeUser, "become_user", clash)
	overlay(&s.port, o.port, "port", clash)
	overlay(&s.become, o.become, "become", clash)
}

func overlay[T any](to *given[T], from given[T], key string, clash func(key string, first, second Position)) {
	if !from.OK() {
		return
	}
	if to.OK() && clash != nil {
		clash(key, to.Pos, from.Pos)
	}
	*to = from
}

// sshKeys returns the keys of an ssh block, which hosts have as well.
func (d *decoder) sshKeys(s *sshSpec) []key {
	return []key{
		{Name: "user", Read: d.word(&s.user, "a user's name")},
		{Name: "identity", Read: d.path(&s.identity, "the file of a private key, as ~/.ssh/id_ed25519")},
		{Name: "jump", Read: d.word(&s.jump, "a host to go through, as [user@]host[:port], or none")},
		{Name: "known_hosts", Read: d.path(&s.knownHosts, "a file of known host keys, as ~/.ssh/known_hosts")},
		{Name: "host_key_alias", Read: d.word(&s.hostKeyAlias, "the host's name in known_hosts, as ${host.name}.example.net")},
		{Name: "port", Read: d.Number(&s.port, 1, 65535)},
		{Name: "become", Read: d.Flag(&s.become)},
		{Name: "become_method", Read: d.choice(&s.becomeMethod, "", "sudo", "doas")},
		{Name: "become_user", Read: d.choice(&s.becomeUser, "guests are run by root alone: leave it out", "root")},
		{Name: "config", Read: d.config(&s.config)},
		{Name: "host_key", Read: d.choice(&s.hostKey, "", "ask", "accept-new", "strict")},
	}
}

// choice reads one of several words.
func (d *decoder) choice(to *text, hint string, words ...string) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		var t text
		want := strings.Join(words, ", ")
		d.Text(&t, want)(name, v)
		if t.Value != "" && !slices.Contains(words, t.Value) {
			d.Add(t.Pos, cmp.Or(hint, yamlpos.DidYouMean(t.Value, words)), "%s: want %s, have %q", name, want, t.Value)
			return
		}
		*to = t
	}
}

// config reads the name of an ssh_config, or none.
func (d *decoder) config(to *text) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		read := d.path
		if v.Value == "none" {
			read = d.Text
		}
		read(to, "an ssh_config file, as ~/.ssh/config, or none")(name, v)
	}
}

func (d *decoder) sshBlock(s *sshSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		d.Fields(name, v, "a mapping, as {user: root, identity: ~/.ssh/id_ed25519}", d.sshKeys(s))
	}
}

// word reads a text without spaces and control characters that does not begin
// with "-": any program that it is passed to would take that for an option.
func (d *decoder) word(to *text, want string) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		var t text
		d.Text(&t, want)(name, v)
		if t.OK() && !isArgument(t.Value) {
			d.Add(t.Pos, "", "%s: want %s, have %q", name, want, t.Value)
			return
		}
		*to = t
	}
}

// path reads a file name, which is relative to the inventory file's directory.
func (d *decoder) path(to *text, want string) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		d.Text(to, want)(name, v)
		if p := to.Value; p != "" && !filepath.IsAbs(p) && p != "~" && !strings.HasPrefix(p, "~/") {
			to.Value = filepath.Join(filepath.Dir(d.File), p)
		}
	}
}

// host reads one entry of hosts: a host, or all those of a range.
func (b *builder) host(d *decoder, k text, v *yaml.Node) {
	spec := &hostSpec{ours: true}
	var block sshSpec
	d.Fields("host "+k.Value, v, "a mapping, as {address: 203.0.113.11}", append(d.sshKeys(&spec.ssh),
		key{Name: "address", Read: d.Text(&spec.address, "an IP address or a DNS name")},
		key{Name: "ssh", Read: d.sshBlock(&block)},
		key{Name: "netdev", Read: d.device(&spec.netdev)},
		key{Name: "labels", Read: d.hostLabels(&spec.labels)},
		key{Name: "vars", Read: d.hostVars(&spec.vars)},
	))
	spec.ssh.over(&block, b.clash(""))

	names, err := nodeset.Expand(k.Value)
	if err != nil {
		d.Add(k.Pos, "", "host %v", err)
		return
	}
	addresses := b.addresses(d, k, spec.address, len(names))
	for at, name := range names {
		if err := checkName(name, maxHostName); err != nil {
			d.Add(k.Pos, "", "host %v", err)
			return
		}
		if name == "all" {
			d.Add(k.Pos, "name it otherwise", `"all" means every host`)
			return
		}
		i, known := b.addHost(name, k.Pos)
		h, whole := b.inv.hosts.hosts[i], spec
		if known {
			if b.specs[i].ours {
				d.Add(k.Pos, "", "host %q is defined twice, first at %s", name, h.Pos)
				continue
			}
			whole = b.specs[i].with(spec)
		}
		// The patterns of groups see the host's own labels only: those that it
		// has from groups are not known yet.
		h.Pos, h.Address, h.Netdev, h.Labels = k.Pos, addresses[at], spec.netdev.Value, whole.labels
		b.specs[i] = whole
	}
}

// addHost returns the index of the host with a name, and adds the host if necessary.
func (b *builder) addHost(name string, pos Position) (i int, known bool) {
	u := &b.inv.hosts
	if i, known = u.index[name]; known {
		return i, true
	}
	u.add(&Host{Name: name, Pos: pos})
	b.specs = append(b.specs, &hostSpec{})
	return len(u.hosts) - 1, false
}

// addresses returns the address of each of n hosts, "" for one without.
func (b *builder) addresses(d *decoder, k, address text, n int) []string {
	list := []string{address.Value}
	// "[2001:db8::1]" is an address in brackets, not a range.
	if _, err := netip.ParseAddr(strings.Trim(address.Value, "[]")); err != nil {
		if list, err = nodeset.Expand(address.Value); err != nil {
			d.Add(address.Pos, "", "address: %v", err)
			return make([]string, n)
		}
	}
	switch {
	case len(list) == n:
		return list
	case len(list) == 1 && (list[0] == "" || hasVariable(list[0])):
		return slices.Repeat(list, n)
	case len(list) == 1:
		d.Add(address.Pos, fmt.Sprintf("give it a range of %d, as 203.0.113.[11-%d], or a variable, as ${host.name}.example.net", n, 10+n),
			"address: %s is %d hosts, which cannot have the one address %s", k.Value, n, list[0])
	default:
		d.Add(address.Pos, "", "address: %s is %d hosts, but %s is %d addresses", k.Value, n, address.Value, len(list))
	}
	return make([]string, n)
}

func (d *decoder) hostLabels(to *map[string]string) func(string, *yaml.Node) {
	return d.labels(to, "a mapping of names to values, as {site: fra}", checkLabel)
}

func (d *decoder) device(to *text) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		d.Text(to, "a network device, as eth0")(name, v)
		if err := setting.ValidDevice(to.Value); to.Value != "" && err != nil {
			d.Add(to.Pos, "", "%s: %v", name, err)
		}
	}
}

// reach sets how a host is reached.
func (b *builder) reach(h *Host, address text, ssh *sshSpec) {
	h.SSH = SSH{
		User: b.expanded(h, ssh.user, isArgument), Jump: b.expanded(h, ssh.jump, isArgument),
		HostKeyAlias: b.expanded(h, ssh.hostKeyAlias, isArgument),
		Identity:     b.expanded(h, ssh.identity, isFileName), KnownHosts: b.expanded(h, ssh.knownHosts, isFileName),
		Config: b.expanded(h, ssh.config, isFileName), Port: ssh.port.Value,
		HostKey: ssh.hostKey.Value, BecomeMethod: ssh.becomeMethod.Value,
	}
	h.Become = ssh.become.Value
	h.Port = cmp.Or(ssh.port.Value, 22)

	if address.Value == "" { // none, or a wrong one that was reported
		h.Address = h.Name
		return
	}
	expanded, err := scope{host: h, bare: true}.expand(address.Value)
	if err == nil {
		h.Address, err = parseAddress(expanded)
	}
	if err != nil {
		b.FailedIn(address, err)
		h.Address = ""
	}
}

// expanded returns a setting of ssh for a host, with its variables replaced.
func (b *builder) expanded(h *Host, t text, valid func(string) bool) string {
	s, err := scope{host: h, bare: true}.expand(t.Value)
	if err == nil && s != t.Value && !valid(s) {
		err = &Error{Msg: fmt.Sprintf("it cannot be %q, as on host %s", yamlpos.Short(s), h.Name)}
	}
	if err != nil {
		b.FailedIn(t, err)
	}
	return s
}

// isArgument reports whether a program reads s as one word, and not as an option.
func isArgument(s string) bool {
	return s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })
}

func isFileName(s string) bool { return s != "" && !strings.ContainsRune(s, 0) }

// parseAddress returns the address of a host: an IP address or a DNS name.
func parseAddress(s string) (string, *Error) {
	bare := s
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		bare = strings.TrimSuffix(inner, "]")
	}
	if ip, err := netip.ParseAddr(bare); err == nil {
		return ip.String(), nil
	}
	hint := ""
	host, number, _ := strings.Cut(s, ":")
	if _, err := strconv.ParseUint(number, 10, 64); err == nil {
		hint = fmt.Sprintf("write address: %s, port: %s", host, number)
	}
	if len(s) > 253 || s == "" || s[0] == '-' || !isWord(s) || isDotted(s) {
		return "", &Error{Msg: fmt.Sprintf("address: want an IP address or a DNS name, have %q", s), Hint: hint}
	}
	return s, nil
}

// isDotted reports whether s was meant to be an IP address, as "203.0.113.300"
// and "10.0.0" were: it consists of digits and dots.
func isDotted(s string) bool { return strings.Trim(s, "0123456789.") == "" }

// sameMachine reports hosts that share an sshd: two sessions would carry out two
// plans on one machine, one against the other.
func (b *builder) sameMachine() {
	type endpoint struct {
		address, jump string
		port          int
	}
	first := make(map[endpoint]*Host, len(b.inv.Hosts))
	for i, h := range b.inv.Hosts {
		if h.Address == "" { // reported before
			continue
		}
		jump := h.SSH.Jump
		if jump == "none" {
			jump = ""
		}
		at := endpoint{strings.ToLower(h.Address), jump, h.Port}
		if other := first[at]; other != nil {
			b.Once(cmp.Or(b.specs[i].address.Pos, h.Pos), "", "hosts %s and %s are both at %s port %d, first at %s", other.Name, h.Name, h.Address, h.Port, other.Pos)
			continue
		}
		first[at] = h
	}
}
