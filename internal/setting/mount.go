package setting

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Mount is what a guest has mounted in addition to what every guest has: a directory or
// a file of the host's (Bind, RBind), a volume, or a tmpfs. It is a line of the guest's
// fstab.
type Mount struct {
	Type    string   `json:"type"`              // Bind, RBind, Tmpfs or Volume
	Source  string   `json:"source,omitempty"`  // a path on the host, or the name of a volume
	Target  string   `json:"target"`            // a path in the guest
	Options []string `json:"options,omitempty"` // sorted, without those that change nothing
}

// Types of mounts.
const (
	Bind   = "bind"
	RBind  = "rbind" // with what is mounted below the source
	Tmpfs  = "tmpfs"
	Volume = "volume" // a directory of the host's that outlives the guest
)

// Options of mounts that are not flags of the kernel's.
const (
	Optional     = "nofail" // a guest starts without it if the source is missing
	SharedVolume = "shared" // a volume of several guests that run at once
	IDMap        = "idmap"
)

// maxMounts bounds the mounts of a guest.
const maxMounts = 32

// flags are the options that any mount may have; implied ones change nothing. Every
// mount is nodev.
var (
	mountFlags = []string{"nosuid", "noexec", "noatime", "nodiratime", "strictatime"}
	implied    = []string{"", "defaults", "rw", "nodev", "suid", "exec", "async", "relatime", "auto", "nouser", Bind, RBind}
	tmpfsWords = []string{"size", "mode", "nr_inodes", "nr_blocks", "uid", "gid"}
)

// NewMount returns a mount of valid values; the error names the value at fault.
func NewMount(m Mount) (Mount, error) {
	var err error
	switch m.Type {
	case Bind, RBind:
		if !strings.HasPrefix(m.Source, "/") || m.Source != path.Clean(m.Source) || !printable(m.Source) {
			return m, fmt.Errorf("source: want an absolute path of the host, with no . or .. in it, have %q", m.Source)
		}
	case Volume:
		err = ValidVolume(m.Source)
	case Tmpfs:
		if m.Source != "" {
			return m, fmt.Errorf("source: a tmpfs has none, have %q", m.Source)
		}
	default:
		return m, fmt.Errorf("type: want bind, rbind, tmpfs or volume, have %q", m.Type)
	}
	if err == nil && (!strings.HasPrefix(m.Target, "/") || m.Target != path.Clean(m.Target) || m.Target == "/" || !printable(m.Target)) {
		err = fmt.Errorf("target: want an absolute path in the guest below /, with no . or .. in it, have %q", m.Target)
	}
	if err == nil && slices.Contains([]string{"/proc", "/sys", "/dev", "/dev/pts"}, m.Target) {
		err = fmt.Errorf("target: every guest needs its own %s: mount below it, or elsewhere", m.Target)
	}
	if err != nil {
		return m, err
	}
	var options []string
	for _, o := range m.Options {
		if slices.Contains(implied, o) {
			continue
		}
		if err := m.checkOption(o); err != nil {
			return m, err
		}
		options = append(options, o)
	}
	slices.Sort(options)
	m.Options = slices.Compact(options)
	return m, nil
}

func (m Mount) checkOption(o string) error {
	key, value, valued := strings.Cut(o, "=")
	bind := m.Type == Bind || m.Type == RBind
	switch {
	case o == "dev":
		return errors.New("options: device nodes do not work on mounts of a guest (see devices): remove dev")
	case o == "ro", slices.Contains(mountFlags, o):
		return nil
	case bind && o == Optional, m.Type == Volume && o == SharedVolume:
		return nil
	case o == Optional: // what cannot be missing
		return nil
	case bind && key == IDMap:
		_, _, err := ParseIDMap(value)
		return err
	case m.Type == Tmpfs && valued && slices.Contains(tmpfsWords, key):
		if !isTmpfsValue(value) {
			return fmt.Errorf("options: %s: %q is not a size or number (as 64m or 1777)", key, value)
		}
		return nil
	}
	return fmt.Errorf("options: %q is unknown here: remove it", o)
}

// isTmpfsValue accepts numbers, octal modes, sizes and percentages; the kernel refuses the
// rest at the start.
func isTmpfsValue(s string) bool {
	digits := strings.TrimRight(s, "kKmMgG%")
	return isDigits(digits) && len(s)-len(digits) <= 1
}

// ValidVolume returns an error for a name that no volume can have.
func ValidVolume(s string) error {
	bad := func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-')
	}
	if s == "" || len(s) > 63 || strings.ContainsFunc(s, bad) || strings.IndexByte("_.-", s[0]) >= 0 {
		return fmt.Errorf("volume: want a name of at most 63 letters, digits, _ . -, have %q", s)
	}
	return nil
}

func printable(s string) bool {
	return len(s) < 4096 && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// String returns the line of fstab(5).
func (m Mount) String() string {
	source, kind, options := m.Source, m.Type, m.Options
	switch m.Type {
	case Bind, RBind:
		kind, options = "none", append([]string{m.Type}, options...)
	case Tmpfs:
		source = "none"
	}
	if len(options) == 0 {
		options = []string{"defaults"}
	}
	return strings.Join([]string{escape.Replace(source), escape.Replace(m.Target), kind, strings.Join(options, ","), "0", "0"}, " ")
}

// escape encodes what fstab(5) separates fields and comments by.
var escape = strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`, "#", `\043`)

// An IDRange maps Count ids on disk, from Disk on, to those of the guest from Guest on.
type IDRange struct{ Disk, Guest, Count int }

// ParseIDMap parses the value of idmap= as podman-run(1) writes it, relative to the
// guest: "uids=1000-33-1#2000-0-1;gids=1000-33-1". Without a value, ids are those on
// disk.
func ParseIDMap(s string) (uids, gids []IDRange, err error) {
	if s == "" {
		return nil, nil, nil
	}
	const want = "idmap: want uids=DISK-GUEST-COUNT, more of them after #, and gids=… after ;, as uids=1000-33-1;gids=1000-33-1"
	for part := range strings.SplitSeq(s, ";") {
		key, list, _ := strings.Cut(part, "=")
		to := map[string]*[]IDRange{"uids": &uids, "gids": &gids}[key]
		if to == nil || *to != nil {
			return nil, nil, fmt.Errorf("%s, have %q", want, s)
		}
		for text := range strings.SplitSeq(list, "#") {
			r, ok := parseIDRange(strings.TrimPrefix(text, "@"))
			if !ok || len(*to) == 32 {
				return nil, nil, fmt.Errorf("%s, have %q", want, s)
			}
			for _, other := range *to {
				if r.Disk < other.Disk+other.Count && other.Disk < r.Disk+r.Count || r.Guest < other.Guest+other.Count && other.Guest < r.Guest+r.Count {
					return nil, nil, fmt.Errorf("idmap: two ranges of %s overlap", part)
				}
			}
			*to = append(*to, r)
		}
	}
	if uids == nil || gids == nil {
		return nil, nil, fmt.Errorf("idmap: uids and gids belong together, have %q", s)
	}
	return uids, gids, nil
}

func parseIDRange(s string) (r IDRange, ok bool) {
	fields := strings.Split(s, "-")
	if len(fields) != 3 {
		return r, false
	}
	for i, to := range []*int{&r.Disk, &r.Guest, &r.Count} {
		n, err := strconv.ParseUint(fields[i], 10, 31)
		if err != nil {
			return r, false
		}
		*to = int(n)
	}
	const ids = 1 << 16 // of a guest
	return r, r.Count > 0 && r.Guest+r.Count <= ids
}

// Option returns the value of an option, "" for one without.
func (m Mount) Option(name string) (value string, ok bool) {
	for _, o := range m.Options {
		if key, value, _ := strings.Cut(o, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// mounts is the value of the rows mounts and volumes, which share the guest's fstab.
type mounts struct {
	at[[]Mount]
	volumes bool
}

func (m mounts) parse(*Guest, string) error      { return errors.ErrUnsupported }
func (m mounts) read(*Guest, Tree, string) error { return errors.ErrUnsupported }
func (m mounts) content(*Guest) string           { return "" }
func (m mounts) same(a, b *Guest) bool           { return slices.Equal(texts(*m.at(a)), texts(*m.at(b))) }

func (m mounts) text(g *Guest) string {
	var list []string
	for _, mount := range *m.at(g) {
		list = append(list, mount.people())
	}
	return strings.Join(list, ", ")
}

// people writes a mount as the options of podman do.
func (m Mount) people() string {
	words := []string{m.Source, m.Target}
	switch m.Type {
	case Tmpfs:
		words[0] = Tmpfs
	case RBind:
		words = append(words, RBind)
	}
	return strings.Join(append(words, m.Options...), ":")
}

func (m mounts) check(g *Guest) error {
	list := *m.at(g)
	if len(list) > maxMounts {
		return fmt.Errorf("%d of them, at most %d are possible", len(list), maxMounts)
	}
	seen := map[string]bool{}
	for _, mount := range list {
		if m.volumes != (mount.Type == Volume) {
			return fmt.Errorf("%s: its type is %s", mount.Target, mount.Type)
		}
		valid, err := NewMount(mount)
		if err != nil {
			return fmt.Errorf("%s: %w", mount.Target, err)
		}
		if valid.String() != mount.String() {
			return fmt.Errorf("%s: options %v want another order", mount.Target, mount.Options)
		}
		if m.volumes && seen[mount.Source] {
			return fmt.Errorf("volume %s is mounted twice", mount.Source)
		}
		seen[mount.Source] = true
	}
	return nil
}

// The rows that share a guest's fstab.
var (
	mountValue  = mounts{func(g *Guest) *[]Mount { return &g.Mounts }, false}
	volumeValue = mounts{func(g *Guest) *[]Mount { return &g.Volumes }, true}

	mountsRow = &Row{
		Key: "mounts", Form: Block, Plan: "mounts",
		Doc: "directories and files of the host, and tmpfs: a list of `{source: /srv/www, target: /var/www}`, read-only without `options: [rw]` ([storage](storage.md))", Default: "none",
		schema: `"type": "array", "items": { "type": "object", "additionalProperties": false, "patternProperties": { "^x-": {} }, "required": ["target"], "properties": {` +
			` "type": { "enum": ["bind", "rbind", "tmpfs"] }, "source": { ` + oneText + ` }, "target": { ` + oneText + ` }, "options": { ` + someTexts + ` }, "idmap": { ` + oneText + ` } } }`,
		value: mountValue, check: mountValue.check,
	}
	volumesRow = &Row{
		Key: "volumes", Form: Block, Plan: "volumes",
		Doc: "directories that outlive the guest: a mapping of names to places, `{data: /var/lib/postgresql}` ([storage](storage.md#volumes))", Default: "none",
		schema: `"type": "object", "patternProperties": { "^x-": {} }, "additionalProperties": { "anyOf": [{ ` + oneText + ` }, { "type": "object", "additionalProperties": false,` +
			` "patternProperties": { "^x-": {} }, "required": ["target"], "properties": { "target": { ` + oneText + ` }, "shared": { "type": "boolean" } } }] }`,
		value: volumeValue, check: volumeValue.check,
	}
)
