package devices

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/bpf/bpftest"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

const opens = "DEVICES_TEST_OPENS"

// TestMain is also the program in the cgroup: it opens the path that the variable has,
// with flags.
func TestMain(m *testing.M) {
	if what := os.Getenv(opens); what != "" {
		var flags int
		path := ""
		fmt.Sscan(what, &flags, &path)
		if fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(fd)
			os.Exit(0)
		} else if errors.Is(err, unix.EPERM) {
			os.Exit(3)
		} else {
			fmt.Println(err)
		}
		os.Exit(4)
	}
	bpftest.Main(m)
}

func TestOnlyListedDevicesCanBeOpened(t *testing.T) {
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	kmsg := filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mknod(kmsg, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))); err != nil {
		t.Fatal(err)
	}
	listed, err := Stat(kmsg)
	if err != nil {
		t.Fatal(err)
	}
	readable := listed
	readable.Read = true
	both := readable
	both.Write = true
	for i, row := range []struct {
		what   string
		nodes  []Node
		attach bool
		path   string
		flags  int
		open   bool
	}{
		{"without the program", nil, false, kmsg, unix.O_RDONLY, true},
		{"what no guest has", nil, true, kmsg, unix.O_RDONLY, false},
		{"what every guest has", nil, true, "/dev/null", unix.O_RDWR, true},
		{"what every guest has, the last of several", nil, true, "/dev/urandom", unix.O_RDONLY, true},
		{"what is listed", []Node{both}, true, kmsg, unix.O_RDWR, true},
		{"what is listed for reading", []Node{readable}, true, kmsg, unix.O_RDONLY, true},
		{"writing of what is listed for reading", []Node{readable}, true, kmsg, unix.O_WRONLY, false},
		{"another where one is listed", []Node{{Mode: unix.S_IFCHR, Major: 1, Minor: 12, Read: true}}, true, kmsg, unix.O_RDONLY, false},
		{"a block device of that number", []Node{{Mode: unix.S_IFBLK, Major: 1, Minor: 11, Read: true}}, true, kmsg, unix.O_RDONLY, false},
	} {
		t.Run(row.what, func(t *testing.T) {
			cg := cgroup.Guest(mount, fmt.Sprint("test-devices-", i))
			dir, err := cg.Make(0)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			t.Cleanup(func() {
				if err := cg.Remove(); err != nil {
					t.Error(err)
				}
			})
			if row.attach {
				if err := Attach(dir, row.nodes); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), fmt.Sprint(opens, "=", row.flags, " ", row.path))
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
			out, err := cmd.Output()
			code := cmd.ProcessState.ExitCode()
			if code != 0 && code != 3 || (code == 0) != row.open {
				t.Errorf("exit status %d, %v: %s; want opened %v", code, err, strings.TrimSpace(string(out)), row.open)
			}
		})
	}
}

func TestWhatIsNoDevice(t *testing.T) {
	for path, want := range map[string]string{"/etc/passwd": "not a device", "/dev/nosuch": "no such file or directory on the host (is its module loaded?)"} {
		if _, err := Stat(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTheProgramOfEveryGuestIsPinned(t *testing.T) {
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(mount, "vsfleet-test-devices-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pinned := func() []string {
		t.Helper()
		paths, err := filepath.Glob(pins + "*")
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	p, err := open(everybodys[:3])
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	older := pinned()
	p, err = open(everybodys)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	now := pinned()
	if len(older) != 1 || len(now) != 1 || now[0] == older[0] {
		t.Errorf("pinned are %q, and after another version %q", older, now)
	}
	again, err := open(everybodys)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := bpf.Attach(int(f.Fd()), again, uint32(ebpf.AttachCGroupDevice)); err != nil {
		t.Errorf("attach the pinned one: %v", err)
	}
}
