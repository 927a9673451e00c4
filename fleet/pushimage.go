package fleet

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/registry"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// PushImage writes the current version of an image from a host that has it to a registry,
// and returns the name of that host. answers are the states of hosts.
func (a *Access) PushImage(ctx context.Context, answers Answers[api.State], image *inventory.Image, reference string, progress func(host string, done, total int64)) (from string, pushed registry.Pushed, err error) {
	host, state, chosen, err := a.holder(answers, image)
	if err != nil {
		return "", pushed, err
	}
	node, err := a.Open(ctx, host)
	if err != nil {
		return host.Name, pushed, err
	}
	defer node.Close()
	content := registry.Content{
		ID: chosen.ID, Arch: state.Host.Arch, Created: chosen.Created.UTC(),
		Labels: map[string]string{"io.vsfleet.image.name": image.Name},
		Has:    func(id string) bool { return imageOf(state, id) >= 0 },
		Export: func(ctx context.Context, id string, w io.Writer) error {
			return node.ExportImage(ctx, api.ExportImage{ID: id}, w)
		},
		Most: func(id string) int64 {
			i := state.Images[imageOf(state, id)]
			return i.Most()
		},
	}
	if a.Versions != nil {
		if number := a.Versions.Number(chosen.ID); number > 0 {
			content.Labels["io.vsfleet.image.version"] = strconv.Itoa(number)
		}
	}
	pushed, err = a.Registry.Push(ctx, reference, content, func(done, total int64) { progress(host.Name, done, total) })
	return host.Name, pushed, err
}

// holder returns a host that has the image which most hosts have of the current version.
func (a *Access) holder(answers Answers[api.State], image *inventory.Image) (host *inventory.Host, state api.State, chosen api.Image, err error) {
	have := map[string]int{}
	for _, answer := range answers {
		if answer.Outcome != outcome.OK {
			err = answer.Err
			continue
		}
		its, found := plan.Chosen(image, a.Versions, answer.Value)
		if !found {
			continue
		}
		if host != nil && state.Host.Arch != answer.Value.Host.Arch {
			return nil, state, chosen, fmt.Errorf("image %s: hosts of %s and %s have it: choose one of them with -l, and a tag for each", image.Name, state.Host.Arch, answer.Value.Host.Arch)
		}
		if have[its.ID]++; host == nil || have[its.ID] > have[chosen.ID] {
			host, state, chosen = answer.Host, answer.Value, its
		}
	}
	if host == nil && err == nil {
		err = fmt.Errorf("image %s: no host has it: vsfleet apply, or vsfleet image push without --registry, has one build it", image.Name)
	}
	if host == nil {
		return nil, state, chosen, err
	}
	return host, state, chosen, nil
}

func imageOf(state api.State, id string) int {
	return slices.IndexFunc(state.Images, func(i api.Image) bool { return i.ID == id })
}
