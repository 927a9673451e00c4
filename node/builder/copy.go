package builder

import (
	"context"
	"errors"
	"fmt"

	"github.com/vsfleet/vsfleet/node/images/tree"
)

// copyTree copies a directory into the tree that is being made.
func copyTree(ctx context.Context, req Request, name string, c tree.Copy) error {
	message := "copying " + name
	req.Progress.Report(message, 0, 0)
	c.To = req.Dir
	c.Report = func(bytes int64) { req.Progress.Report(message, bytes, 0) }
	x, err := c.Copy(ctx)
	if err == nil && x.Entries == 0 {
		err = errors.New("there is nothing in it")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(req.Log, "%s: %d entries, %d bytes; %d device nodes and sockets left out\n", name, x.Entries, x.Bytes, x.Nodes)
	return nil
}
