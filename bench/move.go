package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/lab"
)

// moveRow measures how long nobody can connect to a guest that moves between two hosts, with
// files of its own, and while it writes.
func moveRow(ctx context.Context, b *bench) (err error) {
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-bench-move-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env := append(os.Environ(), "VSFLEET_LAB="+dir+"/lab", "XDG_STATE_HOME="+dir+"/state", "HOME="+dir)
	vsfleet := func(args ...string) error {
		cmd := exec.CommandContext(ctx, b.vsfleet, args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("vsfleet %s: %w: %s", args, err, out)
		}
		return nil
	}
	if err := vsfleet("lab", "up", "--dir", dir+"/lab", "--name", "bench", "--hosts", "2"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vsfleet("lab", "down", "--dir", dir+"/lab")) }()
	l, err := lab.Status(ctx, lab.Options{Dir: dir + "/lab"})
	if err != nil {
		return err
	}
	if err := writeTree(dir+"/busybox.tar", filepath.Join(filepath.Dir(b.vsfleet), "calls")); err != nil {
		return err
	}
	archive, err := os.ReadFile(dir + "/busybox.tar")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if exit, err := l.Exec(ctx, "lab1", bytes.NewReader(archive), &out, &out, "/bin/sh", "-c", "cat >/srv/busybox.tar"); err != nil || exit != 0 {
		return fmt.Errorf("copy the image's archive: %w: %s", err, out.Bytes())
	}
	at := l.Subnet.Addr().As4()
	at[3] = 200
	address := fmt.Sprintf("%d.%d.%d.%d", at[0], at[1], at[2], at[3])
	fleet := filepath.Join(dir, "fleet.yml")
	put := func(host string) error {
		return os.WriteFile(fleet, fmt.Appendf(nil, `images:
  busybox: {method: template, args: [-t, /srv/busybox.tar]}
guests:
  web:
    on: %s
    image: busybox
    network: {mode: own, addresses: [%s/24], dev: eth0}
    init: {command: [/bin/busybox, httpd, -f, -p, "8080", -h, /root]}
`, host, address), 0o600)
	}
	env = append(env, "VSFLEET_INVENTORY="+l.Inventory+":"+fleet)
	if err := errors.Join(put("lab1"), vsfleet("apply")); err != nil {
		return err
	}
	fmt.Printf("\nMove a guest between two hosts: nobody can connect to it (target: 2 s, and what the last round writes)\n")
	on, off := "lab1", "lab2"
	for _, row := range []struct{ name, script string }{
		{"100 files of 1 MB", "for i in $(busybox seq 100); do busybox head -c 1000000 /dev/urandom >/root/$i; done"},
		{"5,000 files more, of 1 KB", "i=0; while [ $i -lt 5000 ]; do echo $i >/root/small$i; i=$((i + 1)); done"},
		{"and it writes 2 MB 5 times a second", "(while :; do busybox head -c 2000000 /dev/urandom >/root/busy; busybox usleep 200000; done) >/dev/null 2>&1 </dev/null &"},
	} {
		var gaps []time.Duration
		for range b.rounds(3) {
			if err := vsfleet("guest", "exec", on+"/web", "--", "/bin/busybox", "sh", "-c", row.script); err != nil {
				return err
			}
			if err := put(off); err != nil {
				return err
			}
			gap, err := unreachable(ctx, address+":8080", func() error { return vsfleet("guest", "move", "--delete", on+"/web", off) })
			if err != nil {
				return err
			}
			gaps = append(gaps, gap)
			on, off = off, on
		}
		slices.Sort(gaps)
		fmt.Printf("  %-40s %10s  %10s … %s\n", row.name, threeDigits(gaps[len(gaps)/2]), threeDigits(gaps[0]), threeDigits(gaps[len(gaps)-1]))
	}
	return nil
}

// unreachable returns the longest time between two answers of a web server while do runs.
func unreachable(ctx context.Context, address string, do func() error) (longest time.Duration, err error) {
	if err := awaitPort(address); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	last, done := time.Now(), false
	for {
		if answers(ctx, address) {
			longest, last = max(longest, time.Since(last)), time.Now()
			if done {
				return longest, nil
			}
		}
		select {
		case err := <-ended:
			if err != nil {
				return 0, err
			}
			done = true
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(last) > time.Minute {
			return 0, errors.New("the guest does not answer any more")
		}
	}
}

func answers(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return false
	}
	n, err := c.Read(make([]byte, 1))
	return n > 0 && err == nil
}
