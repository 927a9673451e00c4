package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/network"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// notes record what a start did, and are kept until the stop. They never decide whether
// the guest runs; they record what has to be released. They are gone after a reboot,
// like everything they describe.
//
// They are kept twice: in a file, which is written before anything is done, and in an
// extended attribute of the guest's cgroup, which lives exactly as long as the cgroup.
// So a guest stays known if the file is deleted or damaged.
type notes struct {
	Started time.Time     `json:"started"`
	Boot    time.Duration `json:"boot,omitempty"` // the time of the start, since the host's boot
	Context int           `json:"context"`
	Done    bool          `json:"done,omitempty"` // the start was completed
	// PostStart means that the hooks of that name have not run yet.
	PostStart bool `json:"postStart,omitempty"`
	network.Notes
	// Root is the directory of the guest's own files, without links.
	Root string `json:"root,omitempty"`
	// Runs holds the settings the guest was started with, and their live changes since.
	Runs *api.Guest `json:"runs,omitempty"`
	// Enter holds what programs that enter get besides; older vsnodes did not note it.
	Enter *entry `json:"enter,omitempty"`
	// Ending is how the guest is stopped; older vsnodes did not note it.
	Ending *ending `json:"ending,omitempty"`
	// Described: the image below it is a description and objects, not a plain tree.
	Described bool `json:"described,omitempty"`

	recovered bool // not read from the file
}

// entry holds the settings that programs entering a guest get from the configuration it
// was started with. It is noted so that entering a guest does not read its
// configuration, and so that programs get what the guest's own processes have, not what
// was edited since.
type entry struct {
	procctx.Attributes
	Caps      procctx.CapSet `json:"caps"`
	NoNesting bool           `json:"nonesting,omitempty"`
	Raw       bool           `json:"raw,omitempty"`
	Shell     string         `json:"shell,omitempty"`
}

// enterNotes is the part of the notes that programs entering a guest need. It is read by
// itself: when package json first meets a type it takes a tenth of an exec for all the
// settings in notes.
type enterNotes struct {
	Context int `json:"context"`
	network.Place
	Enter     *entry `json:"enter"`
	recovered bool
}

// readEnterNotes is like readNotes.
func (h *Host) readEnterNotes(name string) (n enterNotes, err error) {
	b, err := linux.ReadFile(h.notesFile(name))
	if err == nil && json.Unmarshal(b, &n) == nil && n.Context != 0 && n.Enter != nil {
		return n, nil
	}
	all, err := h.readNotes(name)
	return enterNotes{all.Context, all.Place, all.Enter, all.recovered}, err
}

// configuredEntry returns what programs that enter the guest get if that was not noted.
func (h *Host) configuredEntry(name string) (*entry, error) {
	c, err := h.Read(name)
	if st, nerr := h.readNotes(name); nerr == nil && st.Runs != nil {
		c.NoNesting, c.Network.Raw = st.Runs.NoNesting, st.Runs.Network.Raw
	}
	e := c.entry()
	return &e, err
}

func (c Config) entry() entry {
	return entry{c.Attributes, c.Caps, c.NoNesting, c.Network.Raw, c.Shell}
}

// notesAttr needs CAP_SYS_ADMIN of the initial user namespace to be read or
// written (xattr(7), "Trusted extended attributes"): no guest can.
const notesAttr = "trusted.vservers"

// readNotes returns the notes of a guest's start: from the file; if that is missing or
// damaged, from the cgroup; and otherwise rebuilt from what the kernel shows.
// fs.ErrNotExist means that the guest was not started.
func (h *Host) readNotes(name string) (notes, error) {
	s, err := h.fileNotes(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errDamaged) {
		return s, err
	}
	absent := errors.Is(err, fs.ErrNotExist)
	_, cg, err := h.cgroup(name)
	if err != nil && !errors.Is(err, cgroup.ErrNotMounted) {
		return notes{}, err
	}
	if err == nil {
		if s, err := parseNotes(attribute(string(cg), notesAttr)); err == nil {
			s.recovered = true
			return s, nil
		}
	}
	owner, err := cg.Owner()
	if absent && errors.Is(err, fs.ErrNotExist) {
		return notes{}, fmt.Errorf("no guest %s was started: %w", name, fs.ErrNotExist)
	}
	return h.rebuiltNotes(name, cg, procctx.ContextOf(owner))
}

// notesCache holds the notes that this vsnode has read. Their files are replaced and
// never written to, so the same file has the same content.
type notesCache struct {
	mu     sync.Mutex
	states map[string]noted
}

type noted struct {
	sum uint64
	notes
}

// fileNotes returns the notes in a guest's file.
func (h *Host) fileNotes(name string) (notes, error) {
	x := &h.notesCache
	now := statSum(unix.AT_FDCWD, h.RunDir, filepath.Base(h.notesFile(name)), time.Time{})
	x.mu.Lock()
	n, there := x.states[name]
	x.mu.Unlock()
	if there && n.sum == now && now != 0 {
		s := n.notes
		return s, nil
	}
	b, err := linux.ReadFile(h.notesFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		x.mu.Lock()
		delete(x.states, name)
		x.mu.Unlock()
	}
	if err != nil {
		return notes{}, err
	}
	s, err := parseNotes(b)
	if err != nil {
		return s, errDamaged
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.states == nil {
		x.states = map[string]noted{}
	}
	x.states[name] = noted{now, s}
	return s, nil
}

var errDamaged = errors.New("damaged")

func parseNotes(b []byte) (notes, error) {
	var s notes
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	if s.Context == 0 {
		return s, errors.New("no context")
	}
	if s.Runs != nil && s.Enter != nil {
		s.Runs.Nice = s.Enter.Nice // older vsnodes noted it only there
	}
	return s, nil
}

func attribute(path, name string) []byte {
	b := make([]byte, 64<<10) // XATTR_SIZE_MAX
	n, err := unix.Getxattr(path, name, b)
	if err != nil {
		return nil // as good as damaged
	}
	return b[:n]
}

// rebuiltNotes returns what can be known without notes: the context from the owner of
// the cgroup (0: there is none), the network from the namespace of process 1, and the
// rest from the configuration, if that has this context.
func (h *Host) rebuiltNotes(name string, cg cgroup.Dir, xid int) (notes, error) {
	s := notes{Context: xid, Done: true, recovered: true}
	c, cerr := h.Read(name)
	if xid == 0 {
		s.Context = c.Context
	}
	if cerr == nil && c.Context == s.Context {
		s.Runs, s.Root = &c.Guest, resolved(c.Root)
		s.Notes = s.mode().Assumed(c.Network)
	}
	pid, err := cg.Init()
	if err != nil || pid == 0 {
		return s, err
	}
	private, err := network.HasOwnNamespace(pid)
	if err != nil {
		return s, err
	}
	if s.Boot, err = linux.ForkTime(pid); err != nil {
		return s, err
	}
	if private != s.NAT {
		s.Runs, s.Notes = nil, network.Notes{Place: network.Place{NAT: private}} // edited since
	}
	return s, nil
}

// writeNotes writes the notes to the file, and to the cgroup if there is one.
func (h *Host) writeNotes(name string, cg cgroup.Dir, n notes) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := linux.ReplaceFile(h.notesFile(name), b, 0o600); err != nil {
		return fmt.Errorf("note what is started: %w", err)
	}
	return setAttribute(cg, b)
}

// writeAttribute writes the notes to the guest's cgroup only; the file already has
// them.
func (n notes) writeAttribute(cg cgroup.Dir) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return setAttribute(cg, b)
}

func setAttribute(cg cgroup.Dir, b []byte) error {
	err := unix.Setxattr(string(cg), notesAttr, b, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) { // the cgroup is made after the first note
		return fmt.Errorf("note what is started on cgroup %s: %w", cg, err)
	}
	return nil
}

// startTime returns when the guest was started, by the clock as it is set now; whether
// the clock was set since is unknown.
func (s notes) startTime() time.Time {
	if s.Boot == 0 {
		return s.Started
	}
	return time.Now().Add(s.Boot - linux.SinceBoot()).Truncate(time.Millisecond)
}

// notedNames returns the guests that have notes in RunDir.
func (h *Host) notedNames() ([]string, error) {
	dir, files, err := linux.Names(h.RunDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for _, file := range files {
		if name, ok := strings.CutSuffix(file, ".state"); ok && len(name) > 1 && name[0] == '.' {
			names = append(names, name[1:])
		}
	}
	return names, nil
}
