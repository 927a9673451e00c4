#include "textflag.h"

// The handler runs on the signal stack of the thread that the signal came to, and touches
// nothing of Go's but the number of the pipe.
TEXT handler<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	SUB $16, RSP
	MOVD R0, (RSP) // the signal
	MOVD ·pipe(SB), R0
	MOVD RSP, R1
	MOVD $1, R2 // its lowest byte
	MOVD $64, R8 // write
	SVC
	ADD $16, RSP
	RET // to the vDSO's rt_sigreturn

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-16
	MOVD $handler<>(SB), R0
	MOVD R0, handler+0(FP)
	MOVD ZR, restorer+8(FP)
	RET
