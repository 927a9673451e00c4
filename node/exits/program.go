package exits

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
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
func instructions(fd int, at fields) asm.Instructions {
	const word, pointer = 4, 8
	var list asm.Instructions
	// read reads from the address in a register plus offset to the stack at -8, and from
	// there to register to.
	read := func(to, from asm.Register, offset int32, size asm.Size, bytes int32) {
		list = append(list,
			asm.Mov.Reg(asm.R1, asm.R10),
			asm.Add.Imm(asm.R1, -8),
			asm.Mov.Imm(asm.R2, bytes),
			asm.Mov.Reg(asm.R3, from),
			asm.Add.Imm(asm.R3, offset),
			asm.FnProbeReadKernel.Call(),
			asm.LoadMem(to, asm.R10, -8, size),
		)
	}
	list = append(list, asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord)) // task
	read(asm.R7, asm.R6, at.threadPID, asm.DWord, pointer)
	read(asm.R8, asm.R7, at.level, asm.Word, word)
	list = append(list,
		asm.JEq.Imm(asm.R8, 0, "end"),
		asm.JGT.Imm(asm.R8, at.maxNamespace, "end"),
		asm.Mul.Imm(asm.R8, at.sizeofUpid),
		asm.Add.Reg(asm.R7, asm.R8),
		asm.Add.Imm(asm.R7, at.numbers), // upid
	)
	read(asm.R8, asm.R7, at.nr, asm.Word, word)
	list = append(list, asm.JNE.Imm(asm.R8, 1, "end"))
	for level := range at.maxLevel {
		list = append(list,
			asm.Mov.Imm(asm.R1, level+1),
			asm.FnGetCurrentAncestorCgroupId.Call(),
			asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
			asm.LoadMapPtr(asm.R1, fd),
			asm.Mov.Reg(asm.R2, asm.R10),
			asm.Add.Imm(asm.R2, -8),
			asm.FnMapLookupElem.Call(),
			asm.JNE.Imm(asm.R0, 0, "found"),
		)
	}
	list = append(list,
		asm.Ja.Label("end"),
		asm.Mov.Reg(asm.R8, asm.R0).WithSymbol("found"),
		asm.LoadMem(asm.R1, asm.R8, 0, asm.DWord),
		asm.LoadMem(asm.R2, asm.R8, inodeAt, asm.DWord),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnGetNsCurrentPidTgid.Call(),
		asm.JNE.Imm(asm.R0, 0, "end"),
	)
	read(asm.R9, asm.R6, at.exitCode, asm.Word, word)
	list = append(list, asm.StoreMem(asm.R8, codeAt, asm.R9, asm.Word))
	read(asm.R9, asm.R7, at.ns, asm.DWord, pointer)
	read(asm.R9, asm.R9, at.reboot, asm.Word, word)
	return append(list,
		asm.StoreMem(asm.R8, rebootAt, asm.R9, asm.Word),
		asm.FnKtimeGetBootNs.Call(),
		asm.StoreMem(asm.R8, timeAt, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
		asm.Return(),
	)
}
