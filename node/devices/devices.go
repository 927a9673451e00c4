package devices

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
)

// Node is a device of the host's.
type Node struct {
	Mode         uint32 // type and permissions, as the host's node has them
	Major, Minor uint32
	Read, Write  bool // what a guest may do with it
}

// Stat returns the device that a path of the host's leads to.
func Stat(path string) (n Node, err error) {
	info, err := os.Stat(path) // over links, as in /dev/disk/by-id: the host's /dev is its root's
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return n, fmt.Errorf("%w on the host (is its module loaded?)", unix.ENOENT)
		}
		return n, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeDevice == 0 {
		return n, fmt.Errorf("%s is not a device", path)
	}
	return Node{Mode: st.Mode & (unix.S_IFMT | 0o777), Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, nil
}

// rule allows access to the devices from first to last of a major number; last -1 means
// all.
type rule struct {
	kind        int32
	major       uint32
	first, last int64
	access      int32
}

// The kernel's numbers (struct bpf_cgroup_dev_ctx).
const (
	block, char        = 1, 2
	mknod, read, write = 1, 2, 4
)

// everybody's are the devices of every guest: null, zero, full, random and urandom; tty
// and ptmx; pseudoterminals; and the whiteouts of overlayfs, which are no devices.
var everybodys = []rule{
	{char, 1, 3, 3, read | write}, {char, 1, 5, 5, read | write}, {char, 1, 7, 9, read | write},
	{char, 5, 0, 0, read | write}, {char, 5, 2, 2, read | write},
	{char, 136, 0, -1, read | write}, {char, 137, 0, -1, read | write}, {char, 138, 0, -1, read | write}, {char, 139, 0, -1, read | write},
	{char, 140, 0, -1, read | write}, {char, 141, 0, -1, read | write}, {char, 142, 0, -1, read | write}, {char, 143, 0, -1, read | write},
	{char, 0, 0, 0, mknod},
}

// Attach confines a new cgroup to the devices of every guest and to these.
func Attach(cgroup *os.File, nodes []Node) error {
	p, err := plain()
	if len(nodes) > 0 && err == nil {
		rules := slices.Clone(everybodys)
		for _, n := range nodes {
			r := rule{char, n.Major, int64(n.Minor), int64(n.Minor), 0}
			if n.Mode&unix.S_IFMT == unix.S_IFBLK {
				r.kind = block
			}
			if n.Read {
				r.access |= read
			}
			if n.Write {
				r.access |= write
			}
			rules = append(rules, r)
		}
		if p, err = load(rules); err == nil {
			defer p.Close()
		}
	}
	if err == nil {
		err = bpf.Attach(int(cgroup.Fd()), p, uint32(ebpf.AttachCGroupDevice))
	}
	if err != nil {
		return fmt.Errorf("confine the guest to its devices: %w", err)
	}
	return nil
}

// plain is the program of guests without devices of their own, opened once.
var plain = sync.OnceValues(func() (bpf.FD, error) { return open(everybodys) })

// open returns a program that is pinned, to save the next vsnode the verifier.
func open(rules []rule) (bpf.FD, error) {
	code, err := bpf.Assemble(instructions(rules))
	if err != nil {
		return -1, err
	}
	sum := sha256.Sum256(code)
	pin := pins + hex.EncodeToString(sum[:8])
	p, err := bpf.Get(pin)
	if err == nil {
		return p, nil
	}
	if p, err = bpf.Load(uint32(ebpf.CGroupDevice), uint32(ebpf.AttachCGroupDevice), program, code); err != nil {
		return p, err
	}
	// Without a pin it works as well. Those of other versions are not needed any more.
	if err := linux.MountBPF(); err == nil && os.MkdirAll(filepath.Dir(pin), 0o700) == nil {
		old, _ := filepath.Glob(pins + "*")
		for _, path := range old {
			_ = os.Remove(path)
		}
		_ = bpf.Pin(p, pin)
	}
	return p, nil
}

const (
	program = "vs_devices"
	pins    = linux.BPFFS + "/vservers/devices_"
)

func load(rules []rule) (bpf.FD, error) {
	code, err := bpf.Assemble(instructions(rules))
	if err != nil {
		return -1, err
	}
	return bpf.Load(uint32(ebpf.CGroupDevice), uint32(ebpf.AttachCGroupDevice), program, code)
}

// instructions are, in C, for each rule:
//
//	if ((ctx->access_type & 0xffff) == kind && ctx->major == major && first <= ctx->minor && ctx->minor <= last &&
//	    !((ctx->access_type >> 16) & ~access))
//		return 1;
//
// and return 0 after the last.
func instructions(rules []rule) []bpf.Instruction {
	const allow = 1
	list := []bpf.Instruction{
		{Op: bpf.Load4, Dst: 2, Src: 1},
		{Op: bpf.MovX, Dst: 3, Src: 2},
		{Op: bpf.AndK, Dst: 3, Imm: 0xffff},
		{Op: bpf.RshK, Dst: 2, Imm: 16},
		{Op: bpf.Load4, Dst: 4, Src: 1, Off: 4},
		{Op: bpf.Load4, Dst: 5, Src: 1, Off: 8},
	}
	for _, r := range rules {
		one := []bpf.Instruction{{Op: bpf.JneK, Dst: 3, Imm: r.kind}, {Op: bpf.JneK, Dst: 4, Imm: int32(r.major)}}
		if r.last >= 0 {
			one = append(one, bpf.Instruction{Op: bpf.JltK, Dst: 5, Imm: int32(r.first)}, bpf.Instruction{Op: bpf.JgtK, Dst: 5, Imm: int32(r.last)})
		}
		one = append(one,
			bpf.Instruction{Op: bpf.MovX, Src: 2},
			bpf.Instruction{Op: bpf.AndK, Imm: ^r.access},
			bpf.Instruction{Op: bpf.JneK},
			bpf.Instruction{Op: bpf.Ja, To: allow})
		for i := range one {
			if one[i].To == 0 && one[i].Jumps() { // to the next rule
				one[i].Off = int16(len(one) - i - 1)
			}
		}
		list = append(list, one...)
	}
	return append(list,
		bpf.Instruction{Op: bpf.MovK},
		bpf.Instruction{Op: bpf.Exit},
		bpf.Instruction{Op: bpf.MovK, Imm: 1, At: allow},
		bpf.Instruction{Op: bpf.Exit},
	)
}
