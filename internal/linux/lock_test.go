package linux

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func locked(t *testing.T, lock *Lock, err error) *Lock {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := LockFile(t.Context(), path)
	locked(t, first, err)
	if _, err := TryLockFile(path); !errors.Is(err, ErrLocked) {
		t.Errorf("a lock that somebody has: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error)
	go func() {
		_, err := LockFile(ctx, path)
		given <- err
	}()
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was called off: %v", err)
	}

	first.Unlock() // the abandoned wait releases the lock once it has it
	second, err := LockFile(t.Context(), path)
	locked(t, second, err).Unlock()
}

func TestLockOfAFileThatWasRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := TryLockFile(path)
	locked(t, first, err)
	type result struct {
		lock *Lock
		err  error
	}
	got := make(chan result)
	go func() {
		l, err := LockFile(t.Context(), path)
		got <- result{l, err}
	}()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first.Unlock()
	r := <-got
	defer locked(t, r.lock, r.err).Unlock()
	if _, err := TryLockFile(path); !errors.Is(err, ErrLocked) {
		t.Errorf("the file that is there now is not the one that is locked: %v", err)
	}
}

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if _, err := TryLockDir(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := TryLockDir(dir)
	locked(t, first, err)
	if _, err := TryLockDir(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a lock that somebody has: %v", err)
	}
	gone := make(chan error)
	go func() {
		_, err := LockDir(t.Context(), dir)
		gone <- err
	}()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	first.Unlock()
	if err := <-gone; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that was removed meanwhile: %v", err)
	}
}

func TestSharedLocks(t *testing.T) {
	dir := t.TempDir()
	one, err := ShareDir(t.Context(), dir)
	one = locked(t, one, err)
	two, err := ShareDir(t.Context(), dir)
	two = locked(t, two, err)
	one.Unlock()
	if _, err := TryLockDir(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("while one of two still holds it: %v", err)
	}
	two.Unlock()
	alone, err := LockDir(t.Context(), dir)
	alone = locked(t, alone, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := ShareDir(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shared with one who holds it alone: %v", err)
	}
	alone.Unlock()
}

func TestBorrowedLocks(t *testing.T) {
	dir := t.TempDir()
	path, socket := filepath.Join(dir, "lock"), filepath.Join(dir, "lent")
	lender, err := LockFile(t.Context(), path)
	locked(t, lender, err)
	refused := func(what, path string) {
		t.Helper()
		if _, _, err := Borrow(path, socket); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("nobody lends it", path)
	own, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	end, err := (&Lock{File: own}).Lend(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	refused("a descriptor of the file that does not hold the lock", path)
	if err := end(); err != nil {
		t.Error(err)
	}
	refused("it is not lent any more", path)
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // as of one that was killed
		t.Fatal(err)
	}
	refused("the lender was killed", path)
	if _, err := lender.Lend(socket, make([]byte, maxNote+1)); err == nil {
		t.Error("a note that no borrower could read")
	}
	end, err = lender.Lend(socket, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	refused("the lock of another file", filepath.Join(dir, "other"))
	borrowed, note, err := Borrow(path, socket)
	locked(t, borrowed, err).Unlock()
	if string(note) != "hello" {
		t.Errorf("the note is %q", note)
	}
	if _, err := TryLockFile(path); !errors.Is(err, ErrLocked) {
		t.Errorf("given back, and the lender does not hold it any more: %v", err)
	}
	borrowed, _, err = Borrow(path, socket)
	locked(t, borrowed, err)
	lender.Leave()
	lender.Unlock()
	if err := end(); err != nil {
		t.Error(err)
	}
	if _, err := TryLockFile(path); !errors.Is(err, ErrLocked) {
		t.Errorf("the lender is gone, and the borrower does not hold it: %v", err)
	}
	borrowed.Unlock()
	last, err := TryLockFile(path)
	locked(t, last, err).Unlock()
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("it leaves %v", left)
	}
}
