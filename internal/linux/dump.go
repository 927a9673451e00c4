package linux

import (
	"errors"

	"github.com/vishvananda/netlink/nl"
)

// Dump repeats a netlink dump until nothing changes while the kernel makes it
// (NLM_F_DUMP_INTR, netlink(7)): an interrupted dump may lack entries that existed all
// the time.
func Dump[T any](list func() (T, error)) (T, error) {
	for {
		all, err := list()
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return all, err
		}
	}
}
