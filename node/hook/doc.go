// Package hook finds and runs the programs that an administrator of a host puts into
// a guest's scripts/ directory, to be run when the guest starts and stops. The names,
// arguments and the rule for defaults are Linux-VServer's.
//
// A hook is a program of the host: it runs as root in the host's namespaces. So that
// it never works on a path that a guest controls, its working directory is the
// guest's configuration, and a file that anybody but root can change is not run.
//
// Each hook runs in a cgroup of its own, with an environment of its own, a
// description of the guest on its standard input, and a time limit. It ends together
// with everything that it started when it returns, when its time is over, when the
// caller's context ends, and when vsnode is killed: a shell in the same cgroup waits
// for the end of a pipe that vsnode holds, and kills the cgroup then.
//
// The package needs cgroup v2 with cgroup.kill (kernel 5.14) and /bin/sh. It knows
// nothing of guests but what the caller passes on.
package hook
