package procctx

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// beginClocks lets the clocks that count from the machine's boot begin at zero in the
// time namespace that pid was born beside and enters with its program
// (time_namespaces(7)). The clock of the day is not among them.
func beginClocks(pid int) error {
	var offsets []byte
	for _, id := range []int32{unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME} {
		var now unix.Timespec
		if err := unix.ClockGettime(id, &now); err != nil {
			return fmt.Errorf("read clock %d: %w", id, err)
		}
		// Whole seconds: a clock must not begin below zero.
		offsets = fmt.Appendf(offsets, "%d %d 0\n", id, -now.Sec)
	}
	if err := linux.WriteFile(linux.ProcFile(pid, "timens_offsets"), offsets, 0); err != nil {
		return fmt.Errorf("begin the guest's uptime: %w", err)
	}
	return nil
}
