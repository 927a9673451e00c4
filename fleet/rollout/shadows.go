package rollout

import (
	"context"
	"fmt"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// shadows asks a host what its guests that move to another image hide of it: files of
// their own where the two images differ. A guest whose image the host does not have yet is
// asked about once it is there.
func (r *run) shadows(ctx context.Context, h *host) error {
	images := map[string]string{}
	for _, g := range h.state.Guests {
		images[g.Name] = g.Image
	}
	moves := map[string]string{}
	for _, s := range h.plan.Steps {
		switch {
		case images[s.Name] == "":
		case s.Kind == api.StepConfigure && s.Guest != nil && s.Guest.Image != images[s.Name]:
			moves[s.Name] = s.Guest.Image
		case s.Kind == api.StepRestart || s.Kind == api.StepStart: // an earlier run may have configured it
			if _, known := moves[s.Name]; !known {
				moves[s.Name] = images[s.Name]
			}
		}
	}
	for name, id := range moves {
		if id == "" {
			delete(moves, name)
			if r.reason == "" {
				h.notes = append(h.notes, fmt.Sprintf("guest %s: what it hides of its next image is known once the host has it: vsfleet image push", name))
			}
		}
	}
	if len(moves) == 0 {
		return nil
	}
	answer, err := h.node.Stale(ctx, api.StaleRequest{Images: moves, Shadows: true})
	if err != nil {
		return err
	}
	h.shadowed = map[string]*report.Shadows{}
	for _, g := range answer.Guests {
		s := report.ShadowsOf(g, h.rules(g.Name))
		if s == nil {
			continue
		}
		h.shadowed[g.Name] = s
		if step := h.mover(g.Name); step >= 0 && r.reason != "" {
			for _, line := range s.Lines() {
				r.watchStep(h, h.plan.Steps[step], report.Event{Kind: report.Warning, Message: line})
			}
		}
	}
	return nil
}

// rules returns the inventory's for the files of a guest.
func (h *host) rules(guest string) string {
	for _, g := range h.want.Guests {
		if g.Name == guest {
			return g.Shadowed
		}
	}
	return ""
}

// mover returns the index of the step with which a guest moves to another image, or -1.
func (h *host) mover(guest string) int {
	for i, s := range h.plan.Steps {
		if s.Name == guest && (s.Kind == api.StepConfigure || s.Kind == api.StepRestart || s.Kind == api.StepStart) {
			return i
		}
	}
	return -1
}
