package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vsfleet/vsfleet/lab"
)

// practice is the lab of a test.
type practice struct {
	*lab.Lab
	dir string // the test's own, with its fleet.yml
}

// labs counts those of this run. Tests run beside each other: a name that two had
// chosen would have been one lab.
var labs atomic.Int32

// labUp makes a lab by vsfleet's own command. dir is where the controller works.
func labUp(hosts int, dir string) (*practice, error) {
	name := fmt.Sprint("e2e", labs.Add(1))
	labDir := filepath.Join(labsDir, name)
	out, err := exec.Command(vsfleet, "lab", "up", "--dir", labDir, "--name", name, "--hosts", fmt.Sprint(hosts)).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("lab up: %w: %s", err, out)
	}
	l, err := lab.Status(context.Background(), lab.Options{Dir: labDir})
	if err != nil {
		return nil, err
	}
	return &practice{l, dir}, nil
}

func (p *practice) down() error {
	if out, err := exec.Command(vsfleet, "lab", "down", "--dir", p.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("lab down: %w: %s", err, out)
	}
	return nil
}

// network is the lab's first three numbers: 10.253.7.
func (p *practice) network() string {
	a := p.Subnet.Addr().As4()
	return fmt.Sprintf("%d.%d.%d", a[0], a[1], a[2])
}

// environment returns the variables with which vsfleet uses this lab and the test's
// guests.
func (p *practice) environment() map[string]string {
	env := map[string]string{
		"PATH":              binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":              filepath.Join(p.dir, "home"),
		"SSH_AUTH_SOCK":     "",
		"VSFLEET_LAB":       p.Dir,
		"VSFLEET_INVENTORY": p.Inventory + ":" + filepath.Join(p.dir, "fleet.yml"),
		"NET":               p.network(),
		"HOSTS":             p.Inventory,
		"KEY":               p.Identity,
		"KNOWN":             p.KnownHosts,
	}
	for i, h := range p.Hosts {
		env[fmt.Sprintf("HOST%d", i+1)] = h.Address.String()
	}
	return env
}

// on runs a program on a host, not over SSH.
func (p *practice) on(host string, stdin io.Reader, argv ...string) (stdout, stderr string, exit int, err error) {
	var out, errs bytes.Buffer
	if !strings.HasPrefix(argv[0], "/") {
		argv = append([]string{"/usr/bin/env"}, argv...)
	}
	exit, err = p.Exec(context.Background(), host, stdin, &out, &errs, argv...)
	return out.String(), errs.String(), exit, err
}

// put writes a file on a host.
func (p *practice) put(host, path string, content []byte) error {
	_, stderr, exit, err := p.on(host, bytes.NewReader(content), "/bin/sh", "-c", `mkdir -p "${1%/*}" && cat >"$1"`, "put", path)
	if err == nil && exit != 0 {
		err = fmt.Errorf("write %s on %s: %s", path, host, stderr)
	}
	return err
}

// testLab is a lab for tests in Go: any failure ends the test.
type testLab struct {
	*practice
	t testing.TB
}

func newLab(t testing.TB, hosts int) *testLab {
	t.Helper()
	p, err := labUp(hosts, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logConsoles(t, p)
		}
		if err := p.down(); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(p.dir, "home"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &testLab{p, t}
}

func logConsoles(t testing.TB, p *practice) {
	for _, h := range p.Hosts {
		log, err := os.ReadFile(filepath.Join(p.Dir, "hosts", h.Name, "console.log"))
		t.Logf("console of %s (%v):\n%s", h.Name, err, log)
	}
}

// fleet writes the guests of the test; @NET@ is the lab's network.
func (l *testLab) fleet(text string) {
	l.t.Helper()
	text = strings.ReplaceAll(text, "@NET@", l.network())
	if err := os.WriteFile(filepath.Join(l.dir, "fleet.yml"), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// image puts the archive of the busybox image onto a host.
func (l *testLab) image(host string, more map[string][]byte) {
	l.t.Helper()
	archive, err := busyboxArchive(more)
	if err == nil {
		err = l.put(host, "/srv/busybox.tar", archive)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *testLab) command(args ...string) *exec.Cmd {
	cmd := exec.Command(vsfleet, args...)
	cmd.Dir = l.dir
	for k, v := range l.environment() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// vsfleet runs vsfleet to its end.
func (l *testLab) vsfleet(args ...string) (stdout, stderr string, exit int) {
	l.t.Helper()
	cmd := l.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs vsfleet, which must succeed.
func (l *testLab) must(args ...string) (stdout string) {
	l.t.Helper()
	stdout, stderr, exit := l.vsfleet(args...)
	if exit != 0 {
		l.t.Fatalf("vsfleet %s: exit status %d\n%s%s", strings.Join(args, " "), exit, stdout, stderr)
	}
	return stdout
}

// mustOn runs a program on a host, which must succeed.
func (l *testLab) mustOn(host string, argv ...string) (stdout string) {
	l.t.Helper()
	stdout, stderr, exit, err := l.on(host, nil, argv...)
	if err != nil || exit != 0 {
		l.t.Fatalf("%s on %s: exit status %d, %v\n%s%s", strings.Join(argv, " "), host, exit, err, stdout, stderr)
	}
	return stdout
}
