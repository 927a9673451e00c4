package quota

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"unsafe"
)

// changeIn tells this program to change a project and exit.
const changeIn = "VSFLEET_TEST_CHANGE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(changeIn); dir != "" {
		os.Exit(change(dir))
	}
	os.Exit(m.Run())
}

func change(dir string) int {
	flags, ferr := strconv.ParseUint(os.Args[1], 10, 32)
	id, ierr := strconv.ParseUint(os.Args[2], 10, 32)
	f, err := os.Open(dir)
	if err := errors.Join(ferr, ierr, err); err != nil {
		return 3
	}
	a := fsxattr{flags: uint32(flags), project: uint32(id)}
	if err := ioctl(int(f.Fd()), setAttr, unsafe.Pointer(&a)); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// inUserNamespace tries the change as the owner of the directory, root in a user
// namespace.
func inUserNamespace(t *testing.T, dir string, to fsxattr) error {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, strconv.Itoa(int(to.flags)), strconv.Itoa(int(to.project)))
	cmd.Env = []string{changeIn + "=" + dir}
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 0, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		t.Fatalf("it got nowhere: %s", out)
	}
	return err
}
