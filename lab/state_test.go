package lab

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"lab": true, "e2e1": true, "sevensx": true,
		"": false, "eightsxx": false, "Lab": false, "a-b": false, "a/b": false, "..": false, forwardRecord: false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("checkName(%q) = %v", name, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, row := range []struct {
		subnet  string
		room    int
		gateway string
		last    string
	}{
		{"10.253.0.0/24", 253, "10.253.0.1", "10.253.0.254"},
		{"192.0.2.0/30", 1, "192.0.2.1", "192.0.2.2"},
		{"172.29.0.0/22", 1021, "172.29.0.1", "172.29.3.254"},
	} {
		s := state{Subnet: netip.MustParsePrefix(row.subnet)}
		if got := capacity(s.Subnet); got != row.room {
			t.Errorf("%s has room for %d", row.subnet, got)
		}
		if s.gateway().String() != row.gateway || s.address(row.room).String() != row.last {
			t.Errorf("%s: gateway %s, last host %s", row.subnet, s.gateway(), s.address(row.room))
		}
	}
}

func TestReadStateRefusesWhatItCanNotHaveWritten(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":          "x",
		"a name like ..":   `{"name":"../x","subnet":"10.253.0.0/24","hosts":1}`,
		"no subnet":        `{"name":"lab","hosts":1}`,
		"an IPv6 subnet":   `{"name":"lab","subnet":"fd00::/64","hosts":1}`,
		"too many hosts":   `{"name":"lab","subnet":"10.253.0.0/24","hosts":254}`,
		"no hosts":         `{"name":"lab","subnet":"10.253.0.0/24","hosts":0}`,
		"a negative count": `{"name":"lab","subnet":"10.253.0.0/24","hosts":-1}`,
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600))
		if s, err := readState(dir); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

func TestStatusWithoutALab(t *testing.T) {
	if _, err := Status(t.Context(), Options{Dir: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestUpRefusesADirectoryWithFiles: a lab must not take over, and later remove,
// files that are not its own.
func TestUpRefusesADirectoryWithFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fleet.yml")
	must(t, os.WriteFile(file, []byte("mine"), 0o644))
	o := Options{Dir: dir, Name: "refused"}
	if _, err := Up(t.Context(), o); err == nil || !strings.Contains(err.Error(), "fleet.yml") {
		t.Errorf("Up: %v", err)
	}
	if err := Down(t.Context(), o); err != nil {
		t.Errorf("Down: %v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "mine" {
		t.Errorf("the file is %q, %v", data, err)
	}
}

func TestDownKeepsWhatIsNotTheLabs(t *testing.T) {
	o := Options{Dir: labDir(t), Name: "keeps", Hosts: 1}
	l := mustUp(t, o)
	mine := filepath.Join(l.Dir, "mine.yml")
	must(t, os.WriteFile(mine, nil, 0o644))
	must(t, l.Down(t.Context()))
	if got := listing(t, l.Dir); got != "mine.yml\n" {
		t.Errorf("left: %q", got)
	}
	must(t, os.Remove(mine))
}

// TestDownRefusesMounts mounts something below the lab's directory, as by mistake:
// Down stops before it removes the first file.
func TestDownRefusesMounts(t *testing.T) {
	o := Options{Dir: labDir(t), Name: "mounts", Hosts: 1}
	l := mustUp(t, o)
	point := filepath.Join(l.Dir, hostsDir, "lab1", "root")
	must(t, unix.Mount("/etc", point, "", unix.MS_BIND, ""))
	err := l.Down(t.Context())
	if err == nil || !strings.Contains(err.Error(), point) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(l.Identity); err != nil {
		t.Errorf("files were removed: %v", err)
	}
	must(t, unix.Unmount(point, 0))
}

// reboot does to a lab what a reboot would: it ends processes and network, forgets
// sysctls, and leaves files; on this machine /run too, with records of another boot.
func reboot(t *testing.T, name string, before snapshot) {
	t.Helper()
	must(t, (&state{Name: name}).clearKernel(t.Context()))
	must(t, os.WriteFile(forwardSysctl, []byte(before.forward), 0o644))
	for _, file := range []string{name, forwardRecord} {
		path := filepath.Join(registryDir, file)
		data, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, []byte(strings.Replace(string(data), `"boot":"`, `"boot":"before-`, 1)), 0o600))
	}
}

func TestAfterAReboot(t *testing.T) {
	o := Options{Dir: labDir(t), Name: "reboot", Hosts: 1}
	before := takeSnapshot(t)
	l := mustUp(t, o)
	key := login(t, l, l.Hosts[0], "cat /etc/ssh/ssh_host_ed25519_key.pub; touch /var/lib/vservers/kept")
	reboot(t, o.Name, before)
	l, err := Up(t.Context(), Options{Dir: o.Dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := login(t, l, l.Hosts[0], "cat /etc/ssh/ssh_host_ed25519_key.pub; ls /var/lib/vservers/kept"); got != key+"\n/var/lib/vservers/kept" {
		t.Errorf("after the reboot: %s", got)
	}
	must(t, l.Down(t.Context()))
	before.compare(t, o.Name)
}

func TestALabThatTookTheNameAfterARebootStays(t *testing.T) {
	old := Options{Dir: labDir(t), Name: "taken", Hosts: 1}
	before := takeSnapshot(t)
	mustUp(t, old)
	reboot(t, old.Name, before)
	now := mustUp(t, Options{Dir: labDir(t), Name: "taken", Hosts: 1})
	must(t, Down(t.Context(), Options{Dir: old.Dir}))
	if got := login(t, now, now.Hosts[0], "echo alive"); got != "alive" {
		t.Errorf("the lab in the other directory says %q", got)
	}
	if _, err := os.Stat(old.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old lab's files stay: %v", err)
	}
	must(t, now.Down(t.Context()))
	before.compare(t, old.Name)
}

func TestLockIsHandedOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lock")
	quiet := func(string) {}
	unlock, err := lockDir(t.Context(), dir, quiet)
	must(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := lockDir(ctx, dir, quiet); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}

	waiting, locked := make(chan struct{}), make(chan error, 1)
	go func() {
		unlock, err := lockDir(t.Context(), dir, func(string) { close(waiting) })
		if err == nil {
			_, err = os.Stat(dir) // not the removed one
			unlock()
		}
		locked <- err
	}()
	<-waiting
	must(t, os.Remove(dir))
	unlock()
	must(t, <-locked)
}
