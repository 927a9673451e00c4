package procctx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Spec describes what a guest's first process is born into.
type Spec struct {
	XID      int
	Hostname string
	Domain   string // NIS domain name; empty: the kernel's "(none)"
	Root     Root
	Cgroup   *os.File // the guest's fresh cgroup: it is born in it (CLONE_INTO_CGROUP, kernel 5.7)
	// PrivateNet gives the guest a network namespace of its own. Connect, if not
	// nil, sets it up before the guest's program runs.
	PrivateNet bool
	Connect    func(netns *os.File) error
	Scope      bool // block the host's abstract Unix sockets with Landlock
	Caps       CapSet
	Nesting    bool // the guest may create user and network namespaces
	Raw        bool // with PrivateNet: the guest may open raw and packet sockets
	// Processes limits the processes of all users of the guest together, where
	// no cgroup controller does; 0: half of what the machine can have.
	Processes int64
	Argv      []string // Argv[0] is looked up in the guest, in Env's PATH if it has no slash
	Env       []string
	// Console is the guest's standard output and error. If it is nil, ConsoleNode
	// is, a file below the guest's /proc; without either, /dev/null.
	Console     *os.File
	ConsoleNode string
	DevConsole  bool // mount ConsoleNode on /dev/console too
	Mounts      []Mount
	Sysctls     []Sysctl
	Attributes
}

// Attributes are inherited by a program from the process that starts it.
type Attributes struct {
	Nice    int
	Rlimits map[int]unix.Rlimit // by RLIMIT_*
}

// Sysctl is a kernel parameter that is written from inside the guest. Writing one
// that the guest's root may not write fails.
type Sysctl struct {
	Line  string // of the configuration that asks for it, for errors
	Path  string // below /proc/sys
	Value string
}

// Process is a guest's process 1, as started by Start.
type Process struct {
	PID int // as the host numbers it
}

// namespaces are those that every guest is born into. A private network adds a
// network namespace. The cgroup namespace is unshared in the child: clone3 would
// root it at the parent's cgroup (copy_cgroup_ns), not at that of CLONE_INTO_CGROUP.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Start starts a guest. It returns once the guest's program has taken over as
// process 1; on error nothing is left but the (empty) cgroup.
func Start(ctx context.Context, sp Spec) (Process, error) {
	if err := checkBinaryHidden(); err != nil {
		return Process{}, err
	}
	return start(ctx, sp)
}

func start(ctx context.Context, sp Spec) (Process, error) {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return Process{}, err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return Process{}, err
	}
	defer ours.Close()
	defer theirs.Close()
	s, err := startScript(sp, theirs)
	if err != nil {
		return Process{}, err
	}
	// CLONE_VM: until it runs the guest's program, the guest's only process may
	// share this one's memory.
	flags := uint64(namespaces | unix.CLONE_INTO_CGROUP | unix.CLONE_VM)
	if sp.PrivateNet {
		flags |= unix.CLONE_NEWNET
	}
	pid, pipe, release, err := s.launchAs(sp, &cloneArgs{flags: flags, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(sp.Cgroup.Fd())})
	defer release()
	if err != nil {
		return Process{}, err
	}
	defer pipe.Close()
	// The child's end of the socket must close with the child, so that neither
	// side waits for the other forever.
	theirs.Close()
	err = func() error {
		if err := mapIDs(pid, sp.XID); err != nil {
			return err
		}
		if _, err := ours.Write([]byte{1}); err != nil && !errors.Is(err, unix.EPIPE) {
			return fmt.Errorf("write to process %d: %w", pid, err)
		}
		fds, err := sp.mounts(pid)
		if err != nil {
			return err
		}
		defer closeAll(fds)
		if err := ctx.Err(); err != nil {
			return err
		}
		var rights []int
		for _, f := range fds {
			rights = append(rights, int(f.Fd()))
		}
		if err := unix.Sendmsg(int(ours.Fd()), []byte{1}, unix.UnixRights(rights...), nil, 0); err != nil && !errors.Is(err, unix.EPIPE) {
			return fmt.Errorf("send mounts to process %d: %w", pid, err)
		}
		return nil
	}()
	ours.Close()
	if err != nil {
		unix.Kill(pid, unix.SIGKILL)
	}
	if err = errors.Join(err, s.outcome(ctx, pipe)); err != nil {
		unix.Kill(pid, unix.SIGKILL)
		wait(pid)
		return Process{}, explain(err)
	}
	return Process{PID: pid}, nil
}

// mounts makes the mounts that only the host's root can make: the idmapped root,
// /sys, /dev and bind mounts.
func (sp Spec) mounts(pid int) (fds []*os.File, err error) {
	userns, err := os.Open(linux.ProcFile(pid, "ns/user"))
	if err != nil {
		return nil, err
	}
	defer userns.Close()
	var sys *os.File
	if sp.PrivateNet {
		netns, err := os.Open(linux.ProcFile(pid, "ns/net"))
		if err != nil {
			return nil, err
		}
		defer netns.Close()
		if sp.Connect != nil {
			if err := sp.Connect(netns); err != nil {
				return nil, err
			}
		}
		sys, err = netSys(netns)
		if err != nil {
			return nil, err
		}
	} else if sys, err = hostSys(); err != nil {
		return nil, err
	}
	root, err := sp.Root.mount(userns, sp.XID)
	if err != nil {
		sys.Close()
		return nil, fmt.Errorf("mount root: %w", err)
	}
	dev, err := devices(sp.XID)
	if err != nil {
		closeAll([]*os.File{root, sys})
		return nil, fmt.Errorf("make /dev: %w", err)
	}
	bound, err := openBinds(sp.Mounts, userns)
	if err != nil {
		closeAll([]*os.File{root, sys, dev})
		return nil, err
	}
	return append([]*os.File{root, sys, dev}, bound...), nil
}

// explain adds a cure or a cause to the most frequent errors of a start.
func explain(err error) error {
	var st *StepError
	if !errors.As(err, &st) {
		return err
	}
	switch dir, isMount := strings.CutPrefix(st.What, "mount "); {
	case st.Errno == unix.ENOENT && strings.HasPrefix(st.What, "find "):
		return fmt.Errorf("%w in the guest: make it there first", err)
	case isMount && (st.Errno == unix.ENOTDIR || st.Errno == unix.EINVAL) && strings.HasSuffix(st.What, ")"):
		return fmt.Errorf("%w: a directory goes onto a directory, a file onto a file", err)
	case st.Errno == unix.ENOENT && strings.HasPrefix(st.What, "run "):
		return fmt.Errorf("%w: the guest has no such program (or not the interpreter or loader that it names)", err)
	case isMount && (st.Errno == unix.EINVAL || st.Errno == unix.ENOTDIR):
		return fmt.Errorf("%w: %s in the guest's root is no directory", err, dir)
	}
	return err
}

// startScript returns the system calls of a guest's first process from clone3 to
// its init. The process is born in its user namespace, where it is root; outside,
// it is nobody.
func startScript(sp Spec, sock *os.File) (*script, error) {
	s := newScript()
	s.await(sock) // the ids
	s.call("unshare cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	s.call("become session leader", unix.SYS_SETSID)
	s.becomeRoot()
	s.call("set host name", unix.SYS_SETHOSTNAME, sp.Hostname, len(sp.Hostname))
	if sp.Domain != "" {
		s.call("set domain name", unix.SYS_SETDOMAINNAME, sp.Domain, len(sp.Domain))
	}
	// Mounts that the host makes from now on do not propagate into the guest.
	s.call("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)

	// Filesystems that do not need the root are made while the parent mounts it.
	nosuid := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	// The kernel refuses a new proc unless an old one is fully visible: make it
	// before the host's disappears.
	proc := s.filesystem("proc", nosuid)
	cg := s.filesystem("cgroup2", nosuid)
	run := s.filesystem("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode", "0755", "size", "20%")
	noexec := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	// max: the kernel has 4096 terminals for all, less the 1024 that it keeps for
	// the host (kernel.pty.reserve).
	pts := s.filesystem("devpts", noexec, "ptmxmode", "0666", "mode", "0620", "gid", "5", "max", "256")
	shm := s.filesystem("tmpfs", noexec|unix.MOUNT_ATTR_NODEV, "mode", "1777")
	mqueue := s.filesystem("mqueue", noexec|unix.MOUNT_ATTR_NODEV)

	bound := 0
	for _, m := range sp.Mounts {
		if m.Source != "" {
			bound++
		}
	}
	sent := s.receive(sock, 3+bound)
	root, sys, dev := sent[0], sent[1], sent[2]
	attach := func(what string, from, dir cell, name string) {
		s.call(what, unix.SYS_MOVE_MOUNT, from, "", dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	// The scratch directory's parent is the mount point until pivot_root.
	s.call("attach root", unix.SYS_MOVE_MOUNT, root, "", unix.AT_FDCWD, path.Dir(scratch), unix.MOVE_MOUNT_F_EMPTY_PATH)

	// Names directly below the root: mkdirat and move_mount do not follow a
	// link in the last component, and the path has no other component
	// (CVE-2026-41579: an image whose /dev is a link). A link there fails with ENOTDIR.
	below := func(from cell, name string) {
		s.call("make /"+name, unix.SYS_MKDIRAT, root, name, 0o755).or(unix.EEXIST)
		attach("mount /"+name, from, root, name)
	}
	below(proc, "proc")
	below(sys, "sys")
	attach("mount /sys/fs/cgroup", cg, sys, "fs/cgroup")
	below(run, "run")
	// Programs that keep their locks there expect the system to provide it (FHS).
	s.call("make /run/lock", unix.SYS_MKDIRAT, run, "lock", 0o777)
	s.call("open /run/lock to all", unix.SYS_FCHMODAT, run, "lock", 0o1777)
	below(dev, "dev")
	// Before kernel 6.15, nothing can be mounted on a detached mount: after /dev.
	attach("mount /dev/pts", pts, dev, "pts")
	attach("mount /dev/shm", shm, dev, "shm")
	attach("mount /dev/mqueue", mqueue, dev, "mqueue")
	if sp.DevConsole {
		node := s.open("open console", unix.SYS_OPEN_TREE, proc, strings.TrimPrefix(sp.ConsoleNode, "/proc/"), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		s.call("make /dev/console", unix.SYS_MKNODAT, dev, "console", unix.S_IFREG|0o622, 0)
		attach("mount /dev/console", node, dev, "console")
	}

	// Each start is a boot of its own: with the host's boot id, a journal could not
	// tell two starts apart. A mount on /proc keeps nested user namespaces from
	// mounting a /proc of their own (mnt_already_visible), so leave it out where
	// programs may create these.
	if !sp.Nesting {
		id := s.open("open boot id", unix.SYS_OPEN_TREE, dev, bootIDFile, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		attach("mount boot id", id, proc, "sys/kernel/random/boot_id")
	}
	s.call("forget boot id", unix.SYS_UNLINKAT, dev, bootIDFile, 0)

	s.call("enter root", unix.SYS_FCHDIR, root)
	s.call("pivot root", unix.SYS_PIVOT_ROOT, ".", ".")
	s.call("leave the host's root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	s.call("enter /", unix.SYS_CHDIR, "/")
	s.mounts(sp.Mounts, sent[3:])
	for _, c := range sp.Sysctls {
		file := s.open("open "+c.Path+" ("+c.Line+")", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/sys/"+c.Path, unix.O_WRONLY|unix.O_CLOEXEC)
		s.call("set "+c.Path+" ("+c.Line+")", unix.SYS_WRITE, file, c.Value, len(c.Value))
	}

	null := s.open("open /dev/null", unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/null", unix.O_RDWR|unix.O_CLOEXEC)
	s.call("set standard input", unix.SYS_DUP3, null, 0, 0)
	var out any = null
	switch {
	case sp.Console != nil:
		out = s.fd(sp.Console)
	case sp.ConsoleNode != "":
		out = s.open("open console", unix.SYS_OPENAT, unix.AT_FDCWD, sp.ConsoleNode, unix.O_WRONLY|unix.O_CLOEXEC)
	}
	for fd := 1; fd <= 2; fd++ {
		s.call("set standard output", unix.SYS_DUP3, out, fd, 0)
	}
	if err := s.confine(sp.Caps, sp.Scope, sp.PrivateNet, sp.Nesting, sp.Raw); err != nil {
		return nil, err
	}
	s.resetInherited(sp.Attributes)
	s.exec(sp.Argv, sp.Env)
	return s, nil
}

// await waits for a byte from the parent.
func (s *script) await(sock *os.File) {
	buf := make([]byte, 1)
	s.refs = append(s.refs, buf)
	st := s.call("wait for vsnode", unix.SYS_READ, s.fd(sock), unsafe.Pointer(&buf[0]), 1)
	st.min = 1 // 0: the parent is gone
}

// receive waits for n mounts from the parent. Descriptors arrive in a control
// message, a header of 16 bytes and one int each, which is laid over the cells.
func (s *script) receive(sock *os.File, n int) (sent []cell) {
	first := s.cell()
	for range 4 + n + n%2 { // the header, the descriptors, and up to two to align to 8 bytes
		s.cell()
	}
	if first%2 != 0 {
		first++
	}
	buf := make([]byte, 1)
	iov := &unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	msg := &unix.Msghdr{Iov: iov, Control: (*byte)(unsafe.Pointer(&s.cells[first]))}
	msg.SetIovlen(1)
	msg.SetControllen(unix.CmsgSpace(n * 4))
	s.refs = append(s.refs, buf, iov, msg)
	st := s.call("wait for vsnode", unix.SYS_RECVMSG, s.fd(sock), unsafe.Pointer(msg), unix.MSG_CMSG_CLOEXEC)
	st.min = 1 // 0: the parent is gone
	for i := range n {
		sent = append(sent, first+4+cell(i))
	}
	return sent
}

// filesystem makes a detached mount of a new filesystem and returns its cell.
func (s *script) filesystem(fstype string, attrs int, options ...string) cell {
	fs := s.open("open "+fstype, unix.SYS_FSOPEN, fstype, unix.FSOPEN_CLOEXEC)
	for i := 0; i+1 < len(options); i += 2 {
		s.call("set "+fstype+" "+options[i], unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, options[i], options[i+1], 0)
	}
	s.call("make "+fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	return s.open("mount "+fstype, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, attrs)
}

// becomeRoot makes the process the guest's root: its host ids mean nothing inside.
func (s *script) becomeRoot() { s.become(0, 0, nil) }

func (s *script) become(uid, gid int, groups []uint32) {
	if len(groups) == 0 {
		s.call("set groups", unix.SYS_SETGROUPS, 0, 0)
	} else {
		s.refs = append(s.refs, groups)
		s.call("set groups", unix.SYS_SETGROUPS, len(groups), unsafe.Pointer(&groups[0]))
	}
	s.call("set group", unix.SYS_SETRESGID, gid, gid, gid)
	s.call("set user", unix.SYS_SETRESUID, uid, uid, uid)
}

// confine removes what a guest may not have: capabilities outside its set, access
// to other contexts' abstract sockets, and the system calls of seccomp.go.
func (s *script) confine(caps CapSet, scope, privateNet, nesting, raw bool) error {
	// execve would carry ambient capabilities over (CVE-2022-24769).
	s.call("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for bit := range 64 {
		if AllCaps&^caps&(1<<bit) != 0 {
			// EINVAL: an older kernel does not know this capability.
			s.call("drop capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, bit, 0, 0, 0).or(unix.EINVAL)
		}
	}
	if scope {
		rules, err := scopeRules()
		if err != nil {
			return err
		}
		s.call("scope abstract sockets", unix.SYS_LANDLOCK_RESTRICT_SELF, s.fd(rules), 0)
	}
	return s.addFilter(privateNet, nesting, raw)
}

// exec ends the script with the guest's program.
func (s *script) exec(argv, env []string) {
	// All signals were blocked for the fork.
	none := new(uint64)
	s.refs = append(s.refs, none)
	s.call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, unsafe.Pointer(none), 0, 8)
	// No descriptor of the host enters the guest (CVE-2024-21626). They are not
	// closed at once: the status pipe is needed until execve succeeds.
	s.call("close descriptors", unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
	s.call("tell vsnode", unix.SYS_WRITE, status, unsafe.Pointer(&s.report), reportSize)
	args, envs := s.texts(argv), s.texts(env)
	paths := searchPath(argv[0], env)
	for i, p := range paths {
		st := s.call("run "+argv[0], unix.SYS_EXECVE, p, args, envs)
		if i < len(paths)-1 {
			st.or(unix.ENOENT).or(unix.ENOTDIR)
		}
	}
}

// searchPath returns the paths where a program may be, in order.
func searchPath(name string, env []string) []string {
	if strings.ContainsRune(name, '/') {
		return []string{name}
	}
	var list []string
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			for _, dir := range strings.Split(p, ":") {
				if strings.HasPrefix(dir, "/") {
					list = append(list, path.Join(dir, name))
				}
			}
		}
	}
	if len(list) == 0 {
		list = []string{"/bin/" + name}
	}
	return list
}

// launch forks and returns the child's pid and its status pipe.
func (s *script) launch(args *cloneArgs) (pid int, pipe *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer w.Close()
	s.cells[status] = int32(s.fd(w))
	s.closeInherited()
	pid, err = s.fork(args)
	if err != nil {
		r.Close()
		return 0, nil, err
	}
	return pid, r, nil
}

// launchAs forks as the guest's root, so that the guest's user namespace belongs
// to that user: what the kernel counts per user and all user namespaces of that
// user (inotify instances, message queues, pending signals, timers, nested
// namespaces, processes; ucounts in the kernel) is then counted separately for each
// guest. If the host's root owned them, one guest could exhaust them for the other
// guests and for the host.
//
// The child shares this process's memory, including the thread-local storage of
// the thread that made it: that thread stays until release, which must be called
// once the child runs its program or is gone.
func (s *script) launchAs(sp Spec, args *cloneArgs) (pid int, pipe *os.File, release func(), err error) {
	born, over := make(chan error), make(chan struct{})
	go linux.OnOwnThread(func() (none struct{}, _ error) {
		born <- func() error {
			if err := resetThread(sp.Nice); err != nil {
				return err
			}
			if err := actAsCreator(sp.XID); err != nil {
				return err
			}
			if err := withUserLimits(sp.Processes, sp.Attributes, func() (err error) {
				pid, pipe, err = s.launch(args)
				return err
			}); err != nil {
				return err
			}
			// On this thread, which owns the child's namespace.
			err := limitProcess(pid, sp.Processes, sp.Attributes)
			if err != nil {
				unix.Kill(pid, unix.SIGKILL)
				wait(pid)
				pipe.Close()
			}
			return err
		}()
		<-over
		return none, nil
	})
	err = <-born
	return pid, pipe, func() { close(over) }, err
}

// outcome reads the status pipe to its end: it closes when the program runs.
// When ctx ends, the error is os.ErrDeadlineExceeded and the process may still be
// waiting.
func (s *script) outcome(ctx context.Context, pipe *os.File) (err error) {
	defer runtime.KeepAlive(s)
	stop := context.AfterFunc(ctx, func() { pipe.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, reportSize)
	for ran := false; ; {
		_, rerr := io.ReadFull(pipe, buf)
		switch {
		case errors.Is(rerr, io.EOF) && err == nil && !ran:
			return errKilled
		case errors.Is(rerr, io.EOF):
			return err
		case rerr != nil:
			return fmt.Errorf("read status: %w", rerr)
		}
		if rep := *(*report)(unsafe.Pointer(&buf[0])); rep.Errno != 0 {
			err = s.explain(rep)
		} else {
			ran = true
		}
	}
}

var errKilled = errors.New("the process was killed before its program could run")

// wait reaps a child and returns its wait status.
func wait(pid int) (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return ws, err
		}
	}
}

func socketpair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
