package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// snapshot holds what tests could leave behind on this machine, by kind. Other
// tests and other labs run at the same time, so of things with names only ours are
// compared.
type snapshot map[string]string

const (
	ourLinks  = "vsf-e2e"
	ourTables = "vsfleet-e2e"
	ourGroups = "vsfleet-e2e"
)

// machineDirs are directories of a host of vsfleet. This machine has none of them.
var machineDirs = []string{
	"/etc/vservers", "/var/lib/vservers", "/var/lib/vsnode", "/run/vservers", "/var/log/vservers",
	"/sys/fs/bpf/vservers", "/usr/local/sbin", labsDir,
}

func takeSnapshot() (snapshot, error) {
	s := snapshot{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	s["mounts"] = string(mounts)

	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		// vs… is the name of a guest's device on its host.
		if name := l.Attrs().Name; strings.HasPrefix(name, ourLinks) || !strings.HasPrefix(name, "vsf-") {
			s["links"] += name + "\n"
		}
	}

	nft, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := nft.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		if strings.HasPrefix(t.Name, ourTables) || !strings.HasPrefix(t.Name, "vsfleet-") {
			s["nft tables"] += fmt.Sprintln(t.Family, t.Name)
		}
	}

	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		groups, err := filepath.Glob(root + "/" + ourGroups + "*")
		if err != nil {
			return nil, err
		}
		s["cgroups"] += strings.Join(append(groups, ""), "\n")
	}

	for _, dir := range machineDirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// The place where tests of other packages mount the roots of images; it is empty.
		if len(entries) == 1 && entries[0].Name() == ".layers" {
			continue
		}
		s["files"] += dir + "\n"
		for _, e := range entries {
			s["files"] += filepath.Join(dir, e.Name()) + "\n"
		}
	}
	s["processes"], err = ourProcesses()
	return s, err
}

// ourProcesses are those in cgroups of our labs and those that run a program of
// the tests, ourselves aside. No process of a lab host leaves its cgroup.
func ourProcesses() (string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", err
	}
	list := ""
	for _, dir := range dirs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		// Processes come and go while one looks. A dead one that this machine's
		// process 1 has not reaped yet was not left by a lab.
		if stat, _ := os.ReadFile(dir + "/stat"); bytes.Contains(stat, []byte(") Z ")) || bytes.Contains(stat, []byte(") X ")) {
			continue
		}
		group, _ := os.ReadFile(dir + "/cgroup")
		exe, _ := os.Readlink(dir + "/exe")
		if strings.Contains(string(group), ourGroups) || binDir != "" && strings.HasPrefix(exe, binDir) {
			line, _ := os.ReadFile(dir + "/cmdline")
			list += fmt.Sprintf("%s %s %q\n", filepath.Base(dir), exe, line)
		}
	}
	return list, nil
}

// compare finds what is there now and was not before. Others may remove
// something meanwhile.
func (s snapshot) compare(after snapshot) error {
	var left []string
	for kind, text := range after {
		for line := range strings.Lines(text) {
			if !strings.Contains("\n"+s[kind], "\n"+line) {
				left = append(left, kind+": "+line)
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("the tests have left on this machine:\n%s", strings.Join(left, ""))
	}
	return nil
}
