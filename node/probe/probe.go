package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// Ability is something that a host can do or cannot.
type Ability struct {
	Name     string // unique; check's row
	For      string
	Required bool // no guest starts without it
	Lost     string
	Cure     string
	Modules  []string // of the kernel, which it may be in
	Changes  bool     // a yes may become a no while the kernel runs: it is asked each time
	Probe    func(*System) Answer
}

// Row returns an answer as check prints it.
func (a *Ability) Row(got Answer) api.CheckRow {
	row := api.CheckRow{Name: a.Name, For: a.For, Required: a.Required, Verdict: got.Verdict, Detail: got.Detail}
	if got.Verdict != api.Yes {
		row.Lost, row.Cure = a.Lost, a.Cure
		if got.Cure != "" {
			row.Cure = got.Cure
		}
	}
	return row
}

// System is the host that is probed. Files are read from Files, so that a test
// can show another host; system calls go to the kernel that runs.
type System struct {
	Files   fs.FS  // the host's root directory
	Release string // of its kernel, as uname -r prints it
	Data    string // where guests' data lies; need not exist yet

	mu      sync.Mutex
	answers map[*Ability]*answer
}

// answer is what is known of one ability.
type answer struct {
	mu    sync.Mutex // held while it is asked
	known bool       // to be a yes
	Answer
}

// Here returns the host that we run on, the same to all who ask.
var Here = sync.OnceValue(func() *System {
	s := &System{Files: os.DirFS("/"), Data: "/var/lib/vservers"}
	var u unix.Utsname
	if unix.Uname(&u) == nil { // it fails for a bad address only
		s.Release = unix.ByteSliceToString(u.Release[:])
	}
	return s
})

// HereWith returns the host that we run on, with guests' data in another place.
func HereWith(data string) *System {
	return &System{Files: Here().Files, Release: Here().Release, Data: data}
}

// Ask returns the host's answer.
func (s *System) Ask(a *Ability) Answer {
	if a.Changes {
		return s.try(a)
	}
	s.mu.Lock()
	if s.answers == nil {
		s.answers = map[*Ability]*answer{}
	}
	got := s.answers[a]
	if got == nil {
		got = &answer{}
		s.answers[a] = got
	}
	s.mu.Unlock()
	got.mu.Lock()
	defer got.mu.Unlock()
	if !got.known {
		got.Answer = s.try(a)
		got.known = got.Verdict == api.Yes
	}
	return got.Answer
}

// try probes an ability. Where the kernel loads no more modules, only a reboot helps.
func (s *System) try(a *Ability) Answer {
	got := a.Probe(s)
	if got.Verdict != api.No {
		return got
	}
	if lost := s.lostModules(a.Modules); lost != nil {
		return got.WithCure("kernel.modules_disabled keeps modules from being loaded: name %s in /etc/modules-load.d and reboot", strings.Join(lost, ", "))
	}
	return got
}

// lostModules returns those of the modules that this kernel has, has not loaded, and
// loads no more.
func (s *System) lostModules(modules []string) (lost []string) {
	if modules == nil {
		return nil
	}
	if disabled, err := s.Read("proc/sys/kernel/modules_disabled"); err != nil || disabled != "1" {
		return nil
	}
	files, err := s.Read("lib/modules/" + s.Release + "/modules.dep")
	if err != nil {
		return nil // it cannot be told which are built in
	}
	for _, name := range modules {
		if _, err := fs.Stat(s.Files, "sys/module/"+name); err != nil && strings.Contains(files, "/"+name+".ko") {
			lost = append(lost, name)
		}
	}
	return lost
}

// Ask returns the answer of the host that we run on.
func Ask(a *Ability) Answer { return Here().Ask(a) }

// Want returns an Error unless the host that we run on has the ability.
func Want(a *Ability) error {
	got := Ask(a)
	if got.Verdict == api.Yes {
		return nil
	}
	return &Error{a.Row(got)}
}

// Explain adds to the error of a try the first of the abilities that the host is
// without. It asks, and anew, only if the kernel may have meant that it lacks one.
func (s *System) Explain(err error, abilities ...*Ability) error {
	if err == nil || Tried(err).Verdict != api.No && !lacksModule(err) {
		return err
	}
	for _, a := range abilities {
		if got := s.try(a); got.Verdict == api.No {
			return fmt.Errorf("%w; this host lacks %w", err, &Error{a.Row(got)})
		}
	}
	return err
}

// lacksModule reports whether the error may be that of nf_tables or sock_diag without
// one of their modules. They answer ENOENT, which is not of a file there.
func lacksModule(err error) bool {
	file := (*fs.PathError)(nil)
	return errors.Is(err, unix.ENOENT) && !errors.As(err, &file)
}

// ErrMissing is what an Error is of an ability that the host certainly lacks.
var ErrMissing = errors.New("missing on this host")

// Error is an ability that a host lacks, or of which that could not be told.
type Error struct{ Row api.CheckRow }

func (e *Error) Error() string {
	text := e.Row.Name + ": "
	switch {
	case e.Row.Verdict == api.Unknown:
		return text + "could not be told: " + e.Row.Detail
	case e.Row.Cure != "":
		return text + e.Row.Detail + " (" + e.Row.Cure + ")"
	}
	return text + e.Row.Detail
}

// Is reports whether target is ErrMissing and the ability is.
func (e *Error) Is(target error) bool { return target == ErrMissing && e.Row.Verdict == api.No }

// Answer is what a probe found.
type Answer struct {
	Verdict api.Verdict
	Detail  string // what was seen
	Cure    string // instead of the ability's, where the probe knows better
}

// Yes returns an answer with what was seen.
func Yes(format string, args ...any) Answer {
	return Answer{Verdict: api.Yes, Detail: fmt.Sprintf(format, args...)}
}

// No returns an answer with what was seen.
func No(format string, args ...any) Answer {
	return Answer{Verdict: api.No, Detail: fmt.Sprintf(format, args...)}
}

// Unknown returns an answer with what was in the way.
func Unknown(format string, args ...any) Answer {
	return Answer{Verdict: api.Unknown, Detail: fmt.Sprintf(format, args...)}
}

// WithCure returns the answer with a cure of its own.
func (a Answer) WithCure(format string, args ...any) Answer {
	a.Cure = fmt.Sprintf(format, args...)
	return a
}

// Tried returns the answer that the error of a try gives. Errors by which a
// kernel refuses what it does not have or allow are a no; a full disk is not.
func Tried(err error) Answer {
	var errno unix.Errno
	switch {
	case err == nil:
		return Yes("")
	case errors.Is(err, ebpf.ErrNotSupported):
		return No("%v", err)
	case !errors.As(err, &errno):
		return Unknown("%v", err)
	}
	switch errno {
	case unix.EPERM, unix.EACCES:
		if os.Geteuid() != 0 {
			return Unknown("%v: only root can tell", err)
		}
		return No("%v", err)
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP, unix.ENODEV, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT:
		return No("%v", err)
	}
	return Unknown("%v", err)
}

// Read returns a file of the host without the newline at its end.
func (s *System) Read(name string) (string, error) {
	b, err := fs.ReadFile(s.Files, name)
	return strings.TrimSpace(string(b)), err
}
