package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InitCommand is the first argument of a program that is started as a host's
// init.
const InitCommand = "lab-init"

const (
	initEnv      = "VSFLEET_LAB_INIT" // set for a host's init: see Up
	bootArgument = "boot"             // second argument, once the host is built
	controlFD    = 3                  // a socket to the Up that started us
	sshdPath     = "/usr/sbin/sshd"
	sshdPidFile  = "/run/sshd.pid"
	ready        = "ready"
)

// hostConfig is sent to an init by Up.
type hostConfig struct {
	Hostname string       `json:"hostname"`
	Address  netip.Prefix `json:"address"`
	Gateway  netip.Addr   `json:"gateway"`
}

// InitMain is a host's process 1; it returns an exit status. Up starts the
// running program again in new namespaces with InitCommand as first argument,
// so a program that calls Up must begin its main, or its tests' TestMain, with
//
//	if len(os.Args) > 1 && os.Args[1] == lab.InitCommand {
//		os.Exit(lab.InitMain(os.Args[2:]))
//	}
//
// It builds the host and then executes itself once more: a cgroup namespace is
// a thread's, not a process's, and only what is executed from the thread that
// entered it is in it with all its threads, which are then also rid of what
// building has left in memory.
func InitMain(args []string) int {
	if len(args) > 1 && args[0] == enterArgument {
		return enter(args[1:])
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "lab-init is started by vsfleet lab up, as process 1 of a lab host")
		return 1
	}
	control := os.NewFile(controlFD, "control")
	var err error
	if len(args) == 1 && args[0] == bootArgument {
		unix.CloseOnExec(controlFD)
		err = boot(control)
	} else {
		err = build(control)
	}
	// If Up has ended, the host's log still has it.
	fmt.Fprintln(os.Stderr, "lab-init:", err)
	io.WriteString(control, err.Error())
	return 1
}

// build returns only if it fails.
func build(control io.Reader) error {
	// Up dies before it has sent everything: the host ends here.
	var c hostConfig
	if err := json.NewDecoder(control).Decode(&c); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	runtime.LockOSThread()
	unix.Umask(0o022)
	// Up has put us into the host's cgroup, which becomes the root of what the
	// host sees. (CLONE_NEWCGROUP together with CLONE_INTO_CGROUP would have
	// made it the cgroup of Up.)
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("new cgroup namespace: %w", err)
	}
	if err := enterRoot(); err != nil {
		return err
	}
	if err := enterInitScope(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	if err := configureNetwork(c.Address, c.Gateway); err != nil {
		return err
	}
	if err := os.Mkdir("/run/sshd", 0o755); err != nil { // sshd's privilege separation
		return err
	}
	err := unix.Exec("/proc/self/exe", []string{os.Args[0], InitCommand, bootArgument}, hostEnv())
	return fmt.Errorf("execute init again: %w", err)
}

// hostEnv returns the environment of a host's processes, with nothing of ours.
func hostEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
}

// enterInitScope moves us out of the host's root cgroup, so that controllers
// can be handed to the cgroups below it, and does so, as systemd would have.
func enterInitScope() error {
	const root = cgroup("/sys/fs/cgroup")
	scope := root.child(initScope)
	if err := scope.make(); err != nil {
		return err
	}
	if err := os.WriteFile(scope.file("cgroup.procs"), []byte("1"), 0o644); err != nil {
		return fmt.Errorf("enter %s: %w", scope, err)
	}
	return root.delegate()
}

// boot starts sshd, reports when it listens, and reaps until it is killed.
func boot(control io.WriteCloser) error {
	if err := unix.Access(sshdPath, unix.X_OK); err != nil {
		return fmt.Errorf("%s: %w (a /usr of its own on this machine is not seen in a lab host)", sshdPath, err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT, unix.SIGPWR)
	go func() {
		<-stop
		os.Exit(0) // the kernel ends the rest
	}()

	listening, err := watchPidFile()
	if err != nil {
		return err
	}
	sshd, started, err := startSSHD()
	if err != nil {
		return err
	}
	go func() {
		if err := listening(); err != nil {
			io.WriteString(control, err.Error())
		} else {
			io.WriteString(control, ready) // nobody is there to read it: serve all the same
		}
		control.Close()
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		if pid != sshd {
			continue
		}
		// A real host's systemd starts sshd again too. One which does not even
		// live for a second never will.
		if time.Since(started) < time.Second {
			return fmt.Errorf("sshd ended at once, with status %d", status.ExitStatus())
		}
		if sshd, started, err = startSSHD(); err != nil {
			return err
		}
	}
}

// startSSHD does without os/exec, which would wait for the process itself.
func startSSHD() (pid int, started time.Time, err error) {
	pid, err = syscall.ForkExec(sshdPath, []string{sshdPath, "-D", "-e"}, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, started, fmt.Errorf("start %s: %w", sshdPath, err)
	}
	return pid, time.Now(), nil
}

// watchPidFile returns a function that waits for sshd's pid file, which sshd
// writes once it listens.
func watchPidFile() (wait func() error, err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, "/run", unix.IN_CLOSE_WRITE); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch /run: %w", err)
	}
	return func() error {
		defer unix.Close(fd)
		buf := make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1)
		for {
			_, err := os.Stat(sshdPidFile)
			if err == nil || !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if _, err := unix.Read(fd, buf); err != nil && err != unix.EINTR {
				return fmt.Errorf("watch /run: %w", err)
			}
		}
	}, nil
}
