#include "textflag.h"

// func spawn(args *cloneArgs, s *script) (pid int, errno uintptr)
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVD args+0(FP), R0
	MOVD $88, R1 // sizeof(cloneArgs)
	MOVD s+8(FP), R9
	MOVD $435, R8 // clone3
	SVC
	CBZ R0, child
	CMN $4095, R0
	BCS failed
	MOVD R0, pid+16(FP)
	MOVD ZR, errno+24(FP)
	RET
failed:
	NEG R0, R0
	MOVD ZR, pid+16(FP)
	MOVD R0, errno+24(FP)
	RET
child:
	// On the stack of args, whose top is aligned to 16 bytes.
	MOVD ZR, R29
	SUB $32, RSP
	MOVD R9, 8(RSP)
	BL ·run(SB) // does not return
	BRK
