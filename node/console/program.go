package console

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
)

const (
	program = "vs_console"
	pins    = linux.BPFFS + "/vservers/console_"
)

// maps of the program, in the order in which it first uses them: as the kernel lists them.
type maps [3]bpf.FD

const (
	scratch = iota // one value: scratch space, and a part without anything in it
	heads          // of each cgroup, by its id: struct head
	parts          // of the rings, by key
)

func (m maps) Close() {
	for _, fd := range m {
		if fd > 0 {
			fd.Close()
		}
	}
}

// A head is what the kernel keeps for a console from its beginning, as long as the cgroup
// is there.
type head struct {
	total   uint64 // number of bytes ever written
	boot    uint64 // as in key
	context uint32
	_       uint32
}

// A key is that of a part of a ring, which is made when it is first written to. Its value
// is a word, partSize bytes of the ring, and room for what a write puts behind them, as a
// write does not wrap, and for the NUL that the kernel puts after a value. What is behind
// belongs at the beginning of the next part; the word has its length in the lower 16 bits,
// and above them the number of the part since the beginning.
type key struct {
	boot          uint64
	context, part uint32
}

const (
	writeSize = 4 << 10 // the most that one write takes: the rest is another write
	wordSize  = 8
	partSize  = 12000
	partCount = 6
	valueSize = wordSize + partSize + writeSize + 8 // with what the kernel adds, within 16 KiB
	maxParts  = 1 << 15

	emptyAt     = writeSize + 8 // in the value of scratch
	scratchSize = emptyAt + valueSize
)

// open returns the program that all guests share. It is pinned, to save the next vsnode
// the verifier; its maps live as long as it does, by its pin and on cgroups.
func open() (bpf.FD, error) {
	p, err := pinned()
	if err == nil {
		return p, nil
	}
	if p, err = load(); err != nil {
		return p, err
	}
	// Without a pin it works as well: this guest then has maps of its own. Programs of
	// other versions are not needed any more.
	if err := linux.MountBPF(); err == nil && os.MkdirAll(filepath.Dir(pins), 0o700) == nil {
		old, _ := filepath.Glob(pins + "*")
		for _, path := range old {
			if path != pin() {
				_ = os.Remove(path)
			}
		}
		_ = bpf.Pin(p, pin())
	}
	return p, nil
}

func pinned() (bpf.FD, error) { return bpf.Get(pin()) }

// pin is named after the program, of which all but the descriptors is the same each time.
var pin = sync.OnceValue(func() string {
	code, err := bpf.Assemble(instructions, 0, 0, 0)
	if err != nil {
		panic(err) // of constants
	}
	sum := sha256.Sum256(code)
	return pins + hex.EncodeToString(sum[:8])
})

func load() (p bpf.FD, err error) {
	var m maps
	defer func() { m.Close() }()
	for i, of := range [len(m)]struct{ kind, key, value, entries, flags uint32 }{
		scratch: {unix.BPF_MAP_TYPE_ARRAY, 4, scratchSize, 1, 0},
		heads:   {unix.BPF_MAP_TYPE_CGROUP_STORAGE, 8, 24, 0, 0},
		parts:   {unix.BPF_MAP_TYPE_HASH, 16, valueSize, maxParts, unix.BPF_F_NO_PREALLOC},
	} {
		if m[i], err = bpf.NewMap(of.kind, of.key, of.value, of.entries, of.flags, program); err != nil {
			return -1, err
		}
	}
	code, err := bpf.Assemble(instructions, m[:]...)
	if err != nil {
		return -1, err
	}
	return bpf.Load(uint32(ebpf.CGroupSysctl), uint32(ebpf.AttachCGroupSysctl), program, code)
}

// instructions are, in C, with struct { u64 word; u8 ring[]; } *v:
//
//	char name[16];
//	if (!ctx->write || bpf_sysctl_get_name(ctx, name, 16, BPF_F_SYSCTL_BASE_NAME) != 11 || strcmp(name, "ns_last_pid"))
//		return 1;                                       // as if there were no program
//	n = bpf_sysctl_get_new_value(ctx, scratch, 4097);       // for its length only: others write there as well
//	if (n == -E2BIG)                                        // of a page, where pages are larger
//		n = 4096;
//	if (n < 1 || n > 4096)
//		return 1;
//	head = bpf_get_local_storage(heads, 0);
//	at = __sync_fetch_and_add(&head->total, n);
//	part = at / partSize;
//	at -= part * partSize;
//	struct key key = { head->boot, head->context, part % partCount };
//	v = bpf_map_lookup_elem(parts, &key);
//	if (!v) {
//		bpf_map_update_elem(parts, &key, empty, BPF_NOEXIST);
//		v = bpf_map_lookup_elem(parts, &key);
//	}
//	if (v) {                                                // otherwise there is no memory, and it is lost
//		if (at + n > partSize)
//			v->word = part << 16 | at + n - partSize;
//		bpf_sysctl_get_new_value(ctx, &v->ring[at], n + 1);
//	}
//	bpf_set_retval(n);                                      // what write(2) returns
//	return 1;
var instructions = []bpf.Instruction{
	{Op: bpf.MovX, Dst: 6, Src: 1},
	{Op: bpf.Load4, Src: 6},
	{Op: bpf.JeqK, To: pass},
	{Op: bpf.MovX, Dst: 2, Src: 10},
	{Op: bpf.AddK, Dst: 2, Imm: -16},
	{Op: bpf.MovK, Dst: 3, Imm: 16},
	{Op: bpf.MovK, Dst: 4, Imm: 1},
	{Op: bpf.Call, Imm: int32(asm.FnSysctlGetName)},
	{Op: bpf.JneK, Imm: int32(len("ns_last_pid")), To: pass},
	{Op: bpf.Load4, Dst: 1, Src: 10, Off: -16},
	{Op: bpf.JneK, Dst: 1, Imm: 'n' | 's'<<8 | '_'<<16 | 'l'<<24, To: pass},
	{Op: bpf.Load4, Dst: 1, Src: 10, Off: -12},
	{Op: bpf.JneK, Dst: 1, Imm: 'a' | 's'<<8 | 't'<<16 | '_'<<24, To: pass},
	{Op: bpf.Load4, Dst: 1, Src: 10, Off: -8},
	{Op: bpf.JneK, Dst: 1, Imm: 'p' | 'i'<<8 | 'd'<<16, To: pass},

	{Op: bpf.MovX, Dst: 1, Src: 6},
	{Op: bpf.MapValue, Dst: 2, Off: scratch},
	{Op: bpf.MovK, Dst: 3, Imm: writeSize + 1},
	{Op: bpf.Call, Imm: int32(asm.FnSysctlGetNewValue)},
	{Op: bpf.JneK, Imm: -int32(unix.E2BIG), To: length},
	{Op: bpf.MovK, Imm: writeSize},
	{Op: bpf.JsltK, Imm: 1, To: pass, At: length},
	{Op: bpf.JsgtK, Imm: writeSize, To: pass},
	{Op: bpf.MovX, Dst: 7},

	{Op: bpf.MapPtr, Dst: 1, Off: heads},
	{Op: bpf.MovK, Dst: 2},
	{Op: bpf.Call, Imm: int32(asm.FnGetLocalStorage)},
	{Op: bpf.MovX, Dst: 8, Src: 7},
	{Op: bpf.FetchAdd8, Src: 8},
	{Op: bpf.Load8, Dst: 1, Off: 8},
	{Op: bpf.Store8, Dst: 10, Src: 1, Off: keyAt},
	{Op: bpf.Load4, Dst: 1, Off: 16},
	{Op: bpf.Store4, Dst: 10, Src: 1, Off: keyAt + 8},
	{Op: bpf.MovX, Dst: 1, Src: 8},
	{Op: bpf.DivK, Dst: 1, Imm: partSize},
	{Op: bpf.Store8, Dst: 10, Src: 1, Off: partAt},
	{Op: bpf.MovX, Dst: 2, Src: 1},
	{Op: bpf.ModK, Dst: 2, Imm: partCount},
	{Op: bpf.Store4, Dst: 10, Src: 2, Off: keyAt + 12},
	{Op: bpf.MulK, Dst: 1, Imm: partSize},
	{Op: bpf.SubX, Dst: 8, Src: 1},
	{Op: bpf.JgeK, Dst: 8, Imm: partSize, To: pass}, // never: for the verifier

	{Op: bpf.MapPtr, Dst: 1, Off: parts},
	{Op: bpf.MovX, Dst: 2, Src: 10},
	{Op: bpf.AddK, Dst: 2, Imm: keyAt},
	{Op: bpf.Call, Imm: int32(asm.FnMapLookupElem)},
	{Op: bpf.JneK, To: found},
	{Op: bpf.MapPtr, Dst: 1, Off: parts},
	{Op: bpf.MovX, Dst: 2, Src: 10},
	{Op: bpf.AddK, Dst: 2, Imm: keyAt},
	{Op: bpf.MapValue, Dst: 3, Off: scratch, Imm: emptyAt},
	{Op: bpf.MovK, Dst: 4, Imm: unix.BPF_NOEXIST},
	{Op: bpf.Call, Imm: int32(asm.FnMapUpdateElem)},
	{Op: bpf.MapPtr, Dst: 1, Off: parts},
	{Op: bpf.MovX, Dst: 2, Src: 10},
	{Op: bpf.AddK, Dst: 2, Imm: keyAt},
	{Op: bpf.Call, Imm: int32(asm.FnMapLookupElem)},
	{Op: bpf.JeqK, To: written},

	{Op: bpf.MovX, Dst: 1, Src: 8, At: found},
	{Op: bpf.AddX, Dst: 1, Src: 7},
	{Op: bpf.JleK, Dst: 1, Imm: partSize, To: copied},
	{Op: bpf.SubK, Dst: 1, Imm: partSize},
	{Op: bpf.Load8, Dst: 2, Src: 10, Off: partAt},
	{Op: bpf.LshK, Dst: 2, Imm: 16},
	{Op: bpf.OrX, Dst: 2, Src: 1},
	{Op: bpf.Store8, Src: 2},
	{Op: bpf.MovX, Dst: 2, At: copied},
	{Op: bpf.AddX, Dst: 2, Src: 8},
	{Op: bpf.AddK, Dst: 2, Imm: wordSize},
	{Op: bpf.MovX, Dst: 1, Src: 6},
	{Op: bpf.MovX, Dst: 3, Src: 7},
	{Op: bpf.AddK, Dst: 3, Imm: 1},
	{Op: bpf.Call, Imm: int32(asm.FnSysctlGetNewValue)},

	{Op: bpf.MovX, Dst: 1, Src: 7, At: written},
	{Op: bpf.Call, Imm: int32(asm.FnSetRetval)},
	{Op: bpf.MovK, Imm: 1, At: pass},
	{Op: bpf.Exit},
}

// Labels, and places on the stack.
const (
	pass, length, found, copied, written = 1, 2, 3, 4, 5

	keyAt, partAt = -32, -40
)
