package guest

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// alwaysMounted are filesystems that every guest has; the fstab of an old tree lists
// them too.
var alwaysMounted = map[string]string{
	"/proc": "proc", "/sys": "sysfs", "/dev/pts": "devpts", "/dev/mqueue": "mqueue", "/sys/fs/cgroup": "cgroup",
}

// maxMounts limits the mounts of one fstab file.
const maxMounts = 32

// readFstab reads fstab(5) as util-vserver's secure-mount did: mount points are in the
// guest, sources on the host. It returns the bind mounts and tmpfs, and the lines that
// cannot be honoured.
func readFstab(file, text string) (mounts []procctx.Mount, list []api.Unread) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		where := file + ":" + strconv.Itoa(n)
		m, err := parseMount(f)
		switch {
		case err == nil && len(mounts) == maxMounts:
			err = fmt.Errorf("more than %d mounts", maxMounts)
			fallthrough
		case err != nil:
			list = append(list, api.Unread{File: where, Why: err.Error(), Refuses: true})
		case m != nil:
			m.Line = where
			mounts = append(mounts, *m)
		}
	}
	return mounts, list
}

// parseMount reads the fields of a line. It returns nil for a mount that every
// guest has anyway, or that mount -a skips.
func parseMount(f []string) (*procctx.Mount, error) {
	if len(f) < 3 {
		return nil, errors.New("want SOURCE PLACE TYPE OPTIONS")
	}
	source, place, fstype := unescape(f[0]), path.Clean("/"+unescape(f[1])), f[2]
	var options []string
	if len(f) > 3 {
		options = strings.Split(f[3], ",")
	}
	bind := fstype == "bind" || slices.Contains(options, "bind") || slices.Contains(options, "rbind")
	switch {
	case slices.Contains(options, "noauto"), fstype == "swap", fstype == "ignore":
		return nil, nil
	case alwaysMounted[place] != "" && (alwaysMounted[place] == fstype || place == "/sys/fs/cgroup" && fstype == "cgroup2"):
		if slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "hidepid=") && o != "hidepid=0" }) {
			return nil, errors.New("the guest's /proc is mounted without hidepid: take the option out, or mount it anew in the guest")
		}
		return nil, nil
	case place == "/":
		return nil, errors.New("a guest's root is what vdir leads to: mount it there on the host")
	case bind:
		m := &procctx.Mount{Source: source, Place: place, Recursive: slices.Contains(options, "rbind")}
		if !strings.HasPrefix(source, "/") || source != path.Clean(source) {
			return nil, fmt.Errorf("%s: want an absolute path of the host, with no . or .. in it", source)
		}
		return m, m.SetOptions(options)
	case fstype == "tmpfs":
		m := &procctx.Mount{Place: place}
		return m, m.SetOptions(options)
	}
	return nil, fmt.Errorf("a guest mounts no %s: mount %s on the host, and say here DIRECTORY %s none bind", fstype, source, place)
}

// unescape decodes the octal escapes that fstab(5) uses for blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}
