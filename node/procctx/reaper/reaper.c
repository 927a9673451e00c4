// Process 1 of a guest whose own init is not run: it starts one program, reaps what is
// left to it, and ends when the guest has no other process, with the status of the
// program. It needs no library, no file and no memory but its stack, and is the whole
// of what vsnode leaves in such a guest.
//
//	init PROGRAM ARGUMENT…      PROGRAM is looked up in PATH if it has no slash
//
// make.sh compiles it to the machine code that is committed beside it.

#if defined(__x86_64__)
enum { sys_nanosleep = 35, sys_clone = 56, sys_execve = 59, sys_exit_group = 231, sys_wait4 = 61,
	sys_kill = 62, sys_setsid = 112, sys_prctl = 157 };

static inline long call(long nr, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0;
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return r;
}

// First in the file, and so in the code: where the kernel jumps to.
__asm__(".text; mov %rsp, %rdi; and $-16, %rsp; call run; ud2");
#elif defined(__aarch64__)
enum { sys_nanosleep = 101, sys_clone = 220, sys_execve = 221, sys_exit_group = 94, sys_wait4 = 260,
	sys_kill = 129, sys_setsid = 157, sys_prctl = 167 };

static inline long call(long nr, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = 0;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}

__asm__(".text; mov x0, sp; bl run; brk #1");
#endif

enum { ENOENT = 2, ESRCH = 3, ECHILD = 10, ENOTDIR = 20, SIGCHLD = 17, PR_SET_NAME = 15, PATH_MAX = 4096 };

static int slashed(const char *s)
{
	for (; *s; s++)
		if (*s == '/')
			return 1;
	return 0;
}

// execute returns only if the program cannot be run.
static void execute(char **argv, char **envp)
{
	char path[PATH_MAX], *list = 0;

	if (slashed(argv[0])) {
		call(sys_execve, (long)argv[0], (long)argv, (long)envp, 0);
		return;
	}
	for (char **e = envp; *e; e++) {
		char *s = *e;
		if (s[0] == 'P' && s[1] == 'A' && s[2] == 'T' && s[3] == 'H' && s[4] == '=')
			list = s + 5;
	}
	while (list && *list) {
		long n = 0;
		for (; *list && *list != ':'; list++)
			if (n < PATH_MAX / 2)
				path[n++] = *list;
		if (*list)
			list++;
		path[n++] = '/';
		for (char *s = argv[0]; n < PATH_MAX - 1 && *s; s++)
			path[n++] = *s;
		path[n] = 0;
		long err = -call(sys_execve, (long)path, (long)argv, (long)envp, 0);
		if (path[0] == '/' && err != ENOENT && err != ENOTDIR)
			return;
	}
}

__attribute__((used)) static void run(long *sp)
{
	char **argv = (char **)(sp + 1), **envp = argv + sp[0] + 1;
	int status = 127 << 8;

	call(sys_prctl, PR_SET_NAME, (long)argv[0], 0, 0);
	long program = call(sys_clone, SIGCHLD, 0, 0, 0);
	if (program == 0) {
		call(sys_setsid, 0, 0, 0, 0);
		execute(argv + 1, envp);
		call(sys_exit_group, 127, 0, 0, 0);
	}
	for (;;) {
		int how;
		long pid = call(sys_wait4, -1, (long)&how, 0, 0);
		if (pid == program)
			status = how;
		if (pid != -ECHILD)
			continue;
		// No child is left. Who entered the guest from outside is none of ours, and
		// nothing tells of its end.
		if (call(sys_kill, -1, 0, 0, 0) == -ESRCH)
			break;
		volatile long second[2]; // not from a section of constants
		second[0] = 1, second[1] = 0;
		call(sys_nanosleep, (long)second, 0, 0, 0);
	}
	// As shells do: 128 and the number of the signal.
	call(sys_exit_group, status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff, 0, 0, 0);
	__builtin_trap();
}
