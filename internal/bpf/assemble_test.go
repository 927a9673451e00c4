package bpf

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf/asm"
)

func TestAssemble(t *testing.T) {
	const end, loop = 1, 2
	const m = FD(7)
	for _, row := range []struct {
		name string
		ours []Instruction
		want asm.Instructions
	}{
		{"moves and sums", []Instruction{
			{Op: MovX, Dst: 6, Src: 1}, {Op: MovK, Dst: 2, Imm: -5}, {Op: AddX, Dst: 1, Src: 2}, {Op: AddK, Dst: 1, Imm: 3},
			{Op: SubX, Dst: 1, Src: 2}, {Op: SubK, Dst: 1, Imm: 3}, {Op: MulK, Dst: 1, Imm: 3}, {Op: DivK, Dst: 1, Imm: 3}, {Op: ModK, Dst: 1, Imm: 3},
			{Op: OrX, Dst: 1, Src: 2}, {Op: AndK, Dst: 1, Imm: 3}, {Op: LshK, Dst: 1, Imm: 3}, {Op: RshK, Dst: 1, Imm: 3},
		}, asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R2, -5), asm.Add.Reg(asm.R1, asm.R2), asm.Add.Imm(asm.R1, 3),
			asm.Sub.Reg(asm.R1, asm.R2), asm.Sub.Imm(asm.R1, 3), asm.Mul.Imm(asm.R1, 3), asm.Div.Imm(asm.R1, 3), asm.Mod.Imm(asm.R1, 3),
			asm.Or.Reg(asm.R1, asm.R2), asm.And.Imm(asm.R1, 3), asm.LSh.Imm(asm.R1, 3), asm.RSh.Imm(asm.R1, 3),
		}},
		{"memory", []Instruction{
			{Op: Load4, Dst: 1, Src: 10, Off: -8}, {Op: Load8, Dst: 1, Src: 2, Off: 8}, {Op: Store4, Dst: 10, Src: 1, Off: -4}, {Op: Store8, Dst: 3, Src: 1},
		}, asm.Instructions{
			asm.LoadMem(asm.R1, asm.R10, -8, asm.Word), asm.LoadMem(asm.R1, asm.R2, 8, asm.DWord), asm.StoreMem(asm.R10, -4, asm.R1, asm.Word), asm.StoreMem(asm.R3, 0, asm.R1, asm.DWord),
		}},
		{"maps, which take two words, between jumps over them", []Instruction{
			{Op: JeqK, Dst: 1, To: end}, {Op: MapPtr, Dst: 1, At: loop}, {Op: MapValue, Dst: 2, Imm: 16}, {Op: JneK, Dst: 2, Imm: 5, To: loop}, {Op: Ja, To: end},
			{Op: JgeK, Dst: 3, Imm: 1, To: end}, {Op: JleK, Dst: 3, Imm: 1, To: end}, {Op: JgtK, Dst: 3, Imm: 1, To: end}, {Op: JltK, Dst: 3, Imm: 1, To: end},
			{Op: JsgtK, Dst: 3, Imm: -1, To: end}, {Op: JsltK, Dst: 3, Imm: -1, To: end}, {Op: Call, Imm: int32(asm.FnMapLookupElem)}, {Op: Exit, At: end},
		}, asm.Instructions{
			asm.JEq.Imm(asm.R1, 0, "end"), asm.LoadMapPtr(asm.R1, int(m)).WithSymbol("loop"), asm.LoadMapValue(asm.R2, int(m), 16), asm.JNE.Imm(asm.R2, 5, "loop"), asm.Ja.Label("end"),
			asm.JGE.Imm(asm.R3, 1, "end"), asm.JLE.Imm(asm.R3, 1, "end"), asm.JGT.Imm(asm.R3, 1, "end"), asm.JLT.Imm(asm.R3, 1, "end"),
			asm.JSGT.Imm(asm.R3, -1, "end"), asm.JSLT.Imm(asm.R3, -1, "end"), asm.FnMapLookupElem.Call(), asm.Return().WithSymbol("end"),
		}},
	} {
		got, err := Assemble(row.ours, m)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := row.want.Marshal(&want, binary.LittleEndian); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s:\n%x, want\n%x", row.name, got, want.Bytes())
		}
	}
	if got, err := Assemble([]Instruction{{Op: FetchAdd8, Dst: 1, Src: 2, Off: 8}}); err != nil || !bytes.Equal(got, []byte{0xdb, 0x21, 8, 0, 1, 0, 0, 0}) {
		t.Errorf("an atomic sum: %x, %v", got, err) // which asm encodes without BPF_FETCH
	}
	if _, err := Assemble([]Instruction{{Op: MapPtr, Off: 1}}, m); err == nil {
		t.Error("a map that is not given: no error")
	}
}
