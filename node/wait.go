package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
)

const (
	waitTimeout  = 5 * time.Minute        // of a wait without its own
	waitInterval = 250 * time.Millisecond // between two looks
	lookTimeout  = 10 * time.Second       // of one look
)

// wait waits until a condition holds in a guest, or on the host.
func (h *Host) wait(ctx context.Context, guest string, w api.Wait, progress builder.Progress) error {
	if w.For > 0 {
		return pause(ctx, w.For)
	}
	timeout := cmp.Or(w.Timeout, waitTimeout)
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	want := "there"
	if w.Absent {
		want = "gone"
	}
	said := ""
	for {
		looking, stop := context.WithTimeout(within, lookTimeout)
		what, err := h.look(looking, guest, w)
		stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if (err == nil) != w.Absent {
			return nil
		}
		why := ""
		if err != nil {
			why = ": " + err.Error()
		}
		if text := fmt.Sprintf("waiting until %s is %s", what, want); text != said {
			said = text
			progress.Report(text, 0, 0)
		}
		if within.Err() != nil || pause(within, waitInterval) != nil {
			return fmt.Errorf("%s is not %s after %s%s", what, want, timeout, why)
		}
	}
}

// look looks whether something is there, and names it.
func (h *Host) look(ctx context.Context, guest string, w api.Wait) (what string, err error) {
	switch {
	case w.TCP != "":
		return w.TCP, h.reach(ctx, guest, w.TCP)
	case w.File != "":
		info, err := h.fileInfo(ctx, guest, w.File)
		if err == nil && !info.Exists {
			err = errors.New("no such file")
		}
		return w.File, err
	case len(w.Command) > 0:
		_, err := h.execStep(ctx, guest, api.Command{Argv: w.Command, Timeout: lookTimeout})
		return "the success of " + string(w.Command[0]), err
	}
	return "nothing", errors.New("the step does not say for what")
}

// reach connects to "ADDRESS:PORT", from inside a guest if there is one.
func (h *Host) reach(ctx context.Context, guest, target string) error {
	if port, ok := strings.CutPrefix(target, "localhost:"); ok {
		target = "127.0.0.1:" + port
	}
	addr, err := netip.ParseAddrPort(target)
	switch {
	case err != nil:
		return fmt.Errorf("%w: want an IP address and a port, as 192.0.2.1:80", err)
	case guest == "":
		return linux.Connect(ctx, addr)
	}
	conn, err := h.Guests.Dial(ctx, guest, addr)
	if err == nil {
		err = conn.Close()
	}
	return err
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
