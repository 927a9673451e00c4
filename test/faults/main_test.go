package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/test/fakesshd"
	"github.com/vsfleet/vsfleet/test/faultproxy"
)

// vsfleet is a copy of the program that no build replaces while the tests run.
var vsfleet string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests of faults:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	build := exec.Command("make", "--silent", "--no-print-directory", "build")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("make build: %w\n%s", err, out)
	}
	dir, err := os.MkdirTemp("", "vsfleet-faults-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	vsfleet = filepath.Join(dir, "vsfleet")
	program, err := os.ReadFile("../../bin/vsfleet")
	if err == nil {
		err = os.WriteFile(vsfleet, program, 0o755)
	}
	if err != nil {
		return 1, err
	}
	// Most of a test is waiting.
	if err := flag.Set("test.parallel", "12"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// host is a line of an inventory, and what known_hosts has of it.
type host struct {
	line  string // "{address: 127.0.0.1, port: 22}"
	known string
}

// fake starts a server, and returns the host that it is.
func fake(t *testing.T, o fakesshd.Options) (*fakesshd.Server, host) {
	t.Helper()
	s, err := fakesshd.Start(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, hostAt(s, s.Port)
}

func hostAt(s *fakesshd.Server, port int) host {
	return host{
		fmt.Sprintf("{address: 127.0.0.1, port: %d, identity: %s}", port, s.Identity),
		fmt.Sprintf("[127.0.0.1]:%d %s", port, ssh.MarshalAuthorizedKey(s.HostKey.PublicKey())),
	}
}

// behind starts a proxy in front of a good server, and returns the host that it is.
func behind(t *testing.T, f faultproxy.Faults) host {
	t.Helper()
	s, _ := fake(t, fakesshd.Options{})
	p, err := faultproxy.Start(fmt.Sprintf("127.0.0.1:%d", s.Port), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return hostAt(s, p.Port)
}

// record is what vsfleet prints of a host.
type record struct {
	Host, Status, Class, Error string
}

// result is what came of a command.
type result struct {
	records map[string]record // by host
	stderr  string
	exit    int
	took    time.Duration
}

// longest is how long a command may take, whatever happens to its hosts.
const longest = 45 * time.Second

// with runs vsfleet with an inventory of these hosts.
func with(t *testing.T, hosts map[string]host, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	inventory := "ssh: {user: root, config: none, known_hosts: " + dir + "/known_hosts}\nhosts:\n"
	known := ""
	for name, h := range hosts {
		inventory += "  " + name + ": " + h.line + "\n"
		known += h.known
	}
	for file, text := range map[string]string{"fleet.yml": inventory, "known_hosts": known} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(vsfleet, append([]string{"-i", dir + "/fleet.yml", "-o", "ndjson"}, args...)...)
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(longest, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !kill.Stop() {
		t.Errorf("vsfleet %s hangs", strings.Join(args, " "))
	}
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := result{records: map[string]record{}, stderr: stderr.String(), exit: cmd.ProcessState.ExitCode(), took: time.Since(begun)}
	for line := range strings.Lines(stdout.String()) {
		var rec record
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		r.records[rec.Host] = rec
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("vsfleet %s:\n%s%s", strings.Join(args, " "), &stdout, &stderr)
		}
	})
	return r
}
