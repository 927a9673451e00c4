package guest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Processes returns the processes of all running guests: which guest each is of.
func (h *Host) Processes(ctx context.Context) (map[int]Life, error) {
	lives, err := h.Lives(ctx)
	if err != nil {
		return nil, err
	}
	of := map[int]Life{}
	for _, l := range lives {
		_, cg, err := h.cgroup(l.Name)
		if err != nil {
			return nil, err
		}
		pids, err := cg.PIDs()
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			of[pid] = l
		}
	}
	return of, nil
}

// Which processes Signal sends a signal to, besides one by its number.
const (
	AllProcesses = 0
	AllButInit   = -1
	InitProcess  = 1
)

// Signal sends a signal to processes of a running guest: all, all but process 1,
// process 1, or one by its number on the host, which has to be the guest's. The numbers
// are checked after the kernel has been given hold of the process, so that a number that
// is used again never leads to another.
func (h *Host) Signal(name string, which int, sig unix.Signal) error {
	v, err := h.look(name)
	if err != nil {
		return fmt.Errorf("guest %s: %w", name, err)
	}
	pids := []int{which}
	switch which {
	case AllProcesses, AllButInit:
		if pids, err = v.cgroup.PIDs(); err != nil {
			return fmt.Errorf("guest %s: %w", name, err)
		}
	case InitProcess:
		pids[0] = v.initPID
	}
	for _, pid := range pids {
		if which == AllButInit && pid == v.initPID {
			continue
		}
		if err := v.signal(pid, sig); err != nil && (which != AllProcesses && which != AllButInit || !errors.Is(err, unix.ESRCH)) {
			return fmt.Errorf("guest %s: process %d: %w", name, pid, err)
		}
	}
	return nil
}

func (v view) signal(pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := v.cgroup.Of(pid); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return unix.ESRCH
		}
		return fmt.Errorf("it is not the guest's: %w", err)
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// UTS returns what uname(2) tells the programs of a running guest.
func (h *Host) UTS(name string) (u unix.Utsname, err error) {
	err = h.inUTS(name, func() error { return unix.Uname(&u) })
	return u, err
}

// SetUTS sets the hostname and the NIS domain of a running guest until its restart; an
// empty one stays.
func (h *Host) SetUTS(name, hostname, domain string) error {
	return h.inUTS(name, func() error {
		if hostname != "" {
			if err := unix.Sethostname([]byte(hostname)); err != nil {
				return fmt.Errorf("set hostname %q: %w", hostname, err)
			}
		}
		if domain != "" {
			if err := unix.Setdomainname([]byte(domain)); err != nil {
				return fmt.Errorf("set domain name %q: %w", domain, err)
			}
		}
		return nil
	})
}

// inUTS calls f on a thread in the UTS namespace of a running guest.
func (h *Host) inUTS(name string, f func() error) error {
	v, err := h.look(name)
	if err == nil {
		var fd int
		if fd, err = unix.PidfdOpen(v.initPID, 0); err == nil {
			defer unix.Close(fd)
			_, err = linux.OnOwnThread(func() (none struct{}, err error) {
				if _, err := v.cgroup.Of(v.initPID); err != nil {
					return none, err
				}
				if err := unix.Setns(fd, unix.CLONE_NEWUTS); err != nil {
					return none, fmt.Errorf("join its UTS namespace: %w", err)
				}
				return none, f()
			})
		}
	}
	if err != nil {
		return fmt.Errorf("guest %s: %w", name, err)
	}
	return nil
}
