package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
)

// hashify has guests give up what others have too.
func hashify(ctx context.Context, h *node.Host, names, args []string, out io.Writer) error {
	req := api.Hashify{Guests: names}
	for _, arg := range args {
		switch arg {
		case "-n", "--dry-run":
			req.Dry = true
		case "-v": // as util-vserver's; it says what it does
		default:
			if strings.HasPrefix(arg, "-") {
				return unknownOption("vserver hashify", "hashify", arg)
			}
			return usageError(fmt.Sprintf("vserver: hashify takes no argument %q", arg))
		}
	}
	useAllProcessors()
	done, err := h.Hashify(ctx, req)
	if err != nil {
		return err
	}
	const row = "%-20s %8v %12v %12v  %s\n"
	fmt.Fprintf(out, row, "GUEST", "FILES", "KIB", "NEW KIB", "")
	failed := 0
	for _, g := range done.Guests {
		note := printable.Line(g.Problem)
		if g.Later {
			note = "at its next start"
		}
		fmt.Fprintf(out, row, g.Name, g.Files, g.Bytes>>10, g.Added>>10, note)
		if g.Problem != "" {
			failed++
		}
	}
	if failed > 0 {
		return exitError(1)
	}
	return nil
}
