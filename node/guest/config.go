package guest

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Config is the configuration of a guest, read from its directory. The files have
// the names and formats of Linux-VServer ("flower page"); setting.Table and
// knownFiles list them. Linux-VServer does not have:
//
//	image      the ID of the image below the guest's own files
//	netns/nat  (boolean) the guest has a private network behind the host
//	ignore     files that do not keep the guest from starting
//
// The network mode has no file: netns/nat means nat, an interface with nodev means
// shared, one without means own.
type Config struct {
	api.Guest // Context is 0 without such a file: the start chooses one
	procctx.Attributes
	initConfig
	Root    string            // target of vdir: the guest's own files
	Caps    procctx.CapSet    // bcapabilities
	Cgroup  map[string]string // cgroup/FILE: written to the cgroup at start
	Domain  string            // uts/domainname
	Mounts  []procctx.Mount   // fstab, as the kernel wants it
	Sysctls []procctx.Sysctl  // sysctl/N
	Shell   string
	Unread  []api.Unread
}

// Names of limits in the cgroup directory.
const (
	memoryFile = "memory.max"
	cpuFile    = "cpu.max"
	pidsFile   = "pids.max"
	cpuPeriod  = 100000 // microseconds; the kernel's default
)

// ErrNoGuest is the error for a guest that is not configured on this host.
var ErrNoGuest = errors.New("no such guest")

// Read returns a guest's configuration. Errors name the file at fault.
func (p Paths) Read(name string) (Config, error) { return p.readAs(name, nil) }

// readAs returns the configuration that a guest would have if some files had other
// contents; "" stands for a file that is not there.
func (p Paths) readAs(name string, instead map[string]string) (Config, error) {
	if err := CheckName(name); err != nil {
		return Config{}, err
	}
	dir := p.config(name)
	c := Config{Guest: api.Guest{Name: name}}
	var err error
	if c.Root, err = p.vdir(name); err != nil {
		return c, err
	}
	t := openTree(dir)
	t.instead = instead
	files := t.files()
	c.Image = t.scalar("image")
	c.Domain, _ = t.first("uts/domainname", "domainname")
	c.Shell, _ = t.first("shell", "../.defaults/shell")
	for _, part := range []struct {
		file string // "": errors of read have it
		read func(*tree) error
	}{
		{"", c.readInit}, {"context", c.readContext}, {"", c.readCaps},
		{"", c.readCgroup}, {"", c.readSched},
		{"", func(t *tree) error { return readRlimits(t, c.Cgroup) }},
		{"", func(t *tree) error { return c.readSettings(t, "") }},
		{"", func(t *tree) error { return c.readSettings(t, "limits") }},
		{"", c.readNetwork}, {"", c.readSysctls}, {"", c.readDevices},
		{"", func(t *tree) error { c.Rlimits, err = readUlimits(t); return err }},
		{"", c.readIONice}, {"", c.readDisk},
	} {
		if err := part.read(t); err != nil {
			if part.file != "" {
				return c, fmt.Errorf("%s: %w", filepath.Join(dir, part.file), err)
			}
			return c, fmt.Errorf("%s/%w", dir, err)
		}
	}
	c.Limits.Ulimits = ulimits(c.Rlimits)
	c.setAttributes()
	c.readPersonality(t)
	c.readMounts(t, p)
	c.Unread = append(c.Unread, readFlags(t)...)
	c.Unread = append(c.Unread, unread(files)...)
	if err := c.readHooks(p); err != nil {
		return c, err
	}
	ignore(c.Unread, t.list("ignore"))
	return c, t.err
}

// vdir returns the directory of a guest's own files: the target of the link, or
// without one the directory that util-vserver uses.
func (p Paths) vdir(name string) (string, error) {
	dir := p.config(name)
	root, err := os.Readlink(filepath.Join(dir, "vdir"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Stat(dir); errors.Is(serr, fs.ErrNotExist) {
			return "", fmt.Errorf("%w: %s (%s is not there)", ErrNoGuest, name, dir)
		}
		base := filepath.Join(p.ConfigDir, ".defaults", "vdirbase", name)
		if _, serr := os.Stat(base); serr == nil {
			return base, nil
		}
		return "", fmt.Errorf("read configuration of %s: %w; its files are neither there nor at %s", name, err, base)
	}
	if errors.Is(err, unix.EINVAL) { // the directory itself
		return filepath.Join(dir, "vdir"), nil
	}
	if err != nil {
		return "", fmt.Errorf("read configuration of %s: %w", name, err)
	}
	if !filepath.IsAbs(root) {
		root = filepath.Join(dir, root)
	}
	return root, nil
}

func (c *Config) readContext(t *tree) (err error) {
	text := t.scalar("context")
	if text == "" && !t.has("context") {
		return nil
	}
	if c.Context, err = strconv.Atoi(text); err != nil || c.Context < api.MinContext || c.Context > api.MaxContext {
		return fmt.Errorf("want a number from %d to %d", api.MinContext, api.MaxContext)
	}
	return nil
}

// DefaultTTY returns the device of the host that a guest's messages go to when nobody
// watches (apps/init/tty, of the guest or of .defaults).
func (p Paths) DefaultTTY(name string) string {
	tty, _ := openTree(p.config(name)).first("apps/init/tty", "../.defaults/apps/init/tty")
	return cmp.Or(tty, os.DevNull)
}

// readSettings reads the files of setting.Table for one block.
func (c *Config) readSettings(t *tree, block string) error {
	for _, row := range setting.In(block) {
		if row.File == "" {
			continue // readInit and readNetwork
		}
		if err := row.Read(&c.Guest, settingTree{t, c.Cgroup}); err != nil {
			return fmt.Errorf("%s: %w", row.File, err)
		}
	}
	return nil
}

// settingTree is a tree whose cgroup/ holds what readCgroup found.
type settingTree struct {
	*tree
	cgroup map[string]string
}

func (t settingTree) Scalar(file string) string {
	if name, ok := strings.CutPrefix(file, "cgroup/"); ok {
		return t.cgroup[name]
	}
	return t.scalar(file)
}

func (t settingTree) List(file string) []string {
	if name, ok := strings.CutPrefix(file, "cgroup/"); ok && t.cgroup[name] != "" {
		return strings.Split(t.cgroup[name], "\n")
	}
	return t.list(file)
}
func (t settingTree) Has(file string) bool { return t.has(file) }

// readCaps also reports a capability set with which the guest's init would not boot.
func (c *Config) readCaps(t *tree) (err error) {
	text, _ := t.read("bcapabilities")
	if c.Caps, err = procctx.ParseCaps(text); err != nil {
		return fmt.Errorf("bcapabilities:%w", err)
	}
	if lacks := procctx.InitCaps &^ c.Caps; lacks != 0 && c.ownInit() {
		c.Unread = append(c.Unread, api.Unread{File: "bcapabilities", Refuses: true,
			Why: fmt.Sprintf("without %s the guest's init does not boot (a guest with a command as process 1 may do without)", lacks)})
	}
	return nil
}

func (c *Config) readSysctls(t *tree) error {
	for _, n := range t.subdirs("sysctl") {
		dir := "sysctl/" + n
		setting, value := t.scalar(dir+"/setting"), t.scalar(dir+"/value")
		path := strings.ReplaceAll(setting, ".", "/") // sysctl(8) takes both
		if strings.Contains(setting, "/") {
			path = setting
		}
		if !filepath.IsLocal(path) || value == "" {
			return fmt.Errorf("%s: want a name as kernel.shmmax in setting, and a value in value", dir)
		}
		c.Sysctls = append(c.Sysctls, procctx.Sysctl{Line: dir + "/setting", Path: path, Value: value})
	}
	return nil
}

func (c *Config) readNetwork(t *tree) error {
	n := &c.Network
	var nodev []netip.Addr
	for _, i := range t.subdirs("interfaces") {
		if t.has("interfaces/" + i + "/disabled") {
			continue
		}
		prefix, dev, err := c.readInterface(t, "interfaces/"+i+"/")
		if err != nil {
			return err
		}
		n.Addresses = append(n.Addresses, prefix)
		switch {
		case dev == "":
			nodev = append(nodev, prefix.Addr())
		case n.Dev == "":
			n.Dev = dev
		case dev != n.Dev:
			c.place(prefix.Addr(), func(p *api.Place) { p.Dev = dev })
		}
	}
	shared := len(nodev) > 0 && n.Dev == ""
	if !shared {
		for _, addr := range nodev {
			c.place(addr, func(p *api.Place) { p.NoDev = true })
		}
	}
	if err := c.readSettings(t, "network"); err != nil {
		return err
	}
	switch nat := t.has("netns/nat"); {
	case n.Raw && !nat:
		return errors.New("netns/raw: its sockets would be in the host's network: it needs netns/nat")
	case nat && len(n.Addresses) > 0:
		return errors.New("netns/nat: it has interfaces too: a guest has a private network or addresses of the host's, not both")
	case nat:
		n.Mode = api.ModeNAT
	case shared:
		n.Mode = api.ModeShared
	case len(n.Addresses) > 0:
		n.Mode = api.ModeOwn
	default:
		return errors.New("interfaces: no address (interfaces/0/ip); for a private network behind the host make a file netns/nat")
	}
	return nil
}

// place changes where an address is.
func (c *Config) place(addr netip.Addr, change func(*api.Place)) {
	if c.Network.Places == nil {
		c.Network.Places = map[netip.Addr]api.Place{}
	}
	p := c.Network.Places[addr]
	change(&p)
	c.Network.Places[addr] = p
}

// readInterface reads the directory of an interface. Without a device (nodev), dev is
// empty.
func (c *Config) readInterface(t *tree, dir string) (prefix netip.Prefix, dev string, err error) {
	text := t.scalar(dir + "ip")
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return prefix, "", fmt.Errorf("%sip: want an address, as 192.0.2.1 or 2001:db8::1, not %q", dir, text)
	}
	addr = addr.Unmap()
	size, name := t.first(dir+"prefix", "interfaces/prefix", dir+"mask", "interfaces/mask")
	length, err := PrefixLength(addr, size)
	if err != nil {
		return prefix, "", fmt.Errorf("%s: %w", name, err)
	}
	prefix = netip.PrefixFrom(addr, length)
	dev, _ = t.first(dir+"dev", "interfaces/dev")
	if dev == "" || t.has(dir+"nodev") || t.has(dir+"only_ip") {
		return prefix, "", nil
	}
	if err := c.readLabel(t, dir, addr, dev); err != nil {
		return prefix, "", err
	}
	bcast, file := t.first(dir+"bcast", "interfaces/bcast")
	switch at, err := netip.ParseAddr(bcast); {
	case bcast == "" || bcast == "+" || addr.Is6(): // the prefix's last address
	case bcast == "-":
		c.place(addr, func(p *api.Place) { p.Broadcast = prefix.Masked().Addr() })
	case err != nil || !at.Is4():
		return prefix, "", fmt.Errorf("%s: want an address, + or -, not %q", file, bcast)
	case at != lastAddress(prefix):
		c.place(addr, func(p *api.Place) { p.Broadcast = at })
	}
	return prefix, dev, nil
}

// readLabel reads the label of an address, as which older tools show it as a device of
// its own (eth0:www).
func (c *Config) readLabel(t *tree, dir string, addr netip.Addr, dev string) error {
	const longest = 15 // IFNAMSIZ-1
	label := t.scalar(dir + "name")
	switch {
	case label == "":
	case addr.Is6():
		c.Unread = append(c.Unread, api.Unread{File: dir + "name", Why: "addresses of IPv6 have no labels"})
	case len(dev)+1+len(label) > longest || strings.ContainsAny(label, " \t/"):
		return fmt.Errorf("%sname: want a word with which %s:%s has at most %d characters", dir, dev, label, longest)
	default:
		c.place(addr, func(p *api.Place) { p.Label = label })
	}
	return nil
}

// lastAddress returns the broadcast address of a prefix of IPv4.
func lastAddress(p netip.Prefix) netip.Addr {
	four := p.Masked().Addr().As4()
	last := binary.BigEndian.Uint32(four[:]) | uint32(uint64(1)<<(32-p.Bits())-1)
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, last)))
}

// PrefixLength returns the length of a prefix written as "24" or as "255.255.255.0";
// for "" it is that of a single address.
func PrefixLength(addr netip.Addr, size string) (int, error) {
	if size == "" {
		return addr.BitLen(), nil
	}
	if mask, err := netip.ParseAddr(size); err == nil && mask.Is4() && addr.Is4() {
		m := mask.As4()
		v := binary.BigEndian.Uint32(m[:])
		ones := bits.LeadingZeros32(^v)
		if v != ^(math.MaxUint32 >> ones) {
			return 0, fmt.Errorf("mask %s has holes", size)
		}
		return ones, nil
	}
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > addr.BitLen() {
		return 0, fmt.Errorf("want a number from 0 to %d for %s, or for IPv4 a mask as 255.255.255.0, not %q", addr.BitLen(), addr, size)
	}
	return n, nil
}

func (c *Config) readCgroup(t *tree) error {
	c.Cgroup = map[string]string{}
	for _, dir := range []string{"../.defaults/cgroup", "cgroup"} { // the guest's own file wins
		for _, name := range t.names(dir) {
			if !slices.Contains([]string{"name", "base", "mnt", "subsys", "inherit", "per-ss"}, name) {
				// Some have one line per device (io.max).
				c.Cgroup[name] = strings.Join(t.list(dir+"/"+name), "\n")
			}
		}
	}
	for _, name := range []string{"cpus", "mems"} {
		if s := t.scalar("cpuset/" + name); s != "" && c.Cgroup["cpuset."+name] == "" {
			c.Cgroup["cpuset."+name] = s
		}
	}
	list, err := fromCgroup1(c.Cgroup)
	if err != nil {
		return err
	}
	c.Unread = append(c.Unread, list...)
	return nil
}

// write replaces the configuration of a guest with g. Files for which g has no field
// (capabilities, other cgroup files, an administrator's scripts, unknown files) are
// kept.
func (p Paths) write(g api.Guest, root string) error {
	f := files{text: map[string]string{
		"context":             scalar(strconv.Itoa(g.Context)),
		"image":               scalar(g.Image),
		"apps/init/style":     scalar(g.Init.Style),
		"apps/init/cmd.start": list(g.Init.Command),
		"netns/nat":           "",
	}, link: map[string]string{"vdir": root, "run": p.runFile(g.Name)}}
	if g.Network.Mode == api.ModeNAT {
		f.text["netns/nat"] = present
	}
	for _, row := range setting.Table {
		if row.File == "" {
			continue
		}
		for _, older := range row.Older {
			f.text[older] = ""
		}
		f.text[row.File] = row.Content(&g)
	}
	maps.Copy(f.text, setting.Files(g.Limits.Ulimits))
	maps.Copy(f.text, ioNiceFiles(g.IONice))
	maps.Copy(f.text, diskFiles(g.Limits, root))
	for _, older := range []string{ // read for what is in cgroup/ now: readRlimits, readSched
		"rlimits/nproc", "rlimits/nproc.hard", "rlimits/rss", "rlimits/rss.soft", "rlimits/rss.hard",
		"schedule", "sched/fill-rate", "sched/interval", "sched/priority-bias", "sched/idle-time",
	} {
		f.text[older] = ""
	}
	for i, a := range g.Network.Addresses {
		dir := "interfaces/" + strconv.Itoa(i) + "/"
		f.text[dir+"ip"] = a.Addr().String() + "\n"
		f.text[dir+"prefix"] = strconv.Itoa(a.Bits()) + "\n"
		place := g.Network.Places[a.Addr()]
		if g.Network.Mode == api.ModeShared || place.NoDev {
			f.text[dir+"nodev"] = present
		} else {
			f.text[dir+"dev"] = scalar(g.Network.On(a.Addr()))
		}
		f.text[dir+"name"] = scalar(place.Label)
		if place.Broadcast.IsValid() {
			f.text[dir+"bcast"] = scalar(place.Broadcast.String())
		}
	}
	if g.Boot.Mark != "" {
		f.text[setting.Disabled] = ""
	}
	writeDevices(&g, f.text)
	fstab, same := fstabOf(&g, openTree(p.config(g.Name)))
	if f.text["fstab"] = fstab; same {
		delete(f.text, "fstab")
	}
	keep := func(rel string) bool {
		switch {
		case slices.Contains(fstabFiles, rel):
			return same
		case strings.HasPrefix(rel, vdevmap+"/"):
			return false
		case slices.ContainsFunc(strings.Split(rel, "/"), isBackup):
			return true
		case strings.HasPrefix(rel, "dlimits/"):
			return false // as numbered interfaces
		case strings.HasPrefix(rel, "interfaces/"):
			// Numbered interfaces are rewritten as a whole; defaults for all of them could differ.
			if strings.Count(rel, "/") > 1 || slices.Contains([]string{"dev", "prefix", "mask", "bcast"}, filepath.Base(rel)) {
				return false
			}
		}
		_, ours := f.text[rel]
		_, link := f.link[rel]
		return !ours && !link
	}
	return f.replace(p.config(g.Name), keep)
}

// Names returns the names of the configured guests. It skips directories that
// begin with a dot and those without a guest's files.
func (p Paths) Names() ([]string, error) {
	entries, err := os.ReadDir(p.ConfigDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if CheckName(e.Name()) != nil {
			continue
		}
		if _, err := p.vdir(e.Name()); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
