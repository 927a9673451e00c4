package console

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
)

// Node is the path of a guest's console inside the guest.
const Node = "/proc/sys/kernel/ns_last_pid"

// ErrUnsupported means that the kernel cannot keep a console.
var ErrUnsupported = errors.New("the kernel cannot keep guests' consoles (it needs CONFIG_CHECKPOINT_RESTORE and CONFIG_CGROUP_BPF)")

// ErrNone means that a cgroup has no console.
var ErrNone = errors.New("the guest has no console")

const program = "vs_console"

// The map has one value: the number of bytes ever written (head); the number of
// bytes that belong at the ring's beginning but lie behind its end (spill), since a
// write does not wrap; the ring, with room for those and for the NUL that the kernel
// puts after a value; and scratch space.
const (
	ringSize  = 64 << 10
	writeSize = 4 << 10 // the most that one write takes: the rest is another write
	spillAt   = 8
	ringAt    = 16
	scratchAt = ringAt + ringSize + writeSize + 8
	valueSize = scratchAt + writeSize + 8
	// The most that Read returns: a write in progress may overwrite the oldest bytes.
	readSize = ringSize - writeSize
)

// Attach gives a new cgroup a console, before any process is in it.
func Attach(cgroup *os.File) error {
	if _, err := os.Stat(Node); errors.Is(err, fs.ErrNotExist) {
		return ErrUnsupported
	}
	m, err := bpf.NewMap(unix.BPF_MAP_TYPE_ARRAY, 4, valueSize, 1, program)
	if err != nil {
		return fmt.Errorf("make console: %w", err)
	}
	defer m.Close()
	code, err := bpf.Encode(instructions(int(m)))
	if err != nil {
		return fmt.Errorf("make console: %w", err)
	}
	p, err := bpf.Load(uint32(ebpf.CGroupSysctl), uint32(ebpf.AttachCGroupSysctl), program, code)
	if err != nil {
		return fmt.Errorf("make console: %w", err)
	}
	defer p.Close()
	if err := bpf.Attach(int(cgroup.Fd()), p, uint32(ebpf.AttachCGroupSysctl)); err != nil {
		return fmt.Errorf("attach console to %s: %w", cgroup.Name(), err)
	}
	return nil
}

// instructions are, in C, with struct { u64 head, spill; u8 ring[], scratch[]; } *v:
//
//	char name[16];
//	if (!ctx->write || bpf_sysctl_get_name(ctx, name, 16, BPF_F_SYSCTL_BASE_NAME) != 11 || strcmp(name, "ns_last_pid"))
//		return 1;                                       // as if there were no program
//	n = bpf_sysctl_get_new_value(ctx, v->scratch, 4097);    // for its length only: others write there as well
//	if (n == -E2BIG)                                        // of a page, where pages are larger
//		n = 4096;
//	if (n < 1 || n > 4096)
//		return 1;
//	at = __sync_fetch_and_add(&v->head, n) % ringSize;
//	if (at + n >= ringSize)
//		v->spill = at + n - ringSize;
//	bpf_sysctl_get_new_value(ctx, &v->ring[at], n + 1);
//	bpf_set_retval(n);                                      // what write(2) returns
//	return 1;
func instructions(fd int) asm.Instructions {
	text := func(s string) int64 {
		var b [8]byte
		copy(b[:], s)
		return int64(binary.NativeEndian.Uint64(b[:]))
	}
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R0, asm.R6, 0, asm.Word),
		asm.JEq.Imm(asm.R0, 0, "pass"),

		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -16),
		asm.Mov.Imm(asm.R3, 16),
		asm.Mov.Imm(asm.R4, 1),
		asm.FnSysctlGetName.Call(),
		asm.JNE.Imm(asm.R0, int32(len("ns_last_pid")), "pass"),
		asm.LoadMem(asm.R1, asm.R10, -16, asm.DWord),
		asm.LoadImm(asm.R2, text("ns_last_"), asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R2, "pass"),
		asm.LoadMem(asm.R1, asm.R10, -8, asm.Word),
		asm.JNE.Imm(asm.R1, int32(text("pid")), "pass"),

		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapValue(asm.R2, fd, scratchAt),
		asm.Mov.Imm(asm.R3, writeSize+1),
		asm.FnSysctlGetNewValue.Call(),
		asm.JNE.Imm(asm.R0, -int32(unix.E2BIG), "length"),
		asm.Mov.Imm(asm.R0, writeSize),
		asm.JSLT.Imm(asm.R0, 1, "pass").WithSymbol("length"),
		asm.JSGT.Imm(asm.R0, writeSize, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),

		asm.LoadMapValue(asm.R1, fd, 0),
		fetchAdd(asm.R1, asm.R0),
		asm.And.Imm(asm.R0, ringSize-1),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Add.Reg(asm.R2, asm.R7),
		asm.JLT.Imm(asm.R2, ringSize, "copy"),
		asm.Sub.Imm(asm.R2, ringSize),
		asm.StoreMem(asm.R1, spillAt, asm.R2, asm.DWord),
		asm.LoadMapValue(asm.R2, fd, ringAt).WithSymbol("copy"),
		asm.Add.Reg(asm.R2, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, 1),
		asm.FnSysctlGetNewValue.Call(),

		asm.Mov.Reg(asm.R1, asm.R7),
		asm.FnSetRetval.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"),
		asm.Return(),
	}
}

// fetchAdd returns BPF_ADD|BPF_FETCH, which cilium/ebpf 0.22 encodes without
// BPF_FETCH unless Constant has it too.
func fetchAdd(dst, src asm.Register) asm.Instruction {
	ins := asm.FetchAdd.Mem(dst, src, asm.DWord, 0)
	ins.Constant = 1
	return ins
}

// Text is the output of a guest.
type Text struct {
	Bytes []byte // its end, at most 60 KiB
	Total uint64 // number of bytes ever written
}

// Read returns the console output of a guest's cgroup, or ErrNone if the cgroup has
// no console.
func Read(cgroup string) (Text, error) {
	dir, err := linux.Open(cgroup, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Text{}, ErrNone
	}
	if err != nil {
		return Text{}, err
	}
	defer dir.Close()
	m, err := ring(dir)
	if err != nil {
		return Text{}, fmt.Errorf("read console of %s: %w", cgroup, err)
	}
	defer m.Close()
	value := make([]byte, valueSize)
	if err := bpf.Lookup(m, uint32(0), unsafe.Pointer(&value[0])); err != nil {
		return Text{}, fmt.Errorf("read console of %s: %w", cgroup, err)
	}
	return unroll(value), nil
}

// ring returns the map of the cgroup's program; only the cgroup keeps both alive.
func ring(dir *os.File) (bpf.FD, error) {
	ids, err := bpf.Attached(int(dir.Fd()), uint32(ebpf.AttachCGroupSysctl))
	if err != nil {
		return -1, err
	}
	for _, id := range ids {
		m, err := mapOf(id)
		if !errors.Is(err, ErrNone) && !errors.Is(err, fs.ErrNotExist) { // of others, or detached meanwhile
			return m, err
		}
	}
	return -1, ErrNone
}

func mapOf(id uint32) (bpf.FD, error) {
	p, err := bpf.Program(id)
	if err != nil {
		return -1, err
	}
	defer p.Close()
	name, maps, err := bpf.ProgramInfo(p)
	if err != nil {
		return -1, err
	}
	if name != program || len(maps) != 1 {
		return -1, ErrNone
	}
	return bpf.Map(maps[0])
}

// unroll returns the contents of a ring in the order in which they were written.
func unroll(value []byte) Text {
	head := binary.NativeEndian.Uint64(value)
	spill := binary.NativeEndian.Uint64(value[spillAt:]) % (writeSize + 1)
	data := value[ringAt:]
	t := Text{Total: head}
	for from := head - min(head, readSize); from < head; {
		at := from % ringSize
		end := min(ringSize, at+head-from)
		if at < spill && from/ringSize == head/ringSize {
			end = min(end, spill)
			t.Bytes = append(t.Bytes, data[ringSize+at:ringSize+end]...)
		} else {
			t.Bytes = append(t.Bytes, data[at:end]...)
		}
		from += end - at
	}
	// NULs come from a write in progress, or from the guest.
	t.Bytes = bytes.ReplaceAll(t.Bytes, []byte{0}, nil)
	return t
}
