#include "textflag.h"

// func spawn(args *cloneArgs, s *script) (pid int, errno uintptr)
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVQ args+0(FP), DI
	MOVQ $88, SI // sizeof(cloneArgs)
	MOVQ s+8(FP), R12
	MOVQ $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JZ child
	CMPQ AX, $-4095
	JCC failed
	MOVQ AX, pid+16(FP)
	MOVQ $0, errno+24(FP)
	RET
failed:
	NEGQ AX
	MOVQ $0, pid+16(FP)
	MOVQ AX, errno+24(FP)
	RET
child:
	// On the stack of args, whose top is aligned to 16 bytes.
	XORL BP, BP
	SUBQ $16, SP
	MOVQ R12, 0(SP)
	CALL ·run(SB) // does not return
	INT $3
