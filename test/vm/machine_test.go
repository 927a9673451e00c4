package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tapName = "tap0"
	address = "10.77.0.2"

	// bootTimeout is far beyond what a boot takes alone: other tests take the processors.
	bootTimeout = 15 * time.Minute
	offTimeout  = 10 * time.Minute

	snapshot = "booted"
)

// drives are the disks of a machine: copies on top of the suite's disk, and an empty one.
var drives = []string{"root.qcow2", "empty.qcow2"}

// machine is a virtual machine.
type machine struct {
	base  string   // the suite's disk, its kernel and its keys
	dir   string   // this machine's own disks
	extra []string // words for the kernel

	deadline time.Time // nobody waits for the machine longer; zero: as long as it takes

	qemu    *exec.Cmd
	ended   chan struct{} // closed when qemu has ended
	monitor *monitor
}

// newMachine returns a machine, running and just booted.
func newMachine(suite, dir string) (*machine, error) {
	base, err := diskDir(suite)
	if err != nil {
		return nil, err
	}
	m := &machine{base: base, dir: filepath.Join(dir, "machine")}
	booted, err := m.bootedDir()
	if err != nil {
		return nil, err
	}
	lock, err := lockDisk(booted, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if _, err := os.Stat(booted); os.IsNotExist(err) {
		if err := bootFirst(base, booted); err != nil {
			return nil, err
		}
	}
	// Sparse files, which cp copies as such.
	if out, err := exec.Command("cp", "-r", booted, m.dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy %s: %w: %s", booted, err, out)
	}
	return m, m.Reset()
}

// bootedDir is where the disks of a machine that has just booted are kept. A memory
// that was saved fits only the same qemu with the same devices.
func (m *machine) bootedDir() (string, error) {
	version, err := exec.Command("qemu-system-x86_64", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("qemu-system-x86_64 --version: %w: scripts/install vm", err)
	}
	devices := strings.ReplaceAll(strings.Join(m.arguments(), " "), m.dir, "")
	return filepath.Join(m.base, "booted-"+digest(append(version, devices...))), nil
}

// bootFirst boots a machine for the first time and keeps what it is then.
func bootFirst(base, booted string) error {
	fmt.Fprintln(os.Stderr, "booting it for the first time")
	m := &machine{base: base, dir: booted + ".new"}
	if err := os.RemoveAll(m.dir); err != nil {
		return err
	}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return err
	}
	for _, arguments := range [][]string{
		{"create", "-q", "-f", "qcow2", "-F", "raw", "-b", filepath.Join(base, "disk.raw"), drives[0]},
		{"create", "-q", "-f", "qcow2", drives[1], "8G"},
	} {
		create := exec.Command("qemu-img", arguments...)
		create.Dir = m.dir
		if out, err := create.CombinedOutput(); err != nil {
			return fmt.Errorf("qemu-img: %w: %s", err, out)
		}
	}
	if err := m.Boot(); err != nil {
		return err
	}
	defer m.Kill()
	if out, err := m.Command("systemctl is-system-running --wait && sync").CombinedOutput(); err != nil {
		failed, _ := m.Command("systemctl --failed; journalctl -b -p warning").CombinedOutput()
		return fmt.Errorf("the first boot of %s: %w: %s%s", base, err, out, failed)
	}
	if err := m.monitor.Run("savevm " + snapshot); err != nil {
		return err
	}
	m.hangUp()
	m.Kill()
	return os.Rename(m.dir, booted)
}

func (m *machine) arguments() []string {
	arguments := []string{
		// cx16=off: qemu 7.2 emulates cmpxchg16b wrongly, and Linux 6.12 panics. avx2=off:
		// hashing with it takes twice as long, emulated.
		"-accel", "tcg,thread=multi", "-cpu", "max,cx16=off,avx2=off", "-smp", "2", "-m", "1536",
		"-nodefaults", "-display", "none", "-rtc", "base=utc",
		"-kernel", filepath.Join(m.base, "vmlinuz"), "-initrd", filepath.Join(m.base, "initrd"),
		"-append", strings.Join(append([]string{"root=/dev/vda ro console=ttyS0 net.ifnames=1 mitigations=off cryptomgr.notests"}, m.extra...), " "),
		"-netdev", "tap,id=n0,ifname=" + tapName + ",script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=n0,mac=52:54:00:77:00:02,addr=0x3", "-device", "virtio-rng-pci",
		"-serial", "file:" + filepath.Join(m.dir, "console"),
		"-qmp", "unix:" + filepath.Join(m.dir, "qmp") + ",server,nowait",
	}
	for _, name := range drives {
		arguments = append(arguments, "-drive", "file="+filepath.Join(m.dir, name)+",format=qcow2,if=virtio,cache=unsafe,discard=unmap")
	}
	return arguments
}

// start starts qemu.
func (m *machine) start(more ...string) error {
	qemu := exec.Command("qemu-system-x86_64", append(m.arguments(), more...)...)
	qemu.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for the test
	output, err := os.Create(filepath.Join(m.dir, "qemu"))
	if err != nil {
		return err
	}
	defer output.Close()
	qemu.Stdout, qemu.Stderr = output, output
	if err := qemu.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	m.qemu, m.ended, m.monitor = qemu, ended, nil
	go func() {
		qemu.Wait()
		close(ended)
	}()
	m.monitor, err = dialMonitor(filepath.Join(m.dir, "qmp"), ended)
	if err != nil {
		m.Kill()
		said, _ := os.ReadFile(output.Name())
		return fmt.Errorf("qemu: %w: %s", err, said)
	}
	return nil
}

// Boot starts a machine that is off, with words for its kernel, and waits until it
// can be logged in to. One that runs is ended first, as if its plug were pulled.
func (m *machine) Boot(words ...string) error {
	m.Kill()
	m.extra = words
	if err := m.start(); err != nil {
		return err
	}
	return m.waitUp("")
}

// Reset puts the machine back to where it was when it had just booted.
func (m *machine) Reset() error {
	m.hangUp()
	if len(m.extra) > 0 {
		m.Kill()
		m.extra = nil
	}
	if m.Running() {
		if err := errors.Join(m.monitor.Run("loadvm "+snapshot), m.monitor.Run("cont")); err != nil {
			return err
		}
	} else if err := m.start("-loadvm", snapshot); err != nil {
		return err
	}
	if err := m.waitUp(""); err != nil {
		return err
	}
	// It believes that no time has passed since.
	if out, err := m.Command(fmt.Sprintf("date -s @%d", time.Now().Unix())).CombinedOutput(); err != nil {
		return fmt.Errorf("set the clock of the machine: %w: %s", err, out)
	}
	return nil
}

// Running reports whether the machine is on.
func (m *machine) Running() bool {
	if m.qemu == nil {
		return false
	}
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// Kill ends the machine as if its plug were pulled. Qemu itself ends in order: its
// disks, with the snapshots in them, stay whole.
func (m *machine) Kill() {
	if !m.Running() {
		return
	}
	if m.monitor != nil {
		if _, err := m.monitor.execute("quit", nil); err == nil {
			select {
			case <-m.ended:
				return
			case <-time.After(time.Minute):
			}
		}
	}
	m.qemu.Process.Kill()
	<-m.ended
}

// Command is a command line that root's shell on the machine is to run.
func (m *machine) Command(line string) *exec.Cmd {
	return m.command(context.Background(), line)
}

// command shares one connection with others, as a login costs seconds.
func (m *machine) command(ctx context.Context, line string) *exec.Cmd {
	return m.ssh(ctx, "-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o", "ControlPath="+m.control(), "root@"+address, line)
}

func (m *machine) control() string { return filepath.Join(m.dir, "ssh") }

func (m *machine) ssh(ctx context.Context, arguments ...string) *exec.Cmd {
	common := []string{"-q", "-F", "none", "-i", filepath.Join(m.base, "id"), "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=" + filepath.Join(m.base, "known_hosts"), "-o", "StrictHostKeyChecking=yes",
		"-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=60"}
	return exec.CommandContext(ctx, "ssh", append(common, arguments...)...)
}

// hangUp ends the connection, before the machine forgets it.
func (m *machine) hangUp() {
	m.ssh(context.Background(), "-O", "exit", "-o", "ControlPath="+m.control(), address).Run()
}

// Put copies a file to the machine.
func (m *machine) Put(content io.Reader, path string) error {
	cmd := m.Command(fmt.Sprintf("mkdir -p '%s' && cat >'%s'", filepath.Dir(path), path))
	cmd.Stdin = content
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write %s on the machine: %w: %s", path, err, out)
	}
	return nil
}

// within returns a context that ends after a time, or at the machine's deadline.
func (m *machine) within(d time.Duration) (context.Context, context.CancelFunc) {
	end := time.Now().Add(d)
	if !m.deadline.IsZero() && m.deadline.Before(end) {
		end = m.deadline
	}
	return context.WithDeadline(context.Background(), end)
}

// bootID identifies the machine's present boot; empty if it cannot be asked.
func (m *machine) bootID(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := m.ssh(ctx, "root@"+address, "cat /proc/sys/kernel/random/boot_id").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// waitUp waits until the machine can be logged in to, in another boot than this one.
func (m *machine) waitUp(before string) error {
	m.hangUp()
	ctx, cancel := m.within(bootTimeout)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if id := m.bootID(ctx); id != "" && id != before {
			return nil
		}
		select {
		case <-m.ended:
			return fmt.Errorf("the machine ended; its console:\n%s", m.Console(2000))
		case <-ctx.Done():
			return fmt.Errorf("nobody can log in to the machine, for %v or until the test's end; its console:\n%s", bootTimeout, m.Console(2000))
		case <-tick.C:
		}
	}
}

// waitOff waits until the machine has powered itself off.
func (m *machine) waitOff() error {
	ctx, cancel := m.within(offTimeout)
	defer cancel()
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the machine is still on, after %v or at the test's end; its console:\n%s", offTimeout, m.Console(2000))
	}
}

// Console returns the last bytes of what the machine printed on its console.
func (m *machine) Console(bytes int) string {
	text, _ := os.ReadFile(filepath.Join(m.dir, "console"))
	return string(text[max(0, len(text)-bytes):])
}
