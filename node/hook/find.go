package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Phase is a moment in the life of a guest.
type Phase string

// Phases, in the order in which they come.
const (
	Initialize   Phase = "initialize"    // before the configuration is read
	PrepreStart  Phase = "prepre-start"  // nothing has been done yet
	PreStart     Phase = "pre-start"     // the network is there, and no process
	PostStart    Phase = "post-start"    // the guest runs
	PreStop      Phase = "pre-stop"      // it still runs
	PostStop     Phase = "post-stop"     // no process is left, the network is still there
	PostpostStop Phase = "postpost-stop" // nothing is left
)

// Phases lists all of them.
var Phases = []Phase{Initialize, PrepreStart, PreStart, PostStart, PreStop, PostStop, PostpostStop}

// After reports whether the phase follows what it could prevent.
func (p Phase) After() bool {
	return p == PostStart || p == PreStop || p == PostStop || p == PostpostStop
}

// TimeoutFile is the file beside the hooks that holds their time limit.
const TimeoutFile = "timeout"

// DefaultTimeout is the time limit of a hook without such a file.
const DefaultTimeout = time.Minute

// maxTimeout bounds what can be asked for: the guest is held for that long.
const maxTimeout = time.Hour

// Set holds the hooks of a guest.
type Set struct {
	own, defaults map[Phase][]string // paths, in order
	Timeout       time.Duration      // of each hook
}

// Find lists the hooks in the directory of a guest and in that of the defaults, which
// need not exist. It skips names for which skip returns true.
func Find(own, defaults string, skip func(name string) bool) (s Set, err error) {
	if s.own, err = list(own, skip); err != nil {
		return s, err
	}
	if s.defaults, err = list(defaults, skip); err != nil {
		return s, err
	}
	if s.own == nil && s.defaults == nil {
		s.Timeout = DefaultTimeout
		return s, nil
	}
	s.Timeout, err = timeout(filepath.Join(own, TimeoutFile), filepath.Join(defaults, TimeoutFile))
	return s, err
}

// list returns the hooks in a directory: the file named after a phase, then those in
// PHASE.d in the order of their names.
func list(dir string, skip func(string) bool) (map[Phase][]string, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // most guests have none
	}
	found := map[Phase][]string{}
	for _, phase := range Phases {
		path := filepath.Join(dir, string(phase))
		if isFile(path) {
			found[phase] = append(found[phase], path)
		}
		entries, err := os.ReadDir(path + ".d")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if path := filepath.Join(path+".d", e.Name()); e.Name()[0] != '.' && !skip(e.Name()) && isFile(path) {
				found[phase] = append(found[phase], path)
			}
		}
	}
	return found, nil
}

// isFile reports whether a path is a file, a link to one, or a link that leads nowhere:
// a hook that was to be run and is gone must not be skipped silently.
func isFile(path string) bool {
	if info, err := os.Stat(path); err == nil {
		return info.Mode().IsRegular()
	}
	_, err := os.Lstat(path)
	return err == nil
}

func timeout(files ...string) (time.Duration, error) {
	for _, file := range files {
		b, err := linux.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		d, err := parseTimeout(string(b))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		return d, nil
	}
	return DefaultTimeout, nil
}

func parseTimeout(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	d, err := time.ParseDuration(text)
	if seconds, serr := strconv.Atoi(text); serr == nil {
		d, err = time.Duration(seconds)*time.Second, nil
		if seconds > int(maxTimeout/time.Second) {
			d = 0
		}
	}
	if err != nil || d < time.Second || d > maxTimeout {
		return 0, fmt.Errorf("want a number of seconds, or a time as 2m, from 1s to 1h, not %q", text)
	}
	return d, nil
}

// Has reports whether there are hooks for a phase.
func (s Set) Has(phase Phase) bool { return len(s.own[phase])+len(s.defaults[phase]) > 0 }

// Own returns the guest's own hooks, without the defaults.
func (s Set) Own() (all []string) {
	for _, phase := range Phases {
		all = append(all, s.own[phase]...)
	}
	return all
}

// Defaults returns the hooks of all guests.
func (s Set) Defaults() (all []string) {
	for _, phase := range Phases {
		all = append(all, s.defaults[phase]...)
	}
	return all
}

// Trusted returns the file that a path leads to. It is an error if anybody but root
// can change it, or put another one in its place: a hook runs as the host's root.
func Trusted(path string) (string, error) {
	const most = 40 // links, as in the kernel (MAXSYMLINKS)
	at, todo := "/", strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		var st unix.Stat_t
		if err := unix.Lstat(next, &st); err != nil {
			return "", &fs.PathError{Op: "find", Path: next, Err: err}
		}
		if st.Uid != 0 {
			return "", fmt.Errorf("%s belongs to user %d, who could have the host's root run anything: chown root it", next, st.Uid)
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFLNK {
			target, err := os.Readlink(next)
			if links++; err != nil || links > most {
				return "", &fs.PathError{Op: "follow", Path: next, Err: errors.Join(err, unix.ELOOP)}
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			todo = append(strings.Split(target, "/"), todo...)
			continue
		}
		// In a directory with the sticky bit nobody replaces root's files.
		if sticky := kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0; st.Mode&0o022 != 0 && !sticky {
			return "", fmt.Errorf("%s can be written by others than root, who could have root run anything: chmod go-w it", next)
		}
		at = next
	}
	return at, nil
}
