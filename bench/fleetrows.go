package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// fleetRow measures what a controller spends per host: connect, authenticate, one
// command. The processor time is that of all processes of a tool, as a cgroup of
// its own counts it, without that of sshd.
func fleetRow(ctx context.Context, b *bench) (err error) {
	const hosts, forks = 200, "64"
	f, err := startSSH(ctx, "/run/fleet", hosts, "22", "MaxStartups 1000\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	tools := append([]tool{{name: "vsfleet ping", args: f.vsfleet(b, forks, "ping")}}, f.peers(forks, "true", false, "")...)
	// Warm: vsnode is pushed, Python's modules are compiled.
	for _, t := range tools[:3] {
		if _, err := t.measure(ctx, b); err != nil {
			return err
		}
	}
	return compare(ctx, b, fmt.Sprintf("Ask %d hosts, %s at once (target: 1.5 ms a host; memory: 20 MB and 100 KB a host)", hosts, forks), hosts, b.rounds(3), tools)
}

// stepsRow measures ten commands on each of 50 hosts, one after the other.
func stepsRow(ctx context.Context, b *bench) (err error) {
	const hosts, forks, steps = 50, "50", 10
	f, err := startSSH(ctx, "/run/steps", hosts, "22", "MaxStartups 1000\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	play := "- hosts: all\n  gather_facts: false\n  tasks:\n" + strings.Repeat("    - raw: /bin/true\n", steps)
	if err := os.WriteFile(f.dir+"/play.yml", []byte(play), 0o600); err != nil {
		return err
	}
	opts := "-F " + f.dir + "/ssh_config"
	ten := strings.TrimSuffix(strings.Repeat("/bin/true && ", steps), " && ")
	tools := []tool{
		{name: "vsfleet run, 10 in one exec", args: f.vsfleet(b, forks, "run", "--", ten)},
		{name: "ansible-playbook, 10 raw", args: []string{"ansible-playbook", "-i", strings.Join(f.hosts, ",") + ",", "-f", forks, f.dir + "/play.yml"}, slow: true,
			// As its users run it: one connection per host is kept.
			env: []string{"ANSIBLE_SSH_ARGS=" + opts + " -o ControlMaster=auto -o ControlPersist=30s", "ANSIBLE_NOCOLOR=1"}},
	}
	return compare(ctx, b, fmt.Sprintf("%d steps on %d hosts (target: 1.0 s, 0.15 s of processor)", steps, hosts), hosts, b.rounds(3), tools)
}

// pushRow measures how vsnode gets onto 50 hosts, and what it costs if it is there. Each
// address has a /var/lib/vsnode of its own.
func pushRow(ctx context.Context, b *bench) (err error) {
	const hosts, forks, dirs = 50, "16", "/run/pushed"
	login := "/run/push-login"
	script := `set -- $SSH_CONNECTION; mkdir -p -m 700 ` + dirs + `/$3 /var/lib/vsnode
exec unshare -m sh -c 'mount --bind "$0" /var/lib/vsnode && exec sh -c "$SSH_ORIGINAL_COMMAND"' ` + dirs + `/$3`
	if err := os.WriteFile(login, []byte(script), 0o700); err != nil {
		return err
	}
	f, err := startSSH(ctx, "/run/push", hosts, "22", "MaxStartups 1000\nForceCommand /bin/sh "+login+"\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	plain, err := startSSH(ctx, "/run/push-plain", hosts, "2222", "MaxStartups 1000\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	opts := "-F " + plain.dir + "/ssh_config"
	clean := func() error { return os.RemoveAll(dirs) }
	copied := func() error { return os.RemoveAll("/run/copied") }
	targets := strings.Join(plain.hosts, ",")
	ansible := []string{"ansible", "all", "-i", targets + ",", "-f", forks, "-m", "copy", "-a", "src=" + b.vsnode + " dest=/run/copied mode=0700"}
	err = compare(ctx, b, fmt.Sprintf("Bring vsnode onto %d hosts that lack it, %s at once", hosts, forks), hosts, b.rounds(3), []tool{
		{name: "vsfleet ping, cold", args: f.vsfleet(b, forks, "ping"), reset: clean},
		{name: "clush --copy (scp)", args: []string{"clush", "-S", "-q", "-f", forks, "-o", opts, "-w", targets, "--copy", b.vsnode, "--dest", "/run/copied"}, slow: true, reset: copied},
		{name: "ansible -m copy", args: ansible, slow: true, env: ansibleEnv(opts), reset: copied},
	})
	if err != nil {
		return err
	}
	return compare(ctx, b, fmt.Sprintf("The same on %d hosts that have it (target: no round trip more than without the check)", hosts), hosts, b.rounds(3), []tool{
		{name: "vsfleet ping, unchanged", args: f.vsfleet(b, forks, "ping")},
		{name: "ansible -m copy, unchanged", args: ansible, slow: true, env: ansibleEnv(opts)},
	})
}

// throttledRow measures who is lost where sshd is as its packagers left it: directly, and
// through one jump host.
func throttledRow(ctx context.Context, b *bench) error {
	for _, hosts := range []int{200, 500} {
		if err := throttled(ctx, b, hosts); err != nil {
			return err
		}
	}
	return nil
}

func throttled(ctx context.Context, b *bench, hosts int) (err error) {
	const forks, gate = "64", "root@127.2.0.1:2022"
	f, err := startSSH(ctx, "/run/throttled"+strconv.Itoa(hosts), hosts, "22", "") // MaxStartups 10:30:100
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	stop, err := f.sshd(ctx, "2022", "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if _, err := (tool{name: "warm", args: f.vsfleet(b, forks, "ping")}).measure(ctx, b); err != nil {
		return err
	}
	lost := countLines(",unreachable,")
	tools := append([]tool{{name: "vsfleet ping", args: f.vsfleet(b, forks, "-o", "csv", "ping"), lost: lost}}, f.peers(forks, "true", true, "")...)
	if err := compare(ctx, b, fmt.Sprintf("%d hosts at one sshd with its defaults, %s at once (target: none lost)", hosts, forks), hosts, 1, tools); err != nil {
		return err
	}
	tools = append([]tool{{name: "vsfleet ping -J", args: f.vsfleet(b, forks, "-o", "csv", "-J", gate, "ping"), lost: lost}},
		f.peers(forks, "true", true, " -o ProxyJump="+gate)...)
	return compare(ctx, b, fmt.Sprintf("%d hosts behind one jump host, both with their defaults (target: none lost)", hosts), hosts, 1, tools)
}
