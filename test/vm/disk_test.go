package vm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// cacheDir has disks of machines that have never been booted, and of machines that
// have just been. It lies outside the checkout and may be removed.
const cacheDir = "/var/cache/vsfleet-test"

// diskDir is the directory of a suite's disk, named for what makes it.
func diskDir(suite string) (string, error) {
	script, err := os.ReadFile("build")
	if err != nil {
		return "", err
	}
	return filepath.Join(cacheDir, "vm-"+suite+"-"+digest(script)), nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// prepareDisk makes the disk of a suite, unless it is there, and removes those of other
// versions that nobody uses. The file is the disk's lock, which other runs may share.
func prepareDisk(suite string) (*os.File, error) {
	dir, err := diskDir(suite)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return nil, err
	}
	for {
		lock, err := lockDisk(dir, unix.LOCK_SH)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(dir); err == nil {
			return lock, nil
		}
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); err == nil {
			err = makeDisk(suite, dir, lock)
		}
		lock.Close() // and take it anew, shared
		if err != nil {
			return nil, err
		}
	}
}

// makeDisk makes the disk of a suite under its lock, unless somebody else was faster.
func makeDisk(suite, dir string, lock *os.File) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := buildDisk(suite, dir, lock); err != nil {
		return err
	}
	return removeOld(suite, dir)
}

func lockDisk(dir string, how int) (*os.File, error) {
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), how); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func buildDisk(suite, dir string, lock *os.File) error {
	fmt.Fprintf(os.Stderr, "making the disk of a %s host: %s\n", suite, dir)
	half := dir + ".new"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	build := exec.Command("./build", suite, half)
	build.ExtraFiles = []*os.File{lock} // held until it has really ended
	build.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("test/vm/build %s: %w\n%s", suite, err, out)
	}
	return os.Rename(half, dir)
}

func removeOld(suite, current string) error {
	all, err := filepath.Glob(filepath.Join(cacheDir, "vm-"+suite+"-*"))
	if err != nil {
		return err
	}
	for _, dir := range all {
		if strings.HasPrefix(dir, current) || strings.HasSuffix(dir, ".lock") {
			continue
		}
		lock, err := lockDisk(dir, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue // a run uses it
		}
		err = os.RemoveAll(dir)
		os.Remove(lock.Name())
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
