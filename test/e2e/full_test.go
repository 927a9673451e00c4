package e2e

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/test/script"
)

// TestFullHost fills /var/lib/vservers of a host in the middle of a build, and
// of a copy: the error names it, no half image is left, and the same command
// works once there is space.
func TestFullHost(t *testing.T) {
	t.Parallel()
	l := newLab(t, 2)
	l.fleet(`
images:
  busybox: {method: template, args: [-t, /srv/busybox.tar]}
guests:
  www:
    on: all
    image: busybox
    hostname: "www-${host.name}"
    network: {mode: shared, address: host, ports: [80/tcp]}
    init: {command: [/sbin/web, "80"]}
`)
	noise := make([]byte, 8<<20)
	rand.Read(noise)
	l.image("lab1", map[string][]byte{"srv/noise": noise})
	for _, host := range []string{"lab1", "lab2"} {
		l.mustOn(host, "mount", "-t", "tmpfs", "-o", "size=6m,mode=0755", "tmpfs", "/var/lib/vservers")
	}
	// nothingLeft checks that there is no image and no half one.
	nothingLeft := func(host string) {
		t.Helper()
		if big := l.mustOn(host, "find", "/var/lib/vservers", "-size", "+64k"); big != "" {
			t.Errorf("left on %s:\n%s", host, big)
		}
		if stdout := l.must("-l", host, "image", "list", "-o", "csv"); strings.Count(stdout, "\n") != 1 {
			t.Errorf("images on %s:\n%s", host, stdout)
		}
	}
	apply := func(wantExit int, want ...string) {
		t.Helper()
		stdout, stderr, exit := l.vsfleet("apply")
		if exit != wantExit {
			t.Errorf("exit status %d, want %d", exit, wantExit)
		}
		for _, w := range want {
			if !strings.Contains(stderr, w) {
				t.Errorf("stderr lacks: %s", w)
			}
		}
		if t.Failed() {
			t.Fatal(stdout + stderr)
		}
	}
	makeSpace := func(host string) {
		t.Helper()
		l.mustOn(host, "mount", "-o", "remount,size=64m", "/var/lib/vservers")
	}

	apply(2, "lab1: ", "no space left on device", "failed 2 (lab[1-2])")
	nothingLeft("lab1")
	nothingLeft("lab2")

	makeSpace("lab1")
	apply(2, "lab2: ", "no space left on device", "changed 1, failed 1 (lab2)")
	nothingLeft("lab2")
	if err := script.WaitForPage(l.Hosts[0].Address.String(), "www-lab1"); err != nil {
		t.Error(err)
	}

	makeSpace("lab2")
	apply(0, "ok 1, changed 1")
	if err := script.WaitForPage(l.Hosts[1].Address.String(), "www-lab2"); err != nil {
		t.Error(err)
	}
}
