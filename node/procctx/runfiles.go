package procctx

import (
	"path"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RunFile is a file that a guest finds at its start.
type RunFile struct {
	Name    string // in /run, in /run/host or in a directory of that
	Mode    int
	Content []byte
}

// runFiles writes files to the guest's /run, which is mounted. The directory host is
// what systemd's container interface calls that of the container's manager.
func (s *script) runFiles(run cell, files []RunFile) {
	s.call("make /run/host", unix.SYS_MKDIRAT, run, "host", 0o755)
	file := s.cell() // for one after the other
	made := "host"
	for _, f := range files {
		if dir := path.Dir(f.Name); dir != "." && dir != made {
			s.call("make /run/"+dir, unix.SYS_MKDIRAT, run, dir, 0o700)
			made = dir
		}
		what := "/run/" + f.Name
		s.call("make "+what, unix.SYS_OPENAT, run, f.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600).result = file
		if len(f.Content) > 0 {
			s.call("write "+what, unix.SYS_WRITE, file, unsafe.Pointer(&f.Content[0]), len(f.Content)).min = len(f.Content)
		}
		s.call("chmod "+what, unix.SYS_FCHMOD, file, f.Mode)
		s.call("close "+what, unix.SYS_CLOSE, file)
	}
}
