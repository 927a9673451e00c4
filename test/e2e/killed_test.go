package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/test/script"
)

const killedFleet = `
images:
  busybox: {method: template, args: [-t, /srv/busybox.tar]}
groups:
  first:  {hosts: [lab1], vars: {own: @NET@.201/24}}
  second: {hosts: [lab2], vars: {own: @NET@.202/24}}
guests:
  www:
    on: all
    image: busybox
    hostname: "www-${host.name}"
    network: {mode: shared, address: host, ports: [80/tcp]}
    init: {command: [/sbin/web, "80"]}
  own:
    on: all
    image: busybox
    hostname: "own-${host.name}"
    network: {mode: own, addresses: ["${vars.own}"], dev: eth0}
    init: {command: [/sbin/web, "80"]}
  nat:
    on: all
    image: busybox
    hostname: "nat-${host.name}"
    network: {mode: nat, forward: ["8080:80/tcp"]}
    init: {command: [/sbin/web, "80"]}
`

// TestKilled ends vsfleet, or vsnode on a host, at moments that cover a whole
// build and a whole start, and runs the same command again, which has to finish.
func TestKilled(t *testing.T) {
	for _, k := range []struct {
		title string
		kill  func(l *killedLab, running *exec.Cmd)
		exits []int // of the killed command
	}{
		// -1: it was killed; 0: it was done before.
		{"vsfleet by Ctrl-C", interrupt, []int{0, 130}},
		{"vsfleet by kill -9", kill, []int{0, -1}},
		{"vsnode by kill -9", killNodes, []int{0, 2, 4, 6}},
	} {
		t.Run(k.title, func(t *testing.T) {
			t.Parallel()
			l := &killedLab{newLab(t, 2)}
			l.prepare()
			for _, command := range [][]string{{"apply"}, {"guest", "start", "lab*/*"}} {
				whole := l.duration(command)
				const moments = 6
				ended := 0
				for i := range moments {
					after := whole * time.Duration(2*i+1) / (2 * moments)
					t.Logf("vsfleet %s takes %v; killed after %v", strings.Join(command, " "), whole, after)
					l.reset(command)
					if l.runKilled(command, after, k.kill, k.exits) != 0 {
						ended++
					}
					l.runAgain(command)
				}
				if ended == 0 {
					t.Errorf("vsfleet %s was always done before it was killed: the test shows nothing", strings.Join(command, " "))
				}
			}
		})
	}
}

type killedLab struct{ *testLab }

func (l *killedLab) prepare() {
	l.t.Helper()
	l.fleet(killedFleet)
	noise := make([]byte, 24<<20) // so that a build and a copy take some time
	rand.Read(noise)
	l.image("lab1", map[string][]byte{"srv/noise": noise})
	l.must("install")
}

// duration returns how long the command takes when nobody ends it.
func (l *killedLab) duration(command []string) time.Duration {
	l.t.Helper()
	if command[0] != "apply" {
		l.reset(command)
	}
	begun := time.Now()
	l.must(command...)
	took := time.Since(begun)
	l.runAgain(command)
	return took
}

// reset undoes what the command did, so that it has all to do again.
func (l *killedLab) reset(command []string) {
	l.t.Helper()
	if command[0] != "apply" {
		l.must("guest", "stop", "lab*/*")
		return
	}
	l.must("guest", "delete", "--yes", "lab*/*")
	for _, h := range l.Hosts {
		l.mustOn(h.Name, "sh", "-c", `for id in $(vsnode image list | grep -o 'sha256:[0-9a-f]\{64\}' | sort -u); do vsnode image remove $id; done; vsnode image gc --all`)
		// No guest, no image, and nothing of those that were killed.
		if left := l.mustOn(h.Name, "find", "/var/lib/vservers", "-size", "+64k"); left != "" {
			l.t.Errorf("left on %s:\n%s", h.Name, left)
		}
		if left := l.mustOn(h.Name, "sh", "-c", `find /etc/vservers -mindepth 1 -not -path '*/.defaults*'; find /sys/fs/cgroup/vservers -mindepth 1 -type d 2>/dev/null;`); left != "" {
			l.t.Errorf("left on %s:\n%s", h.Name, left)
		}
		if left := l.mustOn(h.Name, "sh", "-c", "ip -4 -o address show dev eth0 | wc -l; ip -o link show type veth | wc -l"); left != "1\n1\n" {
			l.t.Errorf("addresses and links of %s after all guests are deleted: %q, want eth0 with its one address", h.Name, left)
		}
	}
}

// runKilled starts a command, kills it after a while, and returns its exit status.
func (l *killedLab) runKilled(command []string, after time.Duration, kill func(*killedLab, *exec.Cmd), exits []int) int {
	l.t.Helper()
	cmd := l.command(command...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		cmd.Wait()
	}()
	select {
	case <-done:
	case <-time.After(after):
		kill(l, cmd)
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		l.t.Fatalf("killed after %v, vsfleet does not end:\n%s", after, &said)
	}
	exit := cmd.ProcessState.ExitCode()
	// A Ctrl-C that comes before vsfleet takes signals ends it as a shell's 130 does.
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGINT {
		exit = 130
	}
	if !slices.Contains(exits, exit) {
		l.t.Errorf("killed after %v: exit status %d, want one of %d:\n%s", after, exit, exits, &said)
	}
	return exit
}

// runAgain runs the command again and checks that nothing is left to do.
func (l *killedLab) runAgain(command []string) {
	l.t.Helper()
	l.must(command...)
	for i, h := range l.Hosts {
		for address, guest := range map[string]string{
			h.Address.String():                              "www",
			h.Address.String() + ":8080":                    "nat",
			l.network() + "." + strconv.Itoa(201+i) + ":80": "own",
		} {
			if err := script.WaitForPage(address, guest+"-"+h.Name); err != nil {
				l.t.Error(err)
			}
		}
	}
	if stdout, stderr, exit := l.vsfleet("plan", "--detailed-exitcode"); exit != 0 {
		l.t.Errorf("there is something left to do:\n%s%s", stdout, stderr)
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

func interrupt(_ *killedLab, running *exec.Cmd) { running.Process.Signal(unix.SIGINT) }

func kill(_ *killedLab, running *exec.Cmd) { running.Process.Kill() }

// killNodes kills all processes of vsnode on all hosts of the lab. They are
// found by the lab's cgroup: there are other hosts on this machine.
func killNodes(l *killedLab, _ *exec.Cmd) {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		l.t.Error(err)
	}
	for _, dir := range procs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			l.t.Error(err)
			continue
		}
		// A pidfd first: what is read afterwards is about that process.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		group, _ := os.ReadFile(dir + "/cgroup")
		exe, _ := os.Readlink(dir + "/exe")
		if strings.Contains(string(group), fmt.Sprintf("/vsfleet-%s/", l.Name)) && strings.HasPrefix(exe, "/var/lib/vsnode/") {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				l.t.Error(err)
			}
		}
		unix.Close(fd)
	}
}
