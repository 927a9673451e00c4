package procctx

import (
	"fmt"
	"os"
	"syscall"
)

// hiddenBinary makes sure that nobody but the host's root can run or read the
// program that we are. Until its execve a process on its way into a guest is a
// copy of us: to the kernel, which opens what a script of the guest's names as its
// interpreter, /proc/self/exe is our own file then. "#!/proc/self/exe" ran it in
// the guest, which could so hold it open (CVE-2019-5736). The guest's root has no
// privileges over a file that belongs to the host's.
func hiddenBinary() error {
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("look at vsnode's own file: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && st.Uid == 0 && info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		path = "vsnode"
	}
	return fmt.Errorf("%s is not root's alone (mode %04o): a guest could run it (CVE-2019-5736); chown root %s && chmod 700 %s", path, info.Mode().Perm(), path, path)
}
