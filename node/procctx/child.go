package procctx

import (
	"os"
	"path"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startScript returns the system calls of a guest's first process from clone3 to
// its init. The process is born in its user namespace, where it is root; outside,
// it is nobody.
func startScript(sp Spec, sock, reaper *os.File, mounts []openedMount) (*script, error) {
	s := newScript()
	s.await(sock) // the ids
	s.call("unshare cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	s.call("become session leader", unix.SYS_SETSID)
	s.becomeRoot()
	s.call("set host name", unix.SYS_SETHOSTNAME, sp.Hostname, len(sp.Hostname))
	if sp.Domain != "" {
		s.call("set domain name", unix.SYS_SETDOMAINNAME, sp.Domain, len(sp.Domain))
	}

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

	s.await(sock) // what is on the stage
	staged := func(path string) cell {
		return s.open("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, path, unix.O_PATH|unix.O_CLOEXEC)
	}
	root, sys, dev := staged(stagedRoot), staged(stagedSys), staged(stagedDev)
	attach := func(what string, from, dir cell, name string) {
		s.call(what, unix.SYS_MOVE_MOUNT, from, "", dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}

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
	s.runFiles(run, sp.Run)
	below(dev, "dev")
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

	s.call("set umask", unix.SYS_UMASK, 0o022)
	s.mounts(root, mounts, staged)
	s.call("enter root", unix.SYS_FCHDIR, root)
	s.call("pivot root", unix.SYS_PIVOT_ROOT, ".", ".")
	s.call("leave the host's root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	s.call("enter /", unix.SYS_CHDIR, "/")
	// What the host does with its mounts from now on does not propagate into the guest.
	s.call("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	// Shared again, among namespaces of the guest's only: in one of its own, systemd
	// mounts what a unit is to find (LoadCredential=), and expects it in all, as on a host.
	s.call("share mounts in the guest", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_SHARED, 0)
	for _, c := range sp.Sysctls {
		file := s.open("open /proc/sys/"+c.Path+" ("+c.Line+")", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/sys/"+c.Path, unix.O_WRONLY|unix.O_CLOEXEC)
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
	s.exec(reaper, sp.Argv, sp.Env)
	return s, nil
}

// await waits for a byte from the parent.
func (s *script) await(sock *os.File) {
	buf := make([]byte, 1)
	s.refs = append(s.refs, buf)
	st := s.call("wait for vsnode", unix.SYS_READ, s.fd(sock), unsafe.Pointer(&buf[0]), 1)
	st.min = 1 // 0: the parent is gone
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

// exec ends the script with the guest's program; reaper, if not nil, runs it.
func (s *script) exec(reaper *os.File, argv, env []string) {
	// All signals were blocked for the fork.
	none := new(uint64)
	s.refs = append(s.refs, none)
	s.call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, unsafe.Pointer(none), 0, 8)
	// No descriptor of the host enters the guest (CVE-2024-21626). They are not
	// closed at once: the status pipe is needed until execve succeeds.
	s.call("close descriptors", unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
	s.call("tell vsnode", unix.SYS_WRITE, status, unsafe.Pointer(&s.report), reportSize)
	if reaper != nil {
		args, envs := s.texts(append([]string{"init"}, argv...)), s.texts(env)
		s.call("run process 1", unix.SYS_EXECVEAT, s.fd(reaper), "", args, envs, unix.AT_EMPTY_PATH)
		return
	}
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
