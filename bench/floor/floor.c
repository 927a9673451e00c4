// floor starts a guest, waits for the end of its program, and clears everything away, as vsnode does, but with
// nothing around the system calls: no configuration, no locks, no notes, no checks, no second runtime. What this takes
// is what the kernel takes.
//
//   floor SAMPLE CGROUP IMAGE DIR CONTEXT PROGRAM [ARGUMENT...]
//
// SAMPLE is the cgroup of a running guest, whose BPF programs the new one gets. CGROUP is made and removed. IMAGE is the
// tree below the overlay, DIR holds root and work, and is on one filesystem. CONTEXT gives the ids. For each line on
// standard input, floor does it once and answers with a line. For the line "hold" it starts one more, of CGROUP-1, DIR-1
// and the next context, that stays until the input ends.
//
// The order of calls is that of node/guest/start.go and node/procctx, with two threads as there. The child is a copy of
// this small process, without CLONE_VM, which C has no safe way to use with CLONE_INTO_CGROUP; the copy takes some 0.1 ms.
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_addr.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

// Not in the headers of Debian 12, or in conflict with those of its C library.
#define LANDLOCK_CREATE_RULESET 444
#define LANDLOCK_RESTRICT_SELF 446
#define LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET 1
extern int pivot_root(const char *, const char *);
extern int mount(const char *, const char *, const char *, unsigned long, const void *);
extern int umount2(const char *, int);
enum { ms_bind = 4096, ms_rec = 16384, ms_private = 1 << 18, ms_shared = 1 << 20, mnt_detach = 2 };

static const char *sample, *cgroup, *image, *dir;
static char **program;
static long base; // the host's id of the guest's root

#define CHECK(call) ({ long r = (long)(call); if (r < 0) err(1, "%s", #call); r; })

static int fs_open(const char *type) { return CHECK(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC)); }
static void fs_set(int fs, const char *key, const char *value)
{
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0));
}
static int fs_mount(int fs, int attrs)
{
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	int fd = CHECK(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attrs));
	close(fs);
	return fd;
}
static void attach(int from, int at, const char *path)
{
	CHECK(syscall(SYS_move_mount, from, "", at, path, MOVE_MOUNT_F_EMPTY_PATH));
}
static int clone_tree(const char *path, int attrs, int userns)
{
	int fd = CHECK(syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
	struct mount_attr attr = {.attr_set = attrs, .propagation = ms_private};
	if (userns >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = userns;
	}
	CHECK(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr));
	return fd;
}

static void write_file(int at, const char *name, const char *text)
{
	int fd = CHECK(openat(at, name, O_WRONLY | O_CLOEXEC));
	if (write(fd, text, strlen(text)) < 0)
		err(1, "write %s", name);
	close(fd);
}

static void raise_caps(uint32_t drop)
{
	struct __user_cap_header_struct hdr = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	CHECK(syscall(SYS_capget, &hdr, data));
	data[0].permitted &= ~drop;
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted;
	CHECK(syscall(SYS_capset, &hdr, data));
}

static long bpf(int cmd, union bpf_attr *attr) { return syscall(SYS_bpf, cmd, attr, sizeof *attr); }

// The programs of SAMPLE, by what they are attached as.
static struct { int fd, type; } programs[64];
static int program_count;

static void find_programs(void)
{
	int fd = CHECK(open(sample, O_RDONLY | O_CLOEXEC));
	for (int type = 0; type < 64; type++) {
		uint32_t ids[8];
		union bpf_attr q = {.query = {.target_fd = fd, .attach_type = type, .prog_ids = (uintptr_t)ids, .prog_cnt = 8}};
		if (bpf(BPF_PROG_QUERY, &q) < 0)
			continue;
		for (uint32_t i = 0; i < q.query.prog_cnt && program_count < 64; i++) {
			union bpf_attr get = {.prog_id = ids[i]};
			programs[program_count].fd = CHECK(bpf(BPF_PROG_GET_FD_BY_ID, &get));
			programs[program_count++].type = type;
		}
	}
	close(fd);
	if (program_count == 0)
		errx(1, "%s has no BPF programs", sample);
}

static void attach_program(int cg, int fd, int type)
{
	union bpf_attr a = {.target_fd = cg, .attach_bpf_fd = fd, .attach_type = type, .attach_flags = BPF_F_ALLOW_MULTI};
	CHECK(bpf(BPF_PROG_ATTACH, &a));
}

static int make_cgroup(void)
{
	CHECK(mkdir(cgroup, 0755));
	int cg = CHECK(open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	write_file(cg, "cgroup.max.depth", "12");
	write_file(cg, "cgroup.max.descendants", "10000");
	CHECK(fchown(cg, base, base));
	static const char *files[] = {"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"};
	for (int i = 0; i < 3; i++)
		CHECK(fchownat(cg, files[i], base, base, 0));
	return cg;
}

// change_address adds a localhost of the guest's own to lo, or takes it away.
static void change_address(int type)
{
	struct { struct nlmsghdr n; struct ifaddrmsg a; struct rtattr r; unsigned char addr[16]; } msg = {
		.n = {.nlmsg_len = sizeof msg, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | (type == RTM_NEWADDR ? NLM_F_CREATE : 0)},
		.a = {.ifa_family = AF_INET6, .ifa_prefixlen = 128, .ifa_flags = IFA_F_NODAD, .ifa_index = 1},
		.r = {.rta_len = sizeof(struct rtattr) + 16, .rta_type = IFA_LOCAL},
		.addr = {0xfd, 0x76, 0x73, 0xff, [14] = base >> 24, [15] = base >> 16}};
	struct { struct nlmsghdr n; struct nlmsgerr e; char rest[256]; } answer;
	int s = CHECK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	CHECK(send(s, &msg, sizeof msg, 0));
	CHECK(recv(s, &answer, sizeof answer, 0));
	if (answer.e.error)
		errx(1, "change the address on lo: %s", strerror(-answer.e.error));
	close(s);
}

// put attaches a detached mount on the stage, which is the working directory.
static void put(int mount, const char *name)
{
	CHECK(mkdir(name, 0700));
	attach(mount, AT_FDCWD, name);
	close(mount);
}

static int overlay(int userns)
{
	char path[4096];
	const char *from[] = {image, dir}, *to[] = {"/run/floor/lower", "/run/floor/own"};
	for (int i = 0; i < 2; i++) {
		CHECK(mkdir(to[i], 0700));
		int fd = clone_tree(from[i], MOUNT_ATTR_NODEV, userns);
		attach(fd, AT_FDCWD, to[i]);
		close(fd);
	}
	syscall(SYS_setfsgid, base);
	syscall(SYS_setfsuid, base);
	raise_caps(1u << CAP_SYS_RESOURCE);
	int fs = fs_open("overlay");
	fs_set(fs, "source", "overlay");
	fs_set(fs, "lowerdir", to[0]);
	snprintf(path, sizeof path, "%s/root", to[1]);
	fs_set(fs, "upperdir", path);
	snprintf(path, sizeof path, "%s/work", to[1]);
	fs_set(fs, "workdir", path);
	fs_set(fs, "redirect_dir", "on");
	return fs_mount(fs, MOUNT_ATTR_NODEV);
}

static int devices(void)
{
	char id[32];
	snprintf(id, sizeof id, "%ld", base);
	int fs = fs_open("tmpfs");
	fs_set(fs, "mode", "0755");
	fs_set(fs, "size", "1m");
	fs_set(fs, "uid", id);
	fs_set(fs, "gid", id);
	int dev = fs_mount(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	static const struct { const char *name; int major, minor; } nodes[] = {
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	for (int i = 0; i < 6; i++) {
		CHECK(mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
		CHECK(fchmodat(dev, nodes[i].name, 0666, 0));
		CHECK(fchownat(dev, nodes[i].name, base, base, AT_SYMLINK_NOFOLLOW));
	}
	static const char *links[][2] = {{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}};
	for (int i = 0; i < 5; i++) {
		CHECK(symlinkat(links[i][0], dev, links[i][1]));
		CHECK(fchownat(dev, links[i][1], base, base, AT_SYMLINK_NOFOLLOW));
	}
	static const char *dirs[] = {"pts", "shm", "mqueue"};
	for (int i = 0; i < 3; i++) {
		CHECK(mkdirat(dev, dirs[i], 0755));
		CHECK(fchownat(dev, dirs[i], base, base, AT_SYMLINK_NOFOLLOW));
	}
	int boot = CHECK(openat(dev, ".boot_id", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
	CHECK(write(boot, "d658a9da-3825-4b10-a70a-f5553da27ba4\n", 37));
	close(boot);
	CHECK(fchownat(dev, ".boot_id", base, base, AT_SYMLINK_NOFOLLOW));
	return dev;
}

static void landlock(void)
{
	struct { uint64_t fs, net, scoped; } attr = {.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET};
	int fd = syscall(LANDLOCK_CREATE_RULESET, &attr, sizeof attr, 0);
	if (fd < 0)
		return; // kernel 6.12; vsnode attaches two more BPF programs without it
	CHECK(syscall(LANDLOCK_RESTRICT_SELF, fd, 0));
}

static void filter(void)
{
	enum { len = 88 }; // as long as a guest's
	struct sock_filter code[len];
	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 1; i < len - 1; i++)
		code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 100000 + i, 0, 0);
	code[len - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = {len, code};
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
}

// child is the guest's first process.
static void child(int sock)
{
	char byte;
	if (CHECK(read(sock, &byte, 1)) != 1)
		_exit(1);
	// The clocks of the time namespace are not set: only a child with CLONE_VM does not enter it at once.
	CHECK(unshare(CLONE_NEWCGROUP | CLONE_NEWTIME));
	CHECK(setsid());
	CHECK(syscall(SYS_setgroups, 0, NULL));
	CHECK(syscall(SYS_setresgid, 0, 0, 0));
	CHECK(syscall(SYS_setresuid, 0, 0, 0));
	CHECK(sethostname("floor", 5));
	const int quiet = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	int proc = fs_mount(fs_open("proc"), quiet), cg = fs_mount(fs_open("cgroup2"), quiet);
	int fs = fs_open("tmpfs");
	fs_set(fs, "mode", "0755");
	fs_set(fs, "size", "20%");
	int run = fs_mount(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	fs = fs_open("devpts");
	fs_set(fs, "ptmxmode", "0666");
	fs_set(fs, "mode", "0620");
	fs_set(fs, "gid", "5");
	fs_set(fs, "max", "256");
	int pts = fs_mount(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	fs = fs_open("tmpfs");
	fs_set(fs, "mode", "1777");
	int shm = fs_mount(fs, quiet), mqueue = fs_mount(fs_open("mqueue"), quiet);
	if (CHECK(read(sock, &byte, 1)) != 1)
		_exit(1);
	int root = CHECK(open("root", O_PATH | O_CLOEXEC)), sys = CHECK(open("sys", O_PATH | O_CLOEXEC)), dev = CHECK(open("dev", O_PATH | O_CLOEXEC));
	mkdirat(root, "proc", 0755);
	attach(proc, root, "proc");
	mkdirat(root, "sys", 0755);
	attach(sys, root, "sys");
	attach(cg, sys, "fs/cgroup");
	mkdirat(root, "run", 0755);
	attach(run, root, "run");
	CHECK(mkdirat(run, "lock", 0777));
	CHECK(fchmodat(run, "lock", 01777, 0));
	mkdirat(root, "dev", 0755);
	attach(dev, root, "dev");
	attach(pts, dev, "pts");
	attach(shm, dev, "shm");
	attach(mqueue, dev, "mqueue");
	CHECK(mknodat(dev, "console", S_IFREG | 0622, 0));
	int console = CHECK(syscall(SYS_open_tree, proc, "sys/kernel/ns_last_pid", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
	attach(console, dev, "console");
	CHECK(unlinkat(dev, ".boot_id", 0));
	umask(022);
	CHECK(fchdir(root));
	CHECK(syscall(SYS_pivot_root, ".", "."));
	CHECK(umount2(".", mnt_detach));
	CHECK(chdir("/"));
	CHECK(mount(NULL, "/", NULL, ms_rec | ms_private, NULL));
	int null = CHECK(open("/dev/null", O_RDWR | O_CLOEXEC));
	for (int i = 0; i < 3; i++)
		CHECK(dup3(null, i, 0));
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	static const int dropped[] = {CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME, CAP_MAC_OVERRIDE, CAP_MAC_ADMIN, CAP_AUDIT_READ};
	for (int i = 0; i < 6; i++)
		CHECK(prctl(PR_CAPBSET_DROP, dropped[i]));
	landlock();
	filter();
	CHECK(syscall(SYS_personality, 0));
	for (int sig = 1; sig <= 64; sig++) {
		unsigned long dfl[4] = {0}; // struct sigaction of the kernel
		if (sig != SIGKILL && sig != SIGSTOP)
			CHECK(syscall(SYS_rt_sigaction, sig, dfl, NULL, 8));
	}
	CHECK(syscall(SYS_close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */));
	char *env[] = {NULL};
	execve(program[0], program, env);
	err(1, "%s", program[0]);
}

// A launch is what the two threads of a start hand to each other.
static struct {
	int cg, sock, userns, sys, dev;
	pid_t pid;
	sem_t born, mapped, staged;
} l;

// workshop makes the child as the guest's root, so that its user namespace belongs to that, in a mount namespace of its
// own, of which the child has a copy: what is attached on the stage propagates there. It ends with this thread.
static void *workshop(void *arg)
{
	(void)arg;
	CHECK(syscall(SYS_setresgid, base, base, 0));
	CHECK(syscall(SYS_setresuid, base, base, 0));
	raise_caps(0);
	CHECK(unshare(CLONE_FS | CLONE_NEWNS));
	CHECK(mount("", "/", "", ms_rec | ms_private, ""));
	CHECK(mount("layers", "/run/floor", "tmpfs", 0, "size=64k,mode=0700"));
	CHECK(mkdir("/run/floor/stage", 0700));
	CHECK(mount("/run/floor/stage", "/run/floor/stage", "", ms_bind, ""));
	CHECK(mount("/run/floor/stage", "/run/floor/stage", "", ms_shared, ""));
	CHECK(chdir("/run/floor/stage"));
	struct clone_args args = {
		.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD, .cgroup = l.cg};
	l.pid = CHECK(syscall(SYS_clone3, &args, sizeof args));
	if (l.pid == 0)
		child(l.sock);
	for (int which = 0; which < 16; which++) {
		struct rlimit own;
		CHECK(prlimit(l.pid, which, NULL, &own));
		CHECK(prlimit(l.pid, which, &own, NULL));
	}
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", l.pid);
	write_file(AT_FDCWD, path, "0");
	sem_post(&l.born);
	sem_wait(&l.mapped);
	int root = overlay(l.userns);
	put(root, "root");
	put(l.sys, "sys");
	put(l.dev, "dev");
	sem_post(&l.staged);
	return NULL;
}

struct guest { int cg, pidfd, sock; pid_t pid; };

static struct guest start(void)
{
	int cg = make_cgroup(), pair[2];
	for (int i = 0; i < program_count; i++)
		attach_program(cg, programs[i].fd, programs[i].type);
	change_address(RTM_NEWADDR);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	l.cg = cg, l.sock = pair[1];
	pthread_t thread;
	if (pthread_create(&thread, NULL, workshop, NULL))
		errx(1, "thread");
	sem_wait(&l.born);
	pid_t pid = l.pid;
	close(pair[1]);
	char path[64], map[64];
	snprintf(map, sizeof map, "0 %ld 65536", base);
	snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
	write_file(AT_FDCWD, path, map);
	snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
	write_file(AT_FDCWD, path, map);
	CHECK(write(pair[0], "", 1));
	snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
	l.userns = CHECK(open(path, O_RDONLY | O_CLOEXEC));
	l.sys = clone_tree("/sys", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, -1);
	l.dev = devices();
	sem_post(&l.mapped);
	sem_wait(&l.staged);
	CHECK(write(pair[0], "", 1));
	close(l.userns);
	int pidfd = CHECK(syscall(SYS_pidfd_open, pid, 0));
	if (pthread_join(thread, NULL))
		errx(1, "thread");
	return (struct guest){cg, pidfd, pair[0], pid};
}

static int end(struct guest g)
{
	int status;
	struct pollfd p = {g.pidfd, POLLIN, 0};
	CHECK(poll(&p, 1, -1));
	CHECK(waitpid(g.pid, &status, 0));
	close(g.pidfd);
	close(g.sock);
	write_file(g.cg, "cgroup.kill", "1");
	change_address(RTM_DELADDR);
	close(g.cg);
	CHECK(rmdir(cgroup));
	return status;
}

// number makes the names and ids those of one of many guests.
static void number(int n)
{
	static char first_cgroup[4096], first_dir[4096], cgroup_n[4200], dir_n[4200], path[4300];
	static long first;
	if (first == 0) {
		first = base;
		snprintf(first_cgroup, sizeof first_cgroup, "%s", cgroup);
		snprintf(first_dir, sizeof first_dir, "%s", dir);
	}
	base = first + n * 65536L;
	snprintf(cgroup_n, sizeof cgroup_n, "%s-%d", first_cgroup, n);
	snprintf(dir_n, sizeof dir_n, "%s-%d", first_dir, n);
	cgroup = cgroup_n, dir = dir_n;
	const char *below[] = {"", "/root", "/work"};
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s%s", dir, below[i]);
		if (mkdir(path, 0755) && errno != EEXIST)
			err(1, "%s", path);
	}
}

int main(int argc, char **argv)
{
	if (argc < 7)
		errx(2, "usage: floor SAMPLE CGROUP IMAGE DIR CONTEXT PROGRAM [ARGUMENT...]");
	sample = argv[1], cgroup = argv[2], image = argv[3], dir = argv[4], base = atol(argv[5]) * 65536, program = argv + 6;
	find_programs();
	if (mkdir("/run/floor", 0700) && errno != EEXIST)
		err(1, "/run/floor");
	if (sem_init(&l.born, 0, 0) || sem_init(&l.mapped, 0, 0) || sem_init(&l.staged, 0, 0))
		err(1, "semaphore");
	static struct guest held[1000];
	int count = 0;
	for (char line[16]; fgets(line, sizeof line, stdin);) {
		if (strcmp(line, "hold\n") == 0) {
			if (count == 1000)
				errx(1, "1000 guests are enough");
			number(count + 1);
			held[count++] = start();
		} else if (end(start()) != 0) {
			errx(1, "%s failed", program[0]);
		}
		puts("done");
		fflush(stdout);
	}
	while (count > 0) {
		number(count);
		CHECK(kill(held[--count].pid, SIGKILL));
		end(held[count]);
	}
	return 0;
}
