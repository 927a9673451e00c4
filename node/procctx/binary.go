package procctx

import (
	"fmt"
	"os"
	"syscall"
)

// checkBinaryHidden returns an error unless only the host's root can run or read
// vsnode's own file. Until its execve, a process on its way into a guest is a copy
// of vsnode: when the kernel opens the interpreter that a script of the guest names,
// /proc/self/exe is vsnode's file. A script with "#!/proc/self/exe" would run it in
// the guest, which could then hold it open (CVE-2019-5736). The guest's root has no
// privileges over a file that belongs to the host's root.
func checkBinaryHidden() error {
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
