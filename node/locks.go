package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// The lock of a person is a file that every lease looks at. It outlives sessions and
// reboots, and ends by itself.

func (h *Host) lockFile() string { return filepath.Join(h.Guests.DataDir, ".lock") }

// readLock returns the lock of a person that has not ended, or nil.
func (h *Host) readLock() (*api.HostLock, error) {
	b, err := os.ReadFile(h.lockFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var l api.HostLock
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s (to unlock the host, remove it): %w", h.lockFile(), err)
	}
	if !time.Now().Before(l.Until) {
		return nil, nil
	}
	return &l, nil
}

// Lock keeps all runs off the host until a time. The session must have the lease: no
// run is under way, then.
func (h *Host) Lock(_ context.Context, req api.Lock) error {
	if _, held := h.leased(); !held {
		return errors.New("the session does not have the host's lease")
	}
	now := time.Now().Truncate(time.Second)
	b, err := json.Marshal(api.HostLock{Run: req.Run, Owner: req.Owner, Reason: req.Reason, Since: now, Until: now.Add(req.For)})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(h.Guests.DataDir, 0o700); err != nil {
		return err
	}
	return linux.ReplaceFileSync(h.lockFile(), 0o600, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// Heard notes that the controller of this session has been heard, if that holds the
// lease: the time of the lease's file is its heartbeat.
func (h *Host) Heard() {
	h.lease.mu.Lock()
	defer h.lease.mu.Unlock()
	if h.lease.held != nil {
		now := time.Now()
		_ = os.Chtimes(h.lease.held.Name(), now, now) // only shown
	}
}

func (h *Host) leaseFile() string { return filepath.Join(h.Guests.RunDir, leaseName) }

// Locks returns who may change the host.
func (h *Host) Locks(context.Context) (locks api.Locks, err error) {
	if locks.Lock, err = h.readLock(); err != nil {
		return locks, err
	}
	pid, err := linux.LockHolder(h.leaseFile())
	if err != nil || pid == 0 {
		return locks, err
	}
	by, err := readHolder(h.leaseFile())
	if err != nil {
		return locks, err
	}
	locks.Lease = &by
	if st, err := os.Stat(h.leaseFile()); err == nil {
		locks.Heard = st.ModTime()
	}
	return locks, nil
}

// Unlock ends the lock of a person, and the vsnode of a run that holds the lease: its
// steps finish or are undone. If that takes longer than the request waits, the lease is
// still held, and the error says so.
func (h *Host) Unlock(ctx context.Context, req api.Unlock) (ended api.Unlocked, err error) {
	if ended.Lock, err = h.readLock(); err != nil {
		return ended, err
	}
	if err := os.Remove(h.lockFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ended, err
	}
	by, pidfd, err := h.leaseHolder()
	if err != nil || pidfd < 0 {
		return ended, err
	}
	defer unix.Close(pidfd)
	if by.Node == os.Getpid() {
		return ended, errors.New("this session itself holds the lease")
	}
	h.log.Write(program, fmt.Sprintf("run %s of %s (%s) is ended by lock release", by.Run, by.Owner, by.Reason))
	if err := linux.SignalStopped(pidfd, unix.SIGTERM); err != nil {
		return ended, fmt.Errorf("end vsnode, process %d: %w", by.Node, err)
	}
	over, err := linux.Poll(ctx, req.Wait, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN})
	if err == nil && !over {
		err = fmt.Errorf("run %s of %s was told to end, and its steps take longer than %s: it ends by itself when they are done", by.Run, by.Owner, req.Wait)
	}
	if err == nil {
		ended.Lease = &by
	}
	return ended, err
}

// leaseHolder returns the holder of the lease and a descriptor of its process, which is
// below 0 if nobody holds it. The process is the one that the kernel says has the lock,
// and the one that has written its name into the file.
func (h *Host) leaseHolder() (by api.Holder, pidfd int, err error) {
	pid, err := linux.LockHolder(h.leaseFile())
	if err != nil || pid == 0 {
		return by, -1, err
	}
	if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return by, -1, nil
		}
		return by, -1, fmt.Errorf("open process %d, which holds the lease: %w", pid, err)
	}
	// The number cannot belong to another process while we hold the descriptor: ask
	// again whether it is still the holder's.
	again, err := linux.LockHolder(h.leaseFile())
	if err == nil && again != pid {
		unix.Close(pidfd)
		return by, -1, nil
	}
	if err == nil {
		by, err = readHolder(h.leaseFile())
	}
	if err == nil && by.Node != pid {
		err = fmt.Errorf("process %d holds the lease, and is not the vsnode that noted itself there: end it yourself", pid)
	}
	if err != nil {
		unix.Close(pidfd)
		return by, -1, err
	}
	return by, pidfd, nil
}
