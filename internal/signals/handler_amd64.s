#include "textflag.h"

// The handler runs on the signal stack of the thread that the signal came to, and touches
// nothing of Go's but the number of the pipe.
TEXT handler<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	PUSHQ DI // the signal
	MOVQ ·pipe(SB), DI
	MOVQ SP, SI
	MOVL $1, DX // its lowest byte
	MOVL $1, AX // write
	SYSCALL
	POPQ DI
	RET // to the restorer

TEXT restorer<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT $3

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-16
	LEAQ handler<>(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ restorer<>(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
