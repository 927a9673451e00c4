package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/context"
)

// Config is what the directory of a guest says. Linux-VServer's files keep
// their names and formats ("flower page"); where it had none, ours are:
//
//	image              the ID of the image below the guest's own files
//	interfaces/metadata (boolean) the guest may reach the metadata service of the host's cloud
//	interfaces/ports   shared mode: ports that the guest owns, one a line ("80/tcp")
//	netns/nat          (boolean) the guest has a private network behind the host
//	netns/forward      nat mode: ports of the host that lead inside ("2222:22/tcp")
//
// The network's mode is not a file: netns/nat means nat, an interface with
// nodev means shared, one without means own.
type Config struct {
	api.Guest
	Root    string            // target of vdir: the guest's own files
	Caps    context.CapSet    // bcapabilities
	Cgroup  map[string]string // cgroup/FILE: written to the cgroup at start
	Shell   string
	Unknown []string
}

// Names of limits in the cgroup directory.
const (
	memoryFile = "memory.max"
	cpuFile    = "cpu.max"
	pidsFile   = "pids.max"
	cpuPeriod  = 100000 // microseconds; the kernel's default
)

// ErrNoGuest says that a guest is not configured on this host.
var ErrNoGuest = errors.New("no such guest")

// Read reads a guest's configuration. An error says which file is at fault.
func (p Paths) Read(name string) (Config, error) {
	if err := CheckName(name); err != nil {
		return Config{}, err
	}
	dir := p.config(name)
	t := openTree(dir)
	c := Config{Guest: api.Guest{Name: name}}
	root, err := os.Readlink(filepath.Join(dir, "vdir"))
	if err != nil {
		if _, serr := os.Stat(dir); errors.Is(serr, fs.ErrNotExist) {
			return c, fmt.Errorf("%w: %s (%s is not there)", ErrNoGuest, name, dir)
		}
		return c, fmt.Errorf("read configuration of %s: %w", name, err)
	}
	if !filepath.IsAbs(root) {
		root = filepath.Join(dir, root)
	}
	c.Root = root
	for _, known := range []string{"vdir", "run", "cache", "name"} {
		t.known[known] = true
	}
	c.Image = t.scalar("image")
	c.Hostname = t.scalar("uts/nodename")
	c.Shell = t.scalar("shell")
	c.Init = api.Init{Style: t.scalar("apps/init/style"), Command: t.list("apps/init/cmd.start")}
	at := func(file string, err error) error {
		return fmt.Errorf("%s: %w", filepath.Join(dir, file), err)
	}
	if c.Context, err = strconv.Atoi(t.scalar("context")); err != nil || c.Context < api.MinContext || c.Context > api.MaxContext {
		return c, at("context", fmt.Errorf("want a number from %d to %d", api.MinContext, api.MaxContext))
	}
	if c.Caps, err = context.ParseCaps(t.list("bcapabilities")); err != nil {
		return c, at("bcapabilities", err)
	}
	if err := c.readNetwork(t); err != nil {
		return c, fmt.Errorf("%s: %w", dir, err)
	}
	if err := c.readCgroup(t); err != nil {
		return c, fmt.Errorf("%s: %w", dir, err)
	}
	c.Unknown = t.unknown()
	return c, t.err
}

func (c *Config) readNetwork(t *tree) error {
	n := &c.Network
	shared := false
	for _, i := range t.subdirs("interfaces") {
		file := func(name string) string { return "interfaces/" + i + "/" + name }
		if t.has(file("disabled")) {
			continue
		}
		text := t.scalar(file("ip"))
		if text == "" {
			return fmt.Errorf("%s: an address is wanted", file("ip"))
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file("ip"), err)
		}
		bits := addr.BitLen()
		for _, name := range []string{file("prefix"), "interfaces/prefix"} {
			if s := t.scalar(name); s != "" {
				if bits, err = strconv.Atoi(s); err != nil || bits < 0 || bits > addr.BitLen() {
					return fmt.Errorf("%s: want a number from 0 to %d", name, addr.BitLen())
				}
				break
			}
		}
		dev := t.scalar(file("dev"))
		if dev == "" {
			dev = t.scalar("interfaces/dev")
		}
		nodev := t.has(file("nodev")) || dev == ""
		if len(n.Addresses) > 0 && nodev != shared {
			return fmt.Errorf("interfaces: some have nodev and some do not; a guest's addresses are all shared or all its own")
		}
		shared = nodev
		if !nodev {
			if n.Dev != "" && n.Dev != dev {
				return fmt.Errorf("%s: addresses on several devices (%s, %s)", file("dev"), n.Dev, dev)
			}
			n.Dev = dev
		}
		n.Addresses = append(n.Addresses, netip.PrefixFrom(addr, bits))
	}
	var err error
	if n.Ports, err = parseAll(t.list("interfaces/ports"), port.Parse); err != nil {
		return fmt.Errorf("interfaces/ports: %w", err)
	}
	if n.Forwards, err = parseAll(t.list("netns/forward"), port.ParseForward); err != nil {
		return fmt.Errorf("netns/forward: %w", err)
	}
	n.Metadata = t.has("interfaces/metadata")
	switch nat := t.has("netns/nat"); {
	case nat && len(n.Addresses) > 0:
		return errors.New("netns/nat and interfaces: a guest has a private network or addresses of the host's, not both")
	case nat:
		n.Mode = api.ModeNAT
	case shared:
		n.Mode = api.ModeShared
	case len(n.Addresses) > 0:
		n.Mode = api.ModeOwn
	default:
		return errors.New("interfaces: no address, and no netns/nat")
	}
	return nil
}

func parseAll[T any](words []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, w := range words {
		v, err := parse(w)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (c *Config) readCgroup(t *tree) error {
	entries, err := os.ReadDir(filepath.Join(t.dir, "cgroup"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = nil
	c.Cgroup = map[string]string{}
	for _, e := range entries {
		c.Cgroup[e.Name()] = t.scalar("cgroup/" + e.Name())
	}
	number := func(file string) (n int64) {
		if s := c.Cgroup[file]; s != "" && s != "max" && err == nil {
			if n, err = strconv.ParseInt(s, 10, 64); err != nil {
				err = fmt.Errorf("cgroup/%s: want a number or max", file)
			}
		}
		return n
	}
	c.Limits.MemoryBytes = number(memoryFile)
	c.Limits.Processes = number(pidsFile)
	if quota, period, ok := strings.Cut(c.Cgroup[cpuFile], " "); ok && quota != "max" {
		q, qerr := strconv.ParseFloat(quota, 64)
		p, perr := strconv.ParseFloat(strings.TrimSpace(period), 64)
		if qerr != nil || perr != nil || p <= 0 {
			return fmt.Errorf("cgroup/%s: want QUOTA PERIOD in microseconds", cpuFile)
		}
		c.Limits.CPUs = q / p
	}
	return err
}

// write makes the configuration of a guest that of g. Files that say what g
// cannot (capabilities, other cgroup files, scripts of an administrator, what
// is unknown) stay.
func (p Paths) write(g api.Guest, root string) error {
	f := files{text: map[string]string{
		"context":              scalar(strconv.Itoa(g.Context)),
		"image":                scalar(g.Image),
		"uts/nodename":         scalar(g.Hostname),
		"apps/init/style":      scalar(g.Init.Style),
		"apps/init/cmd.start":  list(g.Init.Command),
		"interfaces/ports":     list(texts(g.Network.Ports)),
		"netns/forward":        list(texts(g.Network.Forwards)),
		"cgroup/" + memoryFile: count(g.Limits.MemoryBytes),
		"cgroup/" + pidsFile:   count(g.Limits.Processes),
	}, link: map[string]string{"vdir": root, "run": p.runFile(g.Name)}}
	if g.Network.Mode == api.ModeNAT {
		f.text["netns/nat"] = present
	}
	if g.Network.Metadata {
		f.text["interfaces/metadata"] = present
	}
	if g.Limits.CPUs > 0 {
		f.text["cgroup/"+cpuFile] = fmt.Sprintf("%d %d\n", int64(math.Round(g.Limits.CPUs*cpuPeriod)), cpuPeriod)
	}
	for i, a := range g.Network.Addresses {
		dir := "interfaces/" + strconv.Itoa(i) + "/"
		f.text[dir+"ip"] = a.Addr().String() + "\n"
		f.text[dir+"prefix"] = strconv.Itoa(a.Bits()) + "\n"
		if g.Network.Mode == api.ModeShared {
			f.text[dir+"nodev"] = present
		} else {
			f.text[dir+"dev"] = scalar(g.Network.Dev)
		}
	}
	keep := func(rel string) bool {
		switch {
		case strings.HasPrefix(rel, "interfaces/"):
			// Numbered interfaces are rewritten whole; defaults for all would speak against them.
			return strings.Count(rel, "/") == 1 && rel != "interfaces/ports" && rel != "interfaces/metadata" && rel != "interfaces/dev" && rel != "interfaces/prefix"
		case rel == "netns/nat" || rel == "cgroup/"+cpuFile:
			return false
		}
		_, ours := f.text[rel]
		_, link := f.link[rel]
		return !ours && !link
	}
	return f.replace(p.config(g.Name), keep)
}

func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}

func count(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10) + "\n"
}

// Names lists the configured guests. Directories that begin with a dot and
// those without vdir are none.
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
		if _, err := os.Lstat(filepath.Join(p.ConfigDir, e.Name(), "vdir")); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
