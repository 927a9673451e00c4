package systemd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Notify tells the systemd that started this process (sd_notify(3)), and waits until it
// has heard, so that this process may end afterwards. Without systemd it does nothing.
func Notify(ctx context.Context, lines ...string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := dial(name, unix.SOCK_DGRAM) // "@" begins an abstract one, as x/sys has it
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	// systemd closes the descriptor when it has read what came before it (BARRIER=1).
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = unix.Sendmsg(int(conn.Fd()), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, 0)
	w.Close()
	if err == nil {
		_, err = linux.Poll(ctx, 10*time.Second, unix.PollFd{Fd: int32(r.Fd())})
	}
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
