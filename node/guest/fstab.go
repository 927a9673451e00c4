package guest

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/nearest"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// fstabFiles are the files that name a guest's mounts. vsnode writes the first.
var fstabFiles = []string{"fstab", "fstab.local", "fstab.remote"}

// alwaysMounted are filesystems that every guest has; the fstab of an old tree lists
// them too.
var alwaysMounted = map[string]string{
	"/proc": "proc", "/sys": "sysfs", "/dev/pts": "devpts", "/dev/mqueue": "mqueue", "/sys/fs/cgroup": "cgroup",
}

// maxMounts limits the mounts of one fstab file.
const maxMounts = 32

// tmpfsSize is the size of a tmpfs that names none: util-vserver's. The kernel's would be
// half of the memory.
const tmpfsSize = "16m"

// readMounts reads the mounts and volumes of a guest.
func (c *Config) readMounts(t *tree, p Paths) {
	for _, file := range fstabFiles {
		text, _ := t.read(file)
		lines, list := readFstab(file, text)
		c.Unread = append(c.Unread, list...)
		for _, l := range lines {
			if l.Type == setting.Volume {
				c.Guest.Volumes = append(c.Guest.Volumes, l.Mount)
			} else {
				c.Guest.Mounts = append(c.Guest.Mounts, l.Mount)
			}
			c.Mounts = append(c.Mounts, l.kernel(p))
		}
	}
}

// fstabLine is a line of an fstab that mounts something.
type fstabLine struct {
	setting.Mount
	where string // file and line
}

// readFstab reads fstab(5) as util-vserver's secure-mount did: mount points are in the
// guest, sources on the host. It returns the lines that mount something, and those that
// cannot be honoured.
func readFstab(file, text string) (mounts []fstabLine, list []api.Unread) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		where := file + ":" + strconv.Itoa(n)
		m, err := parseMount(f)
		if err == nil && m != nil && len(mounts) == maxMounts {
			err = fmt.Errorf("more than %d mounts", maxMounts)
		}
		switch {
		case err != nil:
			list = append(list, api.Unread{File: where, Why: err.Error(), Refuses: true})
		case m != nil:
			mounts = append(mounts, fstabLine{*m, where})
		}
	}
	return mounts, list
}

// parseMount reads the fields of a line. It returns nil for a mount that every
// guest has anyway, or that mount -a skips.
func parseMount(f []string) (*setting.Mount, error) {
	if len(f) < 3 {
		return nil, errors.New("want SOURCE PLACE TYPE OPTIONS")
	}
	source, place, fstype := unescape(f[0]), path.Clean("/"+unescape(f[1])), f[2]
	var options []string
	if len(f) > 3 {
		options = strings.Split(f[3], ",")
	}
	m := setting.Mount{Type: fstype, Source: source, Target: place, Options: options}
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
	case fstype == setting.RBind || slices.Contains(options, setting.RBind):
		m.Type = setting.RBind
	case fstype == setting.Bind || slices.Contains(options, setting.Bind):
		m.Type = setting.Bind
	case fstype == setting.Tmpfs:
		m.Source = ""
	case fstype != setting.Volume:
		return nil, wrongType(m)
	}
	m, err := setting.NewMount(m)
	return &m, err
}

// wrongType returns the error for a mount of no type that a guest may have. The word bind
// is an option of the type none.
func wrongType(m setting.Mount) error {
	words := []string{m.Type}
	if m.Type == "none" {
		words = m.Options
	}
	for _, w := range words {
		if near := nearest.Word(w, []string{setting.Bind, setting.RBind, setting.Tmpfs, setting.Volume}); near != "" {
			return fmt.Errorf("%q is unknown (did you mean %q?)", w, near)
		}
	}
	if m.Type == "none" {
		return errors.New("the type none needs the option bind or rbind")
	}
	return fmt.Errorf("guests do not mount filesystems of type %s: mount %s on the host, and write here DIRECTORY %s none bind", m.Type, m.Source, m.Target)
}

// unescape decodes the octal escapes that fstab(5) uses for blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}

// mountAttrs are the options that are flags of a mount.
var mountAttrs = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "noexec": unix.MOUNT_ATTR_NOEXEC,
	"noatime": unix.MOUNT_ATTR_NOATIME, "nodiratime": unix.MOUNT_ATTR_NODIRATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME,
}

// kernel translates the line. Every mount is nodev; a volume is nosuid too.
func (l fstabLine) kernel(p Paths) procctx.Mount {
	m := procctx.Mount{Line: l.where, Source: l.Source, Place: l.Target, Recursive: l.Type == setting.RBind, Attrs: unix.MOUNT_ATTR_NODEV}
	for _, o := range l.Options {
		key, value, valued := strings.Cut(o, "=")
		switch {
		case o == setting.Optional:
			m.Optional = true
		case key == setting.IDMap:
			uids, gids, _ := setting.ParseIDMap(value) // NewMount has checked it
			m.UIDs, m.GIDs = ranges(uids), ranges(gids)
		case l.Type == setting.Tmpfs && valued:
			m.Options = append(m.Options, key, value)
		default:
			m.Attrs |= mountAttrs[o]
		}
	}
	switch l.Type {
	case setting.Volume:
		m.Source = filepath.Join(resolved(p.DataDir), volumesName, l.Source) // sources have no links
		m.Attrs |= unix.MOUNT_ATTR_NOSUID
	case setting.Tmpfs:
		if !slices.Contains(m.Options, "size") && !slices.Contains(m.Options, "nr_blocks") {
			m.Options = append(m.Options, "size", tmpfsSize)
		}
	}
	return m
}

func ranges(list []setting.IDRange) (out []procctx.IDRange) {
	for _, r := range list {
		out = append(out, procctx.IDRange(r))
	}
	return out
}

// fstabOf returns the content of the fstab of g. If the files that t has say the same, that
// is the text that they have, with its comments; the bool reports it.
func fstabOf(g *api.Guest, t *tree) (text string, same bool) {
	var c Config
	c.readMounts(t, Paths{})
	if slices.EqualFunc(c.Guest.Mounts, g.Mounts, sameMount) && slices.EqualFunc(c.Guest.Volumes, g.Volumes, sameMount) {
		return "", true
	}
	for _, m := range slices.Concat(g.Mounts, g.Volumes) {
		text += m.String() + "\n"
	}
	return text, false
}

func sameMount(a, b setting.Mount) bool { return a.String() == b.String() }
