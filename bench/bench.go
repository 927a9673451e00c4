package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/images"
)

// bench holds what all rows use.
type bench struct {
	host            *node.Host // in this process, as `vsnode serve` has it
	vserver         string     // the vsnode binary, by its name for administrators
	vsnode, vsfleet string
	floor           string    // bench/floor/floor.c
	image           api.Image // a busybox
	tree            string    // the same as a directory: the peers' root filesystem
	cgroups         string    // where cgroup v2 is mounted
	vserverStat     string    // and as vserver-stat
	factor          float64
	many            int // guests that fill a host
	guests          int // made so far
}

func (b *bench) rounds(n int) int { return max(1, int(float64(n)*b.factor)) }

func newBench(ctx context.Context, vsnode, vsfleet string, factor float64, many int) (*bench, error) {
	b := &bench{factor: factor, many: many, vserver: "/run/vserver", vserverStat: "/run/vserver-stat"}
	var err error
	for to, path := range map[*string]string{&b.vsnode: vsnode, &b.vsfleet: vsfleet} {
		if *to, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		if _, err := os.Stat(*to); err != nil {
			return nil, fmt.Errorf("%w; make build makes it", err)
		}
	}
	b.floor = filepath.Join(filepath.Dir(b.vsnode), "floor")
	if b.vsnode, err = installed(b.vsnode); err != nil {
		return nil, err
	}
	if err := os.Chmod("/proc/self/exe", 0o700); err != nil { // one that others can read enters no guest
		return nil, err
	}
	for _, name := range []string{b.vserver, b.vserverStat} {
		if err := os.Symlink(b.vsnode, name); err != nil {
			return nil, err
		}
	}
	if b.host, err = node.Open("bench"); err != nil {
		return nil, err
	}
	b.host.Guests.WatchStarts = false // the watch after a start is not to be measured
	if b.cgroups, err = cgroup.Mount(); err != nil {
		return nil, err
	}
	const archive = "/run/busybox.tar"
	if err := writeTree(archive, filepath.Join(filepath.Dir(b.floor), "calls")); err != nil {
		return nil, err
	}
	spec := api.ImageSpec{Name: "busybox", Method: "template", Args: []string{"-t", archive}}
	if b.image, _, err = b.host.Images.Build(ctx, spec, nil); err != nil {
		return nil, err
	}
	// The peers have no descriptions.
	plain, err := images.Open("/var/lib/vservers/peers/.images")
	if err != nil {
		return nil, err
	}
	plain.Plain = true
	if _, _, err := plain.Build(ctx, spec, nil); err != nil {
		return nil, err
	}
	b.tree, err = plain.Root(b.image.ID)
	return b, err
}

// installed returns a copy of vsnode as an upload writes it, root's alone. One that the
// linker has just written starts more slowly: its pages lie singly in the page cache.
func installed(vsnode string) (string, error) {
	program, err := os.ReadFile(vsnode)
	if err != nil {
		return "", err
	}
	const path = "/var/lib/vsnode-to-measure"
	return path, os.WriteFile(path, program, 0o700)
}

// writeTree writes a root filesystem with one static program that is all of
// its userland, and the one of callsRow.
func writeTree(archive, calls string) error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w; scripts/install bench installs it", err)
	}
	programs := map[string][]byte{"bin/busybox": nil, callsProgram: nil}
	for name, from := range map[string]string{"bin/busybox": path, callsProgram: calls} {
		if programs[name], err = os.ReadFile(from); err != nil {
			return fmt.Errorf("%w; scripts/bench makes it", err)
		}
	}
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(programs[name]))}); err != nil {
			return err
		}
		if _, err := w.Write(programs[name]); err != nil {
			return err
		}
	}
	for _, name := range []string{"sh", "sleep", "true"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

// guest makes a guest on the machine's address whose init is the command.
func (b *bench) guest(ctx context.Context, name string, command ...string) error {
	return b.host.Guests.Create(ctx, b.spec(name, command...))
}

// running makes such a guest, starts it, and returns what stops it.
func (b *bench) running(ctx context.Context, name string) (stop func() error, err error) {
	if err := b.guest(ctx, name, "/bin/sleep", "1000000"); err != nil {
		return nil, err
	}
	if err := b.host.Guests.Start(ctx, name, guest.Options{}); err != nil {
		return nil, err
	}
	return func() error {
		_, err := b.host.Guests.Stop(ctx, name)
		return err
	}, nil
}

// spec returns such a guest, with a port of its own.
func (b *bench) spec(name string, command ...string) api.Guest {
	b.guests++
	ports := port.Range{Proto: port.TCP, First: uint16(1024 + b.guests), Last: uint16(1024 + b.guests)}
	return api.Guest{
		Name: name, Image: b.image.ID,
		Network: api.Network{
			Mode:      api.ModeShared,
			Addresses: []netip.Prefix{netip.MustParsePrefix(address)},
			Ports:     []port.Range{ports},
		},
		Init: api.Init{Style: "command", Command: command},
	}
}

func (b *bench) cgroup(name string) cgroup.Dir { return cgroup.Guest(b.cgroups, name) }

// bundle is a plain OCI bundle: what the runtime's own spec command writes, with
// another root filesystem and program. The devices' resources are left out:
// with them crun 1.8 locks more memory for its BPF program than a virtual machine
// may allow.
type bundle struct {
	runtime  string
	root     string
	writable bool
	hostNet  bool
}

func (c bundle) write(ctx context.Context, dir string, args ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.runtime, "spec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s spec: %w: %s", c.runtime, err, out)
	}
	file := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	process, linux := spec["process"].(map[string]any), spec["linux"].(map[string]any)
	process["args"], process["terminal"] = args, false
	spec["root"] = map[string]any{"path": c.root, "readonly": !c.writable}
	delete(linux, "resources")
	if c.hostNet {
		linux["namespaces"] = slices.DeleteFunc(linux["namespaces"].([]any), func(ns any) bool {
			return ns.(map[string]any)["type"] == "network"
		})
	}
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}
