package exits

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/vsfleet/vsfleet/internal/bpf"
)

// fields are offsets in structures of the running kernel.
type fields struct {
	threadPID, exitCode    int32 // task_struct
	level, numbers         int32 // pid
	nr, ns, sizeofUpid     int32 // upid, of which pid.numbers is an array
	reboot                 int32 // pid_namespace
	maxLevel, maxNamespace int32
}

// kernelFields reads the offsets from the kernel's BTF.
func kernelFields() (fields, error) {
	at := fields{maxLevel: 20, maxNamespace: 32} // of a guest's cgroup; MAX_PID_NS_LEVEL
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return at, err
	}
	for _, f := range []struct {
		of, name string
		offset   *int32
	}{
		{"task_struct", "thread_pid", &at.threadPID}, {"task_struct", "exit_code", &at.exitCode},
		{"pid", "level", &at.level}, {"pid", "numbers", &at.numbers},
		{"upid", "nr", &at.nr}, {"upid", "ns", &at.ns},
		{"pid_namespace", "reboot", &at.reboot},
	} {
		var of *btf.Struct
		if err := spec.TypeByName(f.of, &of); err != nil {
			return at, err
		}
		if f.of == "upid" {
			at.sizeofUpid = int32(of.Size)
		}
		found := false
		for _, m := range of.Members {
			if m.Name == f.name {
				*f.offset, found = int32(m.Offset.Bytes()), true
			}
		}
		if !found {
			return at, fmt.Errorf("the kernel's struct %s has no %s", f.of, f.name)
		}
	}
	return at, nil
}

// instructions are, in C, with struct { u64 dev, ino, time; u32 code, reboot; } *v, and
// each read from the kernel a bpf_probe_read_kernel:
//
//	struct pid *pid = task->thread_pid;
//	if (!pid->level || pid->level > maxNamespace)
//		return 0;                              // of the host
//	struct upid *upid = &pid->numbers[pid->level];
//	if (upid->nr != 1)
//		return 0;
//	for (level = 1; level <= maxLevel; level++) {
//		id = bpf_get_current_ancestor_cgroup_id(level);
//		if ((v = bpf_map_lookup_elem(map, &id)))
//			break;
//	}
//	if (!v || bpf_get_ns_current_pid_tgid(v->dev, v->ino, &ids, sizeof(ids)))
//		return 0;                              // of a container in a guest
//	v->code = task->exit_code;
//	v->reboot = upid->ns->reboot;
//	v->time = bpf_ktime_get_boot_ns();
//	return 0;
func instructions(at fields) []bpf.Instruction {
	const word, pointer = 4, 8
	const end, found = 1, 2
	var list []bpf.Instruction
	// read reads from the address in a register plus offset to the stack at -8, and from
	// there to register to.
	read := func(to, from uint8, offset, size int32) {
		load := uint8(bpf.Load8)
		if size == word {
			load = bpf.Load4
		}
		list = append(list,
			bpf.Instruction{Op: bpf.MovX, Dst: 1, Src: 10},
			bpf.Instruction{Op: bpf.AddK, Dst: 1, Imm: -8},
			bpf.Instruction{Op: bpf.MovK, Dst: 2, Imm: size},
			bpf.Instruction{Op: bpf.MovX, Dst: 3, Src: from},
			bpf.Instruction{Op: bpf.AddK, Dst: 3, Imm: offset},
			bpf.Instruction{Op: bpf.Call, Imm: int32(asm.FnProbeReadKernel)},
			bpf.Instruction{Op: load, Dst: to, Src: 10, Off: -8},
		)
	}
	list = append(list, bpf.Instruction{Op: bpf.Load8, Dst: 6, Src: 1}) // task
	read(7, 6, at.threadPID, pointer)
	read(8, 7, at.level, word)
	list = append(list,
		bpf.Instruction{Op: bpf.JeqK, Dst: 8, To: end},
		bpf.Instruction{Op: bpf.JgtK, Dst: 8, Imm: at.maxNamespace, To: end},
		bpf.Instruction{Op: bpf.MulK, Dst: 8, Imm: at.sizeofUpid},
		bpf.Instruction{Op: bpf.AddX, Dst: 7, Src: 8},
		bpf.Instruction{Op: bpf.AddK, Dst: 7, Imm: at.numbers}, // upid
	)
	read(8, 7, at.nr, word)
	list = append(list, bpf.Instruction{Op: bpf.JneK, Dst: 8, Imm: 1, To: end})
	for level := range at.maxLevel {
		list = append(list,
			bpf.Instruction{Op: bpf.MovK, Dst: 1, Imm: level + 1},
			bpf.Instruction{Op: bpf.Call, Imm: int32(asm.FnGetCurrentAncestorCgroupId)},
			bpf.Instruction{Op: bpf.Store8, Dst: 10, Off: -8},
			bpf.Instruction{Op: bpf.MapPtr, Dst: 1},
			bpf.Instruction{Op: bpf.MovX, Dst: 2, Src: 10},
			bpf.Instruction{Op: bpf.AddK, Dst: 2, Imm: -8},
			bpf.Instruction{Op: bpf.Call, Imm: int32(asm.FnMapLookupElem)},
			bpf.Instruction{Op: bpf.JneK, To: found},
		)
	}
	list = append(list,
		bpf.Instruction{Op: bpf.Ja, To: end},
		bpf.Instruction{Op: bpf.MovX, Dst: 8, At: found},
		bpf.Instruction{Op: bpf.Load8, Dst: 1, Src: 8},
		bpf.Instruction{Op: bpf.Load8, Dst: 2, Src: 8, Off: inodeAt},
		bpf.Instruction{Op: bpf.MovX, Dst: 3, Src: 10},
		bpf.Instruction{Op: bpf.AddK, Dst: 3, Imm: -16},
		bpf.Instruction{Op: bpf.MovK, Dst: 4, Imm: 8},
		bpf.Instruction{Op: bpf.Call, Imm: int32(asm.FnGetNsCurrentPidTgid)},
		bpf.Instruction{Op: bpf.JneK, To: end},
	)
	read(9, 6, at.exitCode, word)
	list = append(list, bpf.Instruction{Op: bpf.Store4, Dst: 8, Src: 9, Off: codeAt})
	read(9, 7, at.ns, pointer)
	read(9, 9, at.reboot, word)
	return append(list,
		bpf.Instruction{Op: bpf.Store4, Dst: 8, Src: 9, Off: rebootAt},
		bpf.Instruction{Op: bpf.Call, Imm: int32(asm.FnKtimeGetBootNs)},
		bpf.Instruction{Op: bpf.Store8, Dst: 8, Off: timeAt},
		bpf.Instruction{Op: bpf.MovK, At: end},
		bpf.Instruction{Op: bpf.Exit},
	)
}
