package rollout

import (
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/node/api"
)

// askFiles asks the hosts which files of their guests differ. What the files
// should hold stays here until it is written.
func (r *run) askFiles(ctx context.Context) {
	requests := map[*host]api.FilesRequest{}
	asked := slices.DeleteFunc(r.reached(), func(h *host) bool {
		requests[h] = plan.FilesRequest(h.from, r.Diff)
		return len(requests[h].Guests) == 0
	})
	r.each(ctx, asked, func(ctx context.Context, h *host) {
		answer, err := h.node.Files(ctx, requests[h])
		if err != nil {
			r.fail(ctx, h, err)
			return
		}
		h.Files = answer
	})
}
