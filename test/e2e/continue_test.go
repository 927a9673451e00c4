package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/test/faultproxy"
)

const continueFleet = `
images:
  busybox: {method: template, args: [-t, /srv/busybox.tar]}
guests:
  www: {on: all, image: busybox, network: {mode: shared, address: host, ports: [80/tcp]}, init: {command: [/sbin/web, "80"]}}
`

// TestAPushContinues cuts the connection of a push, and kills vsfleet in the middle of the
// next. The third sends what is missing.
func TestAPushContinues(t *testing.T) {
	l := newLab(t, 2)
	p, err := faultproxy.Start(l.Hosts[1].Address.String()+":22", faultproxy.Faults{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l.through("lab2", p.Port)
	l.fleet(continueFleet)
	const files = 24
	more := map[string][]byte{}
	for i := range files {
		more[fmt.Sprintf("srv/file%02d", i)] = randomBytes(uint64(i), 1<<20)
	}
	for _, row := range []struct {
		name  string
		bring []string
		sent  int // MiB of files that have to come
	}{
		{"a whole image", []string{"apply", "-l", "lab2"}, files},
		{"a difference", []string{"image", "push", "busybox"}, files / 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			l.image("lab1", more)
			if row.sent == files {
				l.must("apply", "-l", "lab1")
			} else {
				l.must("image", "update", "busybox", "-l", "lab1")
			}
			p.Set(faultproxy.Faults{Bandwidth: 6 << 20})
			l.breaks(row.bring, row.sent/4, func(*exec.Cmd) { p.Cut() })
			l.breaks(row.bring, row.sent/2, func(cmd *exec.Cmd) { _ = cmd.Process.Kill() })
			p.Set(faultproxy.Faults{})
			_, stderr, exit := l.vsfleet(row.bring...)
			if exit != 0 {
				t.Fatalf("exit status %d\n%s", exit, stderr)
			}
			m := regexp.MustCompile(`images: ([0-9.]+)M sent to lab2`).FindStringSubmatch(stderr)
			if m == nil {
				t.Fatalf("it does not say what was sent:\n%s", stderr)
			}
			// What was there, without the part that was under way, did not come again.
			if sent, err := strconv.ParseFloat(m[1], 64); err != nil || sent > float64(row.sent/2+4)+0.5 {
				t.Errorf("%v MiB of %d were sent at last (%v)", sent, row.sent, err)
			}
			if left := l.mustOn("lab2", "sh", "-c", "ls -d /var/lib/vservers/.images/.part-* 2>/dev/null || true"); left != "" {
				t.Errorf("left: %s", left)
			}
			for i := range files / 2 {
				more[fmt.Sprintf("srv/file%02d", i)] = randomBytes(uint64(100+i), 1<<20)
			}
		})
	}
}

func randomBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// through has vsfleet reach a host by a port of this machine.
func (l *testLab) through(host string, port int) {
	l.t.Helper()
	known, err := os.ReadFile(l.KnownHosts)
	if err != nil {
		l.t.Fatal(err)
	}
	inventory, err := os.ReadFile(l.Inventory)
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(known)) {
		if names, key, _ := strings.Cut(line, " "); strings.HasPrefix(names, host+",") {
			known = fmt.Appendf(known, "[127.0.0.1]:%d %s", port, key)
		}
	}
	text := strings.ReplaceAll(string(inventory), l.KnownHosts, filepath.Join(l.dir, "known"))
	text = regexp.MustCompile(`(?m)^(  `+host+`: {address: )[0-9.]+`).ReplaceAllString(text, fmt.Sprintf("${1}127.0.0.1, port: %d", port))
	l.Inventory, l.KnownHosts = filepath.Join(l.dir, "hosts.yml"), filepath.Join(l.dir, "known")
	for path, content := range map[string]string{l.Inventory: text, l.KnownHosts: string(known)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
}

// breaks starts a command, and ends it once a number of files have arrived on lab2.
func (l *testLab) breaks(command []string, files int, end func(*exec.Cmd)) {
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
		_ = cmd.Wait() // its exit status is looked at below
	}()
	arrived := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(l.mustOn("lab2", "sh", "-c", "find /var/lib/vservers/.images/.part-*/contents -links 1 -size +1000k 2>/dev/null | wc -l")))
		if err != nil {
			l.t.Fatal(err)
		}
		return n
	}
	for deadline := time.Now().Add(time.Minute); arrived() < files; {
		select {
		case <-done:
			l.t.Fatalf("%q was done before it was ended:\n%s", command, &said)
		default:
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			l.t.Fatalf("%q is too slow:\n%s", command, &said)
		}
	}
	end(cmd)
	select {
	case <-done:
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		l.t.Fatalf("%q does not end:\n%s", command, &said)
	}
	if cmd.ProcessState.Success() {
		l.t.Errorf("%q succeeded", command)
	}
}
