package linux

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// NewMount makes a detached mount of a new filesystem (fsopen(2), fsconfig(2),
// fsmount(2)) with the given pairs of option and value; an option with the value "" is a
// flag, as ro. Errors have the filesystem's own words.
func NewMount(fstype string, attrs int, options ...string) (*os.File, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open filesystem %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	explain := func(err error) error {
		buf := make([]byte, 1024)
		var why []string
		for {
			n, rerr := unix.Read(fs, buf)
			if rerr != nil || n <= 0 {
				break
			}
			why = append(why, strings.TrimSpace(string(buf[:n])))
		}
		if len(why) == 0 {
			return err
		}
		return fmt.Errorf("%w (%s)", err, strings.Join(why, "; "))
	}
	for i := 0; i+1 < len(options); i += 2 {
		key, value := options[i], options[i+1]
		if value == "" {
			err = unix.FsconfigSetFlag(fs, key)
		} else {
			err = unix.FsconfigSetString(fs, key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: set %s=%s: %w", fstype, key, value, explain(err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("%s: %w", fstype, explain(err))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fmt.Errorf("%s: fsmount: %w", fstype, err)
	}
	return os.NewFile(uintptr(fd), fstype), nil
}
