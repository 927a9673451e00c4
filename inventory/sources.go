package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/inventory/ansible"
)

// Loader reads inventories. The zero value runs no programs.
type Loader struct {
	// Run runs an inventory program with "--list", or "--host" and a host's name, and
	// returns what it prints. If it is nil, programs are refused.
	Run func(path string, args ...string) ([]byte, error)
}

// Load reads inventories and merges them, in their order, into one. Each is a file
// (of ours, in Ansible's YAML or INI, or as inventory programs print it), a program,
// a directory of such, or a list of hosts, "web1,web2,". Variables in group_vars and
// host_vars beside them are read too. An error is an *Errors with everything that is
// wrong in any of them.
func (l Loader) Load(sources ...string) (*Inventory, error) {
	b := newBuilder()
	b.run = l.Run
	if len(sources) == 0 {
		b.Add(Position{}, "name one with -i fleet.yml, or make a practice fleet with: vsfleet lab up", "no inventory is given")
	}
	var dirs []string
	for _, source := range sources {
		if dir := b.source(source); dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		b.varsFiles(dir)
	}
	return b.build()
}

// Load reads inventories as a Loader does that runs no programs.
func Load(sources ...string) (*Inventory, error) { return Loader{}.Load(sources...) }

// source reads one inventory and returns the directory that may have group_vars and
// host_vars, or "".
func (b *builder) source(source string) (dir string) {
	info, err := os.Stat(source)
	if err != nil && strings.Contains(source, ",") {
		b.Files = append(b.Files, source)
		b.merge(source, ansible.ReadHostList(source))
		return ""
	}
	path := filepath.Clean(source)
	if slices.Contains(b.Files, path) {
		b.Add(Position{File: path}, "name it once", "this inventory is given twice")
		return ""
	}
	if err == nil && info.IsDir() {
		b.Files = append(b.Files, path)
		before := len(b.Files)
		b.directory(path)
		if len(b.Files) == before {
			b.Add(Position{File: path}, "files that end in .ini, .cfg, .txt and the like are left out, as in Ansible: name them with -i", "this directory has no inventory in it")
		}
		return path
	}
	b.file(path)
	return filepath.Dir(path)
}

// notInDirectories are files that Ansible does not take for inventories in a
// directory.
var (
	hiddenEntry      = regexp.MustCompile(`^\.|^(host_vars|group_vars|vars_plugins)$`)
	notInDirectories = regexp.MustCompile(`(\.(pyc|pyo|swp|bak|rpm|md|txt|rst|orig|ini|cfg|retry)|~|^images\.lock)$`)
)

// directory reads the inventories in a directory, by name.
func (b *builder) directory(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.unreadable(dir, err)
		return
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch {
		case hiddenEntry.MatchString(entry.Name()):
		case notInDirectories.MatchString(entry.Name()):
			if filepath.Ext(path) == ".ini" {
				b.Warn(Position{File: path}, "name it with -i, or give it another ending", "it is left out, as Ansible leaves out .ini files of a directory")
			}
		case isDir(path):
			b.directory(path)
		case isSpecial(path):
			b.Warn(Position{File: path}, "", "it is left out, as it is not a file")
		default:
			b.file(path)
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// isSpecial reports whether a path is a pipe, a socket or a device: reading it could
// wait forever.
func isSpecial(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular()
}

// maxInventory limits what is read of one file: a device that was named by mistake has
// no end.
const maxInventory = 256 << 20

func readAll(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInventory+1))
	if len(data) > maxInventory {
		return nil, fmt.Errorf("it has more than %d MiB", maxInventory>>20)
	}
	return data, err
}

// file reads a file or runs a program.
func (b *builder) file(path string) {
	b.Files = append(b.Files, path)
	data, err := readAll(path)
	switch {
	case err != nil:
		b.unreadable(path, err)
	case bytes.HasPrefix(data, []byte("#!")) || bytes.HasPrefix(data, []byte("\x7fELF")):
		b.program(path)
	default:
		b.read(path, data)
	}
}

// unreadable reports why a file could not be read, and what to do about it.
func (b *builder) unreadable(path string, err error) {
	pos := Position{File: path}
	if errors.Is(err, fs.ErrNotExist) {
		b.Add(pos, "name another with -i, or make a practice fleet with: vsfleet lab up", "there is no such inventory")
		return
	}
	b.Add(pos, "", "read inventory: %v", err)
}

// program asks an inventory program for its hosts.
func (b *builder) program(path string) {
	if info, err := os.Stat(path); err == nil && info.Mode()&0o111 == 0 {
		b.Add(Position{File: path}, "chmod +x "+path, "this is a program, but it is not executable")
		return
	}
	if b.run == nil {
		b.Add(Position{File: path}, "save what it prints: "+path+" --list > hosts.json", "this is a program, which is not run here")
		return
	}
	root, call := b.ask(path, "--list")
	if root == nil {
		return
	}
	list, whole := ansible.ReadList(root)
	for _, h := range list.Hosts {
		if whole {
			break
		}
		if checkName(h.Name, maxHostName) != nil { // reported by merge; and it could be an option
			continue
		}
		if root, call := b.ask(path, "--host", h.Name); root != nil {
			one := *list
			one.Problems = nil
			one.ReadHost(h, root)
			(&merger{b, call}).problems(one.Problems)
		}
	}
	b.merge(call, list)
}

// ask runs an inventory program and returns the JSON that it prints, or nil.
func (b *builder) ask(path string, args ...string) (root *yaml.Node, call string) {
	call = path + " " + strings.Join(args, " ")
	if args[0] == "--list" {
		b.Files = append(b.Files, call)
	}
	data, err := b.run(path, args...)
	if err != nil {
		b.Add(Position{File: call}, "", "%v", err)
		return nil, call
	}
	if len(bytes.TrimSpace(data)) == 0 && args[0] == "--host" {
		data = []byte("{}")
	}
	root, err = ansible.ParseJSON(data)
	if err != nil {
		b.Add(Position{File: call}, "", "what it prints is no JSON: %v", err)
		return nil, call
	}
	return root, call
}
