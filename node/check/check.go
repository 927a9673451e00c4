package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/netctx"
)

// System is the host that is probed. Files are read from Files, so that a test
// can show another host; system calls go to the kernel that runs.
type System struct {
	Files   fs.FS  // the host's root directory
	Release string // of its kernel, as uname -r says
	Data    string // where guests' data lies; need not exist yet

	// listeners returns the services on all addresses.
	listeners func(context.Context) ([]netctx.Listener, error)

	// userns gives a user namespace that maps the ids 0 to 65535 to themselves:
	// the same one to all probes of a run.
	userns func() (*os.File, error)
}

// This is the host that we run on.
func This() (*System, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("read the kernel's version: %w", err)
	}
	return &System{
		Files:   os.DirFS("/"),
		Release: unix.ByteSliceToString(u.Release[:]),
		Data:    "/var/lib/vservers",

		listeners: netctx.Wildcards,
	}, nil
}

// Run probes the host that we run on.
func Run(ctx context.Context) (api.Check, error) {
	s, err := This()
	if err != nil {
		return api.Check{}, err
	}
	return s.Run(ctx)
}

// Run tries every feature of the table.
func (s *System) Run(ctx context.Context) (api.Check, error) {
	run := *s
	s = &run
	s.userns = sync.OnceValues(userNamespace)
	defer func() {
		if ns, err := s.userns(); err == nil {
			ns.Close()
		}
	}()
	s.removeLeftovers()
	var c api.Check
	for _, f := range features() {
		if err := ctx.Err(); err != nil {
			return api.Check{}, err
		}
		got := f.probe(s)
		row := api.CheckRow{Name: f.name, For: f.use, Required: f.required, Verdict: got.verdict, Detail: got.detail}
		if got.verdict != api.Yes {
			row.Lost, row.Cure = f.lost, f.cure
			if got.cure != "" {
				row.Cure = got.cure
			}
		}
		c.Rows = append(c.Rows, row)
	}
	return c, nil
}

// Missing says in one line what a host lacks without which no guest starts;
// nil if nothing.
func Missing(c api.Check) error {
	var missing []string
	for _, r := range c.Rows {
		if !r.Required || r.Verdict != api.No {
			continue
		}
		text := r.Name + ": " + r.Detail
		if r.Cure != "" {
			text += " (" + r.Cure + ")"
		}
		missing = append(missing, text)
	}
	if missing == nil {
		return nil
	}
	return errors.New("this host cannot run guests: " + strings.Join(missing, "; "))
}

// Status is the exit status of `vsnode check`: 0 if guests can run here, 1 if
// something that every guest needs is missing, 2 if that could not be told.
func Status(c api.Check) int {
	status := 0
	for _, r := range c.Rows {
		switch {
		case !r.Required:
		case r.Verdict == api.No:
			return 1
		case r.Verdict == api.Unknown:
			status = 2
		}
	}
	return status
}

// finding is what a probe found.
type finding struct {
	verdict api.Verdict
	detail  string
	cure    string // instead of the feature's, where the probe knows better
}

func yes(format string, args ...any) finding {
	return finding{verdict: api.Yes, detail: fmt.Sprintf(format, args...)}
}

func no(format string, args ...any) finding {
	return finding{verdict: api.No, detail: fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) finding {
	return finding{verdict: api.Unknown, detail: fmt.Sprintf(format, args...)}
}

func (f finding) withCure(format string, args ...any) finding {
	f.cure = fmt.Sprintf(format, args...)
	return f
}

// tried turns what a try came to into a finding. Errors by which a kernel says
// that it does not have or allow something are a no; a full disk is not.
func tried(err error) finding {
	var errno unix.Errno
	switch {
	case err == nil:
		return yes("")
	case errors.Is(err, ebpf.ErrNotSupported):
		return no("%v", err)
	case !errors.As(err, &errno):
		return unknown("%v", err)
	}
	switch errno {
	case unix.EPERM, unix.EACCES:
		if os.Geteuid() != 0 {
			return unknown("%v: only root can tell", err)
		}
		return no("%v", err)
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP, unix.ENODEV, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT:
		return no("%v", err)
	}
	return unknown("%v", err)
}

// read gives a file of the host, without the newline at its end.
func (s *System) read(name string) (string, error) {
	b, err := fs.ReadFile(s.Files, name)
	return strings.TrimSpace(string(b)), err
}
