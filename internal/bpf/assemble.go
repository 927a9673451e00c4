package bpf

import (
	"encoding/binary"
	"errors"
)

// An Instruction of a program that is written as a table: a tenth of the bytes in vsnode
// that a list of asm.Instruction takes.
type Instruction struct {
	Op       uint8 // linux/bpf.h
	Dst, Src uint8 // registers
	At, To   uint8 // a label of its own, and that to which it jumps; 0: none
	Off      int16
	Imm      int32
}

// Operations, by the names of the kernel's macros (linux/filter.h); X takes a register
// and K a number.
const (
	MovX      = 0xbf
	MovK      = 0xb7
	AddX      = 0x0f
	AddK      = 0x07
	SubX      = 0x1f
	SubK      = 0x17
	MulK      = 0x27
	DivK      = 0x37
	ModK      = 0x97
	OrX       = 0x4f
	AndK      = 0x57
	LshK      = 0x67
	RshK      = 0x77
	Load4     = 0x61 // dst = *(src + off), of 4 bytes
	Load8     = 0x79
	Store4    = 0x63 // *(dst + off) = src
	Store8    = 0x7b
	FetchAdd8 = 0xdb // src = atomic add of src to *(dst + off)
	JeqK      = 0x15
	JneK      = 0x55
	JgeK      = 0x35
	JleK      = 0xb5
	JsgtK     = 0x65
	JsltK     = 0xc5
	JltK      = 0xa5
	JgtK      = 0x25
	Ja        = 0x05
	Call      = 0x85
	Exit      = 0x95

	// MapPtr loads the map with the number Off, and MapValue the address of its only value
	// plus Imm.
	MapPtr   = 0x18
	MapValue = 0x19
)

const (
	fetchAdd       = 1
	pseudoMapFD    = 1
	pseudoMapValue = 2
)

// Assemble returns instructions as the kernel takes them, with maps.
func Assemble(list []Instruction, maps ...FD) ([]byte, error) {
	var labels [256]int
	length := 0
	for _, i := range list {
		if i.At != 0 {
			labels[i.At] = length
		}
		length += i.length()
	}
	code := make([]byte, 0, 8*length)
	add := func(op, registers uint8, off int16, imm int32) {
		code = append(code, op, registers)
		code = binary.LittleEndian.AppendUint16(code, uint16(off))
		code = binary.LittleEndian.AppendUint32(code, uint32(imm))
	}
	for _, i := range list {
		registers := i.Dst | i.Src<<4
		switch {
		case i.length() == 2:
			if int(i.Off) >= len(maps) {
				return nil, errors.New("a program uses a map that it is not given")
			}
			kind, offset := uint8(pseudoMapFD), int32(0)
			if i.Op == MapValue {
				kind, offset = pseudoMapValue, i.Imm
			}
			add(MapPtr, i.Dst|kind<<4, 0, int32(maps[i.Off]))
			add(0, 0, 0, offset)
		case i.Op == FetchAdd8:
			add(i.Op, registers, i.Off, fetchAdd)
		case i.To != 0:
			add(i.Op, registers, int16(labels[i.To]-len(code)/8-1), i.Imm)
		default:
			add(i.Op, registers, i.Off, i.Imm)
		}
	}
	return code, nil
}

// Jumps reports whether the instruction jumps somewhere in the program.
func (i Instruction) Jumps() bool { return i.Op&7 == 5 && i.Op != Call && i.Op != Exit }

func (i Instruction) length() int {
	if i.Op == MapPtr || i.Op == MapValue {
		return 2
	}
	return 1
}
