package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/lab"
)

// labsDir is on a real filesystem: guests' layers cannot be on an overlayfs.
const labsDir = "/var/lib/vsfleet-e2e"

// Programs of the tests: copies that no build replaces while they run.
var (
	binDir  string
	vsfleet string
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == lab.InitCommand {
		os.Exit(lab.InitMain(os.Args[2:])) // lab.Exec starts us in a host
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "end-to-end tests:", err)
		code = 1
	}
	os.Exit(code)
}

// lockLabs makes the directory of the labs and locks it. Labs have fixed names,
// so that the next run clears what a killed one left; two runs at once would
// clear each other, so they wait.
func lockLabs() (*os.File, error) {
	for {
		if err := os.MkdirAll(labsDir, 0o700); err != nil {
			return nil, err
		}
		lock, err := os.Open(labsDir)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			return nil, err
		}
		ours, err := lock.Stat()
		if err != nil {
			return nil, err
		}
		if there, err := os.Stat(labsDir); err == nil && os.SameFile(ours, there) {
			return lock, nil
		}
		lock.Close() // the run before removed it
	}
}

func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("they make hosts and guests: run them as root")
	}
	lock, err := lockLabs()
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	defer os.Remove(labsDir) // fails if a lab is left, which was reported

	if binDir, err = os.MkdirTemp("", "vsfleet-e2e-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(binDir)
	if err := build(); err != nil {
		return 1, err
	}
	left, err := filepath.Glob(labsDir + "/*")
	if err != nil {
		return 1, err
	}
	for _, dir := range left {
		if out, err := exec.Command(vsfleet, "lab", "down", "--dir", dir).CombinedOutput(); err != nil {
			return 1, fmt.Errorf("clear the lab of an earlier run: %w: %s", err, out)
		}
	}

	before, err := takeSnapshot()
	if err != nil {
		return 1, err
	}
	code = m.Run()
	after, err := takeSnapshot()
	if err != nil {
		return 1, err
	}
	return code, before.compare(after)
}

// build makes bin/vsfleet, if it is not up to date, and takes a copy.
func build() error {
	vsfleet = filepath.Join(binDir, "vsfleet")
	cmd := exec.Command("make", "--silent", "--no-print-directory", "build")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	program, err := os.ReadFile("../../bin/vsfleet")
	if err != nil {
		return err
	}
	return os.WriteFile(vsfleet, program, 0o755)
}
