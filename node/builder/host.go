package builder

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// A hostCopy copies the root of this host, as Linux-VServer's method legacy did.
type hostCopy struct{ omit, include paths }

// kernels are filesystems that a guest has of its own.
var kernels = paths{"/proc", "/sys", "/dev"}

// notCopied is left out of the host's root unless -i takes it in: what is of the moment,
// and what is vsnode's own, guests and images among it.
var notCopied = paths{
	"/run", "/tmp", "/var/tmp", "/lost+found", "/etc/vservers", "/var/lib/vservers", "/var/lib/vsnode", "/var/log/vservers",
}

func parseHost(spec api.ImageSpec) (source, error) {
	values, err := arguments(spec.Args, "xi")
	if err != nil {
		return nil, err
	}
	var h hostCopy
	if h.omit, err = parsePaths(values['x']); err != nil {
		return nil, err
	}
	if h.include, err = parsePaths(values['i']); err != nil {
		return nil, err
	}
	for _, p := range h.include {
		if kernels.has(p[1:]) {
			return nil, fmt.Errorf("argument -i %s: a guest has its own", p)
		}
	}
	return h, nil
}

func (h hostCopy) fill(ctx context.Context, req Request) error {
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	omit := slices.Concat(h.omit, kernels)
	for _, p := range notCopied {
		if !h.include.has(p[1:]) {
			omit = append(omit, p)
		}
	}
	// What is mounted is another disk, or the network's.
	err = copyTree(ctx, req, "this host's root", tree.Copy{From: root, Omit: omit.has, Cross: h.include.has, Changing: true})
	if err != nil {
		return err
	}
	return forgetIdentity(req.Dir)
}
