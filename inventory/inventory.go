package inventory

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/health"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// Inventory is what should exist: every host with the guests that it should have.
// It does not change after Load.
type Inventory struct {
	Hosts  []*Host  // in the order of the files
	Groups []*Group // in the order of the files
	Images []*Image // in the order of the files
	// Warnings name what was left out or not understood in Ansible sources, in the
	// order of the files.
	Warnings []*Error

	Rollout Rollout

	hosts  universe
	images map[string]*Image
}

// Host is a machine reached over SSH.
type Host struct {
	Name    string
	Address string // an IP address or a DNS name
	Port    int    // of its sshd
	SSH     SSH
	Become  bool // become root by sudo
	Labels  map[string]string
	Vars    map[string]Var
	Groups  []string // that it belongs to, by name
	Netdev  string   // the device for guests' own addresses; empty: that of the default route
	Guests  []*Guest // by name
	Pos     Position
}

// SSH is how a host is reached. Empty fields are left to package transport.
type SSH struct {
	User string
	// Identity and KnownHosts are files: absolute, or relative to the working
	// directory (in the inventory: to its file), or in the home directory as
	// "~/.ssh/id_ed25519".
	Identity, KnownHosts string
	// Jump is "[user@]host[:port]" or the name of a host, or several with commas
	// between them, or "none".
	Jump string
	Port int // 0 if no file gives one
	// HostKeyAlias is the host's name in known_hosts and host certificates.
	HostKeyAlias string
	// Config is a file in the place of the user's ssh_config, or "none".
	Config       string
	HostKey      string // what to do about an unknown host key: "ask", "accept-new" or "strict"
	BecomeMethod string // "sudo" or "doas"; empty: what the host has
}

// Group is a named set of hosts.
type Group struct {
	Name     string
	Hosts    []*Host  // its own and its children's, in the order of Inventory.Hosts
	Children []string // in the order of the file
	// Protected means that changes of its hosts need confirmation by a person.
	Protected bool
	Pos       Position
}

// Image is a reference installation to build guests from.
type Image struct {
	Name           string
	Method         string // of buildmethod.Table
	Args, Packages []string
	Files          []File  // put into it after the method, by path
	Digest         string  // the ID that it must have, "sha256:…"; empty: any
	Update         string  // how its next version is made: UpdateBuild, the default, or UpdatePackages
	Shadowed       string  // rules for the guests' own files, behind their own: see setting.ShadowAction
	Builders       []*Host // the hosts that may build it; nil: any
	Pos            Position
}

// The network modes and states of a guest.
const (
	Shared = setting.Shared
	Own    = setting.Own
	NAT    = setting.NAT

	Running = "running"
	Stopped = "stopped"
	Absent  = "absent" // it is deleted where it exists
)

// Ways to make the next version of an image.
const (
	UpdateBuild    = "build"    // by its method
	UpdatePackages = "packages" // by upgrading the packages in a copy of the last one
)

// Guest is one guest on one host, with all variables expanded. Its Image is an
// Image's name.
type Guest struct {
	setting.Guest
	HostAddress bool   // Shared: the host's own address, known to the host only
	Files       []File // by path
	State       string // Running, Stopped or Absent
	// Health defines when the guest counts as healthy after a change; nil: once it
	// runs. It is not a setting of the guest: no host stores it, and changing it
	// changes no guest.
	Health *health.Health
	Pos    Position
}

//go:embed schema.json
var schema string

// Schema returns the JSON Schema (draft-07) of an inventory file, for editors:
// schema.json, with the settings of guests in the places that it names.
func Schema() []byte {
	text := schema
	for block, name := range map[string]string{"": "guest", "network": "network", "limits": "limits"} {
		before, after, _ := strings.Cut(text, fmt.Sprintf(`"settings of %s": {}`, name))
		indent := before[strings.LastIndexByte(before, '\n'):]
		text = before + strings.Join(setting.Schema(block), ","+indent) + after
	}
	return []byte(text)
}

// builder collects the contents of the files until all of them are read.
type builder struct {
	report
	run       func(path string, args ...string) ([]byte, error) // inventory programs; may be nil
	inv       Inventory
	top       layer                 // of all hosts
	ourTop    layer                 // as much of it as files of ours have
	topFiles  layer                 // of group_vars/all
	ungrouped groupSpec             // of hosts in no group
	unknown   map[string][]Position // what is not supported of how hosts are reached

	specs      []*hostSpec // one for each of inv.Hosts
	groups     []*groupSpec
	groupAt    map[string]*groupSpec
	guests     []*guestSpec
	guestAt    map[string]*guestSpec
	placements [][]placement // for each of inv.Hosts, its guests

	rolloutAt Position

	contents map[string]fileContent  // of the files that guests and images are given
	sealed   map[string]secret.Value // encrypted ones among them
	buildOn  map[*Image][]text
}

func newBuilder() *builder {
	b := &builder{
		inv:     Inventory{hosts: universe{index: map[string]int{}}, images: map[string]*Image{}},
		groupAt: map[string]*groupSpec{},
		guestAt: map[string]*guestSpec{},
		buildOn: map[*Image][]text{},
	}
	b.inv.hosts.guess = b.DidYouMean
	return b
}

// read reads one file: a fleet.yml, or an Ansible inventory in YAML or INI.
func (b *builder) read(path string, data []byte) {
	d := newDecoder(path, &b.report)
	if bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		d.Add(Position{File: path, Line: 1, Column: 1}, "name a private key with --identity", "this is a key or a certificate, not an inventory")
		return
	}
	if isVaultFile(data) {
		d.Add(Position{File: path, Line: 1, Column: 1}, "decrypt it, or save what Ansible makes of it: ansible-inventory --list --export > hosts.json", "this file is encrypted by ansible-vault")
		return
	}
	doc, err := yamlpos.Document(data)
	if b.foreign(path, data, doc, err) {
		return
	}
	root := d.Root(data, doc, err)
	if root == nil {
		return
	}
	top := &layer{}
	d.Fields("an inventory", root, "a mapping with hosts, groups, images and guests", []key{
		{Name: "ssh", Read: d.sshBlock(&top.ssh)},
		{Name: "labels", Read: d.hostLabels(&top.labels)},
		{Name: "vars", Read: d.hostVars(&top.vars)},
		{Name: "hosts", Read: func(name string, v *yaml.Node) {
			d.Entries(name, v, "a mapping of hosts, as {web01: {address: 203.0.113.11}}", func(k text, v *yaml.Node) { b.host(d, k, v) })
		}},
		{Name: "groups", Read: func(name string, v *yaml.Node) {
			d.Entries(name, v, `a mapping of groups, as {web: {hosts: ["web*"]}}`, func(k text, v *yaml.Node) { b.group(d, k, v) })
		}},
		{Name: "images", Read: func(name string, v *yaml.Node) {
			d.Entries(name, v, "a mapping of images, as {bookworm: {method: debootstrap, args: [-d, bookworm]}}", func(k text, v *yaml.Node) { b.image(d, k, v) })
		}},
		{Name: "guests", Read: func(name string, v *yaml.Node) {
			d.Entries(name, v, "a mapping of guests, as {www: {on: web, image: bookworm}}", func(k text, v *yaml.Node) { b.guest(d, k, v) })
		}},
		{Name: "rollout", Read: b.rollout(d)},
	})
	b.addTop(top)
}

// addTop adds the top of a fleet.yml. Values that another fleet.yml gives at its top
// too are mistakes.
func (b *builder) addTop(top *layer) {
	b.ourTop.ssh.over(&top.ssh, b.clash("ssh."))
	for name, v := range top.vars {
		if first, twice := b.ourTop.vars[name]; twice {
			b.clash("vars.")(name, first.From, v.From)
		}
	}
	b.ourTop.labels, b.ourTop.vars = merged(b.ourTop.labels, top.labels), merged(b.ourTop.vars, top.vars)
	b.top.add(top)
}

// clash returns a function that reports a key given twice at the same level.
func (b *builder) clash(prefix string) func(key string, first, second Position) {
	return func(key string, first, second Position) {
		b.Add(second, "", "%s%s is given twice, first at %s", prefix, key, first)
	}
}

// build resolves the contents of the files.
func (b *builder) build() (*Inventory, error) {
	b.resolveHosts()
	b.resolveImages()
	b.resolveGuests()
	b.validate()
	b.checkRollout()
	if err := b.Err(); err != nil {
		return nil, err
	}
	b.inv.hosts.guess = yamlpos.DidYouMean
	b.inv.Warnings = b.Warnings()
	return &b.inv, nil
}

// Image returns the image of that name, or nil. Every guest's image exists.
func (inv *Inventory) Image(name string) *Image { return inv.images[name] }
