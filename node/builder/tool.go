package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// A program is one of the host's, with its arguments.
type program struct {
	path string
	args []string
	dir  string   // where it runs; empty: /
	env  []string // in addition to environment()

	copies string // what, for the progress of rsync
	what   string // its name in errors; empty: that of path
}

// tool runs a program of the host that writes a root filesystem. Everything that the
// program started ends with it: when process 1 of a pid namespace ends, the kernel
// ends the others, and when the last process of a mount namespace ends, its mounts
// disappear. A build that is cancelled, or whose vsnode is killed, leaves only files.
// The scripts of packages run under the seccomp filter of guests.
func tool(ctx context.Context, req Request, p program) error {
	out := &output{req: req, what: p.copies}
	// The shell mounts the namespace's /proc: with the host's, the tool would take
	// other processes for its own. The script is constant; arguments are passed to it.
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-ec", `umask 022; mount -t proc proc /proc; exec "$@"`, "sh", p.path}, p.args...)...)
	cmd.Env = append(environment(), p.env...)
	cmd.Dir = cmp.Or(p.dir, "/")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Unshareflags: unix.CLONE_NEWNS, // here Go makes the mounts private as well
		Pdeathsig:    syscall.SIGKILL,
	}
	// The tool inherits the filter of the thread that forks it, which ends afterwards; the
	// signal of Pdeathsig is sent when it does.
	_, err := linux.OnOwnThread(func() (none struct{}, err error) {
		if err = procctx.FilterThread(); err == nil {
			err = cmd.Run()
		}
		return none, err
	})
	out.flush()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %s%s: %s", cmp.Or(p.what, filepath.Base(p.path)), exit.ProcessState, full(req.Dir), strings.Join(out.tail, "; "))
	}
	return err
}

// environment returns the environment of tools: nothing of vsnode's except proxies.
func environment() []string {
	env := []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb",
		"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true",
	}
	for name, key := range map[string]string{
		"http_proxy": "Acquire::http::Proxy", "https_proxy": "Acquire::https::Proxy", "no_proxy": "",
	} {
		if v := cmp.Or(os.Getenv(name), os.Getenv(strings.ToUpper(name)), aptSetting(key)); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// aptSetting returns a setting of the host's apt: where a Debian host keeps its proxy.
// The tools have an apt of their own, which does not look there.
func aptSetting(key string) string {
	if key == "" {
		return ""
	}
	out, err := exec.Command("apt-config", "dump", "--format", "%v%n", key).Output()
	if v := strings.TrimSpace(string(out)); err == nil && !strings.Contains(v, "\n") && v != "DIRECT" {
		return v
	}
	return "" // no Debian, or none set
}

// full returns a part of an error if the disk is full, the most frequent cause and one that
// the last lines of the output of tools rarely show.
func full(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return ""
	}
	const enough = 16 << 20
	switch free := int64(st.Bavail) * int64(st.Bsize); {
	case free < enough:
		return fmt.Sprintf(" (no space left on device: %s has %d MiB free)", dir, free>>20)
	case st.Files > 0 && st.Ffree < 100:
		return fmt.Sprintf(" (no space left on device: %s has %d inodes free)", dir, st.Ffree)
	}
	return ""
}

// An output follows the output of a tool, line by line.
type output struct {
	req  Request
	what string   // is copied, by rsync
	line []byte   // begun
	tail []string // the last lines, of errors if there are any
	errs bool     // tail is of errors

	configured  int64 // packages
	total       int64 // to configure
	transaction int   // apt's, of which mmdebstrap makes two that install
}

const tailLines = 6

func (o *output) Write(p []byte) (int, error) {
	if n, err := o.req.Log.Write(p); err != nil {
		return n, fmt.Errorf("write the log: %w%s", err, full(o.req.Dir))
	}
	for rest := p; ; {
		end := slices.IndexFunc(rest, func(b byte) bool { return b == '\n' || b == '\r' }) // rsync shows its progress in one line
		line := rest
		if end >= 0 {
			line = rest[:end]
		}
		if len(o.line)+len(line) < 1<<16 {
			o.line = append(o.line, line...)
		}
		if end < 0 {
			return len(p), nil
		}
		o.flush()
		rest = rest[end+1:]
	}
}

func (o *output) flush() {
	line := strings.TrimSpace(string(o.line))
	o.line = o.line[:0]
	if line == "" {
		return
	}
	if o.follow(line) {
		return // it is no message
	}
	// apt, mmdebstrap and dnf mark errors, and then print much more.
	if wrong := isError(line); wrong != o.errs {
		if o.errs {
			return
		}
		o.errs, o.tail = true, nil
	}
	if len(o.tail) == tailLines {
		o.tail = append(o.tail[:0], o.tail[1:]...)
	}
	o.tail = append(o.tail, line[:min(len(line), 400)])
}

// isError reports whether a line is marked as an error.
func isError(line string) bool {
	for _, mark := range []string{"E: ", "W: Failed", "Error: ", "No match for argument: ", "Problem repository: ", "GPG key", "- Curl error"} {
		if strings.HasPrefix(line, mark) {
			return true
		}
	}
	return false
}

// follow derives the progress from the lines of apt, dpkg, mmdebstrap, debootstrap, dnf
// and rsync. It reports whether a line shows progress and nothing else.
func (o *output) follow(line string) bool {
	words := strings.Fields(line)
	second := ""
	if len(words) > 1 {
		second = strings.TrimSuffix(words[1], "...")
	}
	switch {
	case strings.HasSuffix(second, "%") && len(words) > 3:
		//   1238099 100%  146.38kB/s    0:00:08 (xfr#5, to-chk=169/396)
		if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
			o.req.Progress.Report("copying "+o.what, n, 0)
			return true
		}
	case strings.HasPrefix(line, "I: skipping"), strings.HasPrefix(line, "I: running --"):
	case strings.HasPrefix(line, "I: "):
		o.report(strings.TrimSuffix(line[len("I: "):], "..."))
	case len(words) > 3 && (words[0] == "Installing" || words[0] == "Verifying"):
		//   Installing       : glibc-2.34-60.el9.x86_64    12/183
		done, total, _ := strings.Cut(words[len(words)-1], "/")
		n, err1 := strconv.ParseInt(done, 10, 32)
		m, err2 := strconv.ParseInt(total, 10, 32)
		if err1 == nil && err2 == nil {
			o.req.Progress.Report(strings.ToLower(words[0])+" "+words[2], n, m)
		}
	case words[0] == "Unpacking" && second != "":
		o.report("unpacking " + second)
	case words[0] == "Setting" && second == "up" && len(words) > 2:
		o.configured++
		o.report("configuring " + words[2])
	case strings.HasPrefix(words[0], "Get:") && len(words) > 5: // one less: an index
		// Get:12 http://deb.debian.org/debian bookworm/main amd64 libc6 amd64 2.36 [2757 kB]
		o.report("downloading " + words[4])
	case len(words) > 4 && words[1] == "upgraded," && words[3] == "newly":
		// 0 upgraded, 108 newly installed, 0 to remove and 0 not upgraded.
		if n, err := strconv.ParseInt(words[2], 10, 32); err == nil && n > 0 {
			o.transaction++
			o.total += n
		}
	}
	return false
}

func (o *output) report(message string) {
	if o.transaction < 2 { // the larger part of mmdebstrap's work is still to come
		o.req.Progress.Report(message, 0, 0)
		return
	}
	o.req.Progress.Report(message, min(o.configured, o.total), o.total)
}
