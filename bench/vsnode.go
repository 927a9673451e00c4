package main

import (
	"context"
	"fmt"
	"os"
)

// vsnodeRow measures what vsnode costs before it does anything, beside a static
// C program that does nothing.
func vsnodeRow(ctx context.Context, b *bench) error {
	info, err := os.Stat(b.vsnode)
	if err != nil {
		return err
	}
	fmt.Printf("\nvsnode has %.1f MB (target: 10)\n", float64(info.Size())/1e6)
	return row(ctx, "Start vsnode and end", b.rounds(50), []subject{
		command("vsnode version", b.vsnode, "version"),
		command("busybox true", "busybox", "true"),
	}, []pair{{0, 1, 0}})
}
