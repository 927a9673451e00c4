package nat

import (
	"context"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// lockPath is the file that is locked. It contains the record of the last Sync.
const lockPath = "/run/vservers/nat.lock"

// lock waits until no other vsnode changes the host's private networks.
func lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(lockPath), 0o755); err != nil {
		return nil, err
	}
	l, err := linux.LockFile(ctx, lockPath)
	if err != nil {
		return nil, err
	}
	return l.Unlock, nil
}
