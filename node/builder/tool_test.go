package builder

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// Run again with this variable, the test's binary is a vsnode that builds.
const builderEnv = "VSFLEET_TEST_BUILD_INTO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(builderEnv); dir != "" {
		if err := Run(context.Background(), Request{Spec: bookworm, Dir: dir}); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var bookworm = api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "bookworm"}}

// pretend puts a mmdebstrap into the path that is this shell script; $dir is
// where the system shall be.
func pretend(t testing.TB, script string) {
	t.Helper()
	bin := t.TempDir()
	script = "#!/bin/sh\nfor dir; do :; done\n" + script // the last argument
	must(t, os.WriteFile(filepath.Join(bin, "mmdebstrap"), []byte(script), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

const minimal = "mkdir -p $dir/etc $dir/var/lib/dpkg; echo > $dir/var/lib/dpkg/status; "

func TestToolHasNamespacesAndAnEnvironmentOfItsOwn(t *testing.T) {
	pretend(t, minimal+`
		env | cut -d= -f1 | grep -v -e ^PWD$ -e ^_$ -e ^OLDPWD$ | sort | tr '\n' ' ' > $dir/env
		echo $$ $(ls -d /proc/[0-9]* | wc -l) > $dir/pid
		hostname elsewhere
		mkdir $dir/mnt; mount -t tmpfs tmpfs $dir/mnt; echo > $dir/mnt/hidden`)
	t.Setenv("LD_PRELOAD", "/nowhere.so")
	t.Setenv("http_proxy", "http://proxy:3128")
	dir := t.TempDir()
	before, err := os.Hostname()
	must(t, err)
	must(t, Run(context.Background(), Request{Spec: bookworm, Dir: dir}))
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("the host is now called %s, %v", after, err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "mnt")); err != nil || len(names) > 0 {
		t.Errorf("the tool's mount is here: %v, %v", names, err)
	}
	for name, want := range map[string]string{
		"env": "DEBCONF_NONINTERACTIVE_SEEN DEBIAN_FRONTEND HOME LC_ALL PATH TERM http_proxy ",
	} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s is %q (%v), want %q", name, b, err, want)
		}
	}
	// Process 1, and in /proc nobody but its own children.
	if b, err := os.ReadFile(filepath.Join(dir, "pid")); err != nil || !strings.HasPrefix(string(b), "1 ") || len(b) > len("1 9\n") {
		t.Errorf("pid and processes seen: %q, %v", b, err)
	}
}

func TestToolThatFailsIsQuoted(t *testing.T) {
	for _, row := range []struct{ what, says, want string }{
		{"by its last lines", "", "exit status 3: line 4; line 5; line 6; line 7; line 8; line 9"},
		{"by its errors, whatever it says after them", `echo "E: no Release file"; echo "I: removing"; echo bye`, "exit status 3: E: no Release file"},
	} {
		t.Run(row.what, func(t *testing.T) {
			pretend(t, `for i in 1 2 3 4 5 6 7 8 9; do echo "line $i"; done; `+row.says+`
exit 3`)
			var log strings.Builder
			err := Run(context.Background(), Request{Spec: bookworm, Dir: t.TempDir(), Log: &log})
			if err == nil || !strings.HasSuffix(err.Error(), row.want) {
				t.Errorf("error is %v", err)
			}
			if !strings.HasPrefix(log.String(), "line 1\n") {
				t.Errorf("log is %q", log.String())
			}
		})
	}
}

func TestToolThatMadeNothingIsNotBelieved(t *testing.T) {
	pretend(t, `exit 0`)
	if err := Run(context.Background(), Request{Spec: bookworm, Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "left no installation") {
		t.Errorf("error is %v", err)
	}
}

// lingering is a tool whose daemon holds a fifo open and minds no signal.
func lingering(t testing.TB) (fifo string) {
	fifo = filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	pretend(t, minimal+`
		exec 9> `+fifo+`
		setsid sh -c 'trap "" TERM HUP INT; echo up >&9; while :; do sleep 1000; done' &
		mount -t tmpfs tmpfs $dir/etc
		wait`)
	return fifo
}

// whileUp calls stop when the daemon is up and returns when it is dead.
func whileUp(t testing.TB, fifo string, stop func()) {
	t.Helper()
	f, err := os.Open(fifo) // waits for the tool
	must(t, err)
	defer f.Close()
	r := bufio.NewReader(f)
	if line, err := r.ReadString('\n'); line != "up\n" {
		t.Fatalf("the tool says %q, %v", line, err)
	}
	stop()
	if _, err := r.ReadByte(); err != io.EOF { // when the last one has closed it
		t.Fatalf("read: %v", err)
	}
}

func TestCancelEndsToolAndDaemons(t *testing.T) {
	fifo := lingering(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	dir := t.TempDir()
	go func() { done <- Run(ctx, Request{Spec: bookworm, Dir: dir}) }()
	whileUp(t, fifo, cancel)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want cancelled", err)
	}
	must(t, os.RemoveAll(dir))
}

func TestKillEndsToolAndDaemons(t *testing.T) {
	fifo := lingering(t)
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), builderEnv+"="+dir)
	must(t, cmd.Start())
	whileUp(t, fifo, func() { must(t, cmd.Process.Kill()) })
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("builder: %v", err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left in %s (%v)", dir, err)
	}
}

func TestFullDiskIsNamed(t *testing.T) {
	dir := t.TempDir()
	pretend(t, `cat /dev/zero > $dir/zero 2>/dev/null || { echo "E: apt-get failed"; exit 1; }`)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("/bin/sh", "-c", `mount -t tmpfs -o size=2m test "$1" && exec "$2"`, "sh", dir, self)
	cmd.Env = append(os.Environ(), builderEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // the mount goes with the process
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no space left on device: "+dir+" has 0 MiB free") {
		t.Errorf("%v, error is %s, want one that names the full disk", err, out)
	}
}

func TestInstallationIsFitForGuests(t *testing.T) {
	pretend(t, minimal+`
		cd $dir
		mkdir -p usr/bin usr/sbin etc/ssh var/lib/apt/lists/partial var/cache/apt/archives/partial var/log/apt dev run
		mkdir -p etc/systemd/system/getty.target.wants var/lib/dbus etc/apt/apt.conf.d etc/dpkg/dpkg.cfg.d
		echo host > etc/hostname; chmod 755 etc/hostname; echo 0123 > etc/machine-id; echo 0123 > var/lib/dbus/machine-id
		ln -s /run/systemd/resolve/stub-resolv.conf etc/resolv.conf
		touch etc/ssh/ssh_host_rsa_key etc/ssh/ssh_host_rsa_key.pub etc/ssh/sshd_config usr/sbin/sshd usr/bin/systemctl; mkdir -p usr/lib/systemd; touch usr/lib/systemd/systemd
		touch var/lib/apt/lists/deb.debian.org_Packages var/cache/apt/archives/x.deb var/log/bootstrap.log var/log/apt/term.log
		touch etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap usr/sbin/policy-rc.d
		ln -s /usr/lib/systemd/system/graphical.target etc/systemd/system/default.target
		mknod dev/null c 1 3; mkdir srv; mknod srv/sda b 8 0; chmod 700 .`)
	dir := t.TempDir()
	defer unix.Umask(unix.Umask(0o077)) // of an administrator who is careful
	must(t, Run(context.Background(), Request{Spec: bookworm, Dir: dir}))
	for name, want := range map[string]string{ // content, or where a link leads
		"etc/hostname": "", "etc/machine-id": "", "etc/fstab": "",
		"etc/ssh/sshd_config":                      "",
		"etc/systemd/system/default.target":        "/usr/lib/systemd/system/multi-user.target",
		"etc/systemd/system/systemd-udevd.service": "/dev/null",
		"etc/systemd/system/getty@.service":        "/dev/null",
	} {
		got, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			var b []byte
			b, err = os.ReadFile(filepath.Join(dir, name))
			got = string(b)
		}
		if err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	var left []string
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		name, _ := filepath.Rel(dir, path)
		if err == nil && info.Mode()&0o044 != 0o044 {
			t.Errorf("%s is %v", name, info.Mode())
		}
		if err == nil && !info.IsDir() && !strings.HasPrefix(name, "etc/systemd/") {
			left = append(left, name)
		}
		return err
	}))
	slices.Sort(left)
	if want := strings.Fields("etc/fstab etc/hostname etc/hosts etc/machine-id etc/ssh/sshd_config usr/bin/systemctl usr/lib/systemd/systemd usr/sbin/sshd var/lib/dpkg/status"); !slices.Equal(left, want) {
		t.Errorf("files are\n%q, want\n%q", left, want)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the root is %v, %v", info.Mode(), err)
	}
}

// TestDebianIsInstalled takes the smallest installation there is from the
// mirror, by the tool that is on this host.
func TestDebianIsInstalled(t *testing.T) {
	dir := t.TempDir()
	spec := api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "bookworm", "--", "--variant=minbase"}, Packages: []string{"iputils-ping"}}
	var last string
	must(t, Run(context.Background(), Request{Spec: spec, Dir: dir, Progress: func(e api.Event) { last = e.Message }}))
	if last == "" {
		t.Error("no progress was reported")
	}
	out, err := exec.Command("chroot", dir, "/usr/bin/dpkg", "--audit").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("dpkg --audit: %s, %v", out, err)
	}
	// A package's maintainer script ran: ping's capability is set by it.
	if n, err := unix.Getxattr(filepath.Join(dir, "usr/bin/ping"), "security.capability", make([]byte, 64)); err != nil || n == 0 {
		t.Errorf("capability of ping: %d bytes, %v", n, err)
	}
	for _, name := range []string{"etc/resolv.conf", "dev/null", "usr/sbin/policy-rc.d"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is there (%v)", name, err)
		}
	}
}

// The scripts of packages run under the filter of guests, except that they may make
// namespaces.
func TestToolRunsUnderTheFilter(t *testing.T) {
	pretend(t, minimal+`
		grep Seccomp: /proc/self/status > $dir/filter
		unshare -U true && echo namespaces >> $dir/filter`)
	dir := t.TempDir()
	must(t, Run(context.Background(), Request{Spec: bookworm, Dir: dir}))
	b, err := os.ReadFile(dir + "/filter")
	must(t, err)
	if got := strings.Join(strings.Fields(string(b)), " "); got != "Seccomp: 2 namespaces" {
		t.Errorf("it runs under %q", got)
	}
	// The builder's own threads do not.
	own, err := os.ReadFile("/proc/thread-self/status")
	must(t, err)
	if !strings.Contains(string(own), "\nSeccomp:\t0\n") {
		t.Error("the filter stays with the builder")
	}
}
