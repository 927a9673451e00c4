package linux

import (
	"errors"

	"github.com/vishvananda/netlink/nl"
)

// Dump repeats a netlink dump until nothing changed while the kernel made it
// (NLM_F_DUMP_INTR, netlink(7)): a torn list lacks some of what was there all
// the time.
func Dump[T any](list func() (T, error)) (T, error) {
	for {
		all, err := list()
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return all, err
		}
	}
}
