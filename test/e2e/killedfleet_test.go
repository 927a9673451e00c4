package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/test/script"
)

const twentyFleet = `
images:
  busybox: {method: template, args: [-t, /srv/busybox.tar]}
guests:
  www:
    on: all
    image: busybox
    hostname: "www%d-${host.name}"
    network: {mode: shared, address: host, ports: [80/tcp]}
    init: {command: [/sbin/web, "80"]}
`

// setting returns a number from the environment, which make test-killed sets.
func setting(t *testing.T, name string, fallback uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestKilledOverTwentyHosts kills vsfleet at random moments of a rollout over 20 hosts.
// The next run finishes; no host is left locked or half done.
func TestKilledOverTwentyHosts(t *testing.T) {
	const hosts = 20
	seed := setting(t, "KILL_SEED", uint64(time.Now().UnixNano()))
	rounds := int(setting(t, "KILL_ROUNDS", 4))
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("KILL_SEED=%d KILL_ROUNDS=%d", seed, rounds)

	l := &killedLab{newLab(t, hosts)}
	l.image("lab1", nil)
	// prepare gives a run something to do: everything, or to change each guest.
	number := 0
	prepare := func(round int) (kind int) {
		number++
		l.fleet(fmt.Sprintf(twentyFleet, number))
		if round%2 == 0 {
			l.reset([]string{"apply"})
		}
		return round % 2
	}
	l.fleet(fmt.Sprintf(twentyFleet, number))
	l.must("apply")
	l.must("install") // for reset
	var whole [2]time.Duration
	for i := range whole {
		prepare(i)
		begun := time.Now()
		l.must("apply")
		whole[i] = time.Since(begun)
	}
	killed := 0
	for round := range rounds {
		kind := prepare(round)
		after := time.Duration(random.Int64N(int64(whole[kind])))
		t.Logf("round %d: vsfleet apply takes %v; killed after %v", round, whole[kind], after)
		if l.runKilled([]string{"apply"}, after, kill, []int{0, -1}) != 0 {
			killed++
		}
		begun := time.Now()
		l.must("apply", "--lock-wait", "20s")
		t.Logf("round %d: finished in %v", round, time.Since(begun))
		l.whole(number)
	}
	if killed == 0 {
		t.Errorf("vsfleet apply was always done before it was killed: the test shows nothing")
	}
}

// whole checks that every host is as the inventory says, and that nothing of a run that
// was killed is left.
func (l *killedLab) whole(number int) {
	l.t.Helper()
	if stdout, stderr, exit := l.vsfleet("plan", "--detailed-exitcode"); exit != 0 {
		l.t.Errorf("there is something left to do:\n%s%s", stdout, stderr)
	}
	for _, h := range l.Hosts {
		if err := script.WaitForPage(h.Address.String(), fmt.Sprintf("www%d-%s", number, h.Name)); err != nil {
			l.t.Error(err)
		}
		left := l.mustOn(h.Name, "sh", "-c", `find /etc/vservers -mindepth 1 -maxdepth 1 -name '.*' -not -name .defaults; find /var/lib/vservers -mindepth 1 -maxdepth 2 \( -name '.tmp-*' -o -name .incomplete \)`)
		if left = strings.TrimSpace(left); left != "" {
			l.t.Errorf("left on %s: %s", h.Name, left)
		}
		// The lease is held by a vsnode: none is there, none is held.
		if running := l.mustOn(h.Name, "sh", "-c", `for p in /proc/[0-9]*; do case $(readlink $p/exe) in /var/lib/vsnode/*) tr '\0' ' ' <$p/cmdline;; esac; done`); strings.Contains(running, "serve") {
			l.t.Errorf("on %s a vsnode still runs: %s", h.Name, running)
		}
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}
