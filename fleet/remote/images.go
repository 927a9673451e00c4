package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/transport"
)

// ExportImage writes an image of the host to w.
func (n *Node) ExportImage(ctx context.Context, id string, w io.Writer) error {
	return n.carry(ctx, nil, w, "image", "export", id)
}

// ImportImage has the host take an image from r.
func (n *Node) ImportImage(ctx context.Context, id string, r io.Reader) error {
	return n.carry(ctx, r, io.Discard, "image", "import", "--id", id)
}

func (n *Node) carry(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	var stderr transport.LastLines
	exit, err := n.Run(ctx, stdin, stdout, &stderr, args...)
	if err == nil && exit != 0 {
		text := strings.TrimPrefix(stderr.String(), "vsnode: ")
		if text == "" {
			text = fmt.Sprintf("vsnode %s: exit status %d", strings.Join(args, " "), exit)
		}
		err = errors.New(text)
	}
	return err
}
