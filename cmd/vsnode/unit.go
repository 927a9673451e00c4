package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/systemd"
)

// haltSignals are what SIGRTMIN+3 is to the C libraries that systemd may be built with:
// the signal by which a unit is stopped while it starts.
var haltSignals = []unix.Signal{37, 38}

// unit is what the units of guests run.
func unit(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return usageError("unit: it is for units of systemd")
	}
	h, err := open()
	if err != nil {
		return err
	}
	if ctx, err = interruptible(ctx, haltSignals...); err != nil {
		return err
	}
	switch what, name := args[0], args[1]; what {
	case "start":
		told, err := h.Guests.StartInUnit(ctx, name)
		if err != nil && told {
			fmt.Fprintln(os.Stderr, printable.Lines(err.Error()))
			return exitError(systemd.NeverAgain)
		}
		return err
	case "stop":
		return h.Guests.StopInUnit(guest.WithWarn(ctx, func(text string) { fmt.Fprintln(os.Stderr, printable.Lines(text)) }), name)
	case "ended":
		console, err := h.Guests.EndedInUnit(ctx, name, os.Getenv("EXIT_CODE"), os.Getenv("EXIT_STATUS"))
		// The console of a guest that has ended by itself goes to the journal.
		if text := strings.TrimSpace(printable.Lines(string(console))); text != "" {
			fmt.Println("the guest's console:\n" + text)
		}
		return err
	case "boot":
		return h.Guests.BootMark(ctx, name)
	default:
		return usageError(fmt.Sprintf("unit: unknown command %q", what))
	}
}
