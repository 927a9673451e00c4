package rollout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// fakeFleet is hosts in memory that do what vsnode promises. What a test sets
// on a host makes it misbehave.
type fakeFleet struct {
	inv   *inventory.Inventory
	hosts map[string]*fakeHost

	mu   sync.Mutex
	most int // connections at once
	now  int
}

var errUnreachable error = noRoute{}

type noRoute struct{}

func (noRoute) Error() string     { return "no route to host" }
func (noRoute) ErrorKind() string { return string(outcome.KindUnreachable) }
func (noRoute) Unreachable() bool { return true }

// content is what an image is, as a stream.
var content = strings.Repeat("the root filesystem of a guest\n", 100_000)

func newFleet(t *testing.T, names ...string) *fakeFleet {
	f := &fakeFleet{inv: &inventory.Inventory{}, hosts: map[string]*fakeHost{}}
	for _, name := range names {
		h := &inventory.Host{Name: name, Guests: []*inventory.Guest{www()}}
		f.inv.Hosts = append(f.inv.Hosts, h)
		f.hosts[name] = &fakeHost{name: name, state: able(), images: map[string]string{}}
	}
	t.Cleanup(func() {
		for name, h := range f.hosts {
			if h.open != 0 {
				t.Errorf("%s: %d connections are left open", name, h.open)
			}
		}
	})
	return f
}

// has gives a host an image.
func (h *fakeHost) has(image *inventory.Image) *fakeHost {
	return h.hold(image, image.Name+content+h.variant)
}

// idOf is the ID of the image that a host of that variant builds.
func idOf(image *inventory.Image, variant string) string {
	sum := sha256.Sum256([]byte(image.Name + content + variant))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (h *fakeHost) hold(image *inventory.Image, text string) *fakeHost {
	sum := sha256.Sum256([]byte(text))
	id := "sha256:" + hex.EncodeToString(sum[:])
	h.images[id] = text
	h.state.Images = append(h.state.Images, api.Image{ID: id, Spec: plan.Spec(image), Key: plan.Spec(image).Key()})
	return h
}

func (f *fakeFleet) fleet() *Fleet {
	return &Fleet{
		Forks: 4,
		Connect: func(ctx context.Context, h *inventory.Host) (Node, error) {
			f.mu.Lock()
			f.now++
			f.most = max(f.most, f.now)
			f.mu.Unlock()
			defer func() { f.mu.Lock(); f.now--; f.mu.Unlock() }()
			node := f.hosts[h.Name]
			if node.unreachable {
				return nil, errUnreachable
			}
			node.mu.Lock()
			defer node.mu.Unlock()
			if node.guard != nil && node.away != 0 {
				node.away--
				return nil, errUnreachable
			}
			node.open++
			return &session{fakeHost: node}, nil
		},
	}
}

// apply is one run over all hosts; the inventory's images are those of the
// plan's tests.
func (f *fakeFleet) apply(ctx context.Context) report.Run {
	return applied(ctx, f.fleet(), f.inv.Hosts)
}

// applied is the road of Apply with the images of the plan's tests, which no
// inventory has.
func applied(ctx context.Context, fleet *Fleet, hosts []*inventory.Host) report.Run {
	run, _ := fleet.start("apply", hosts).against(nil, imageNamed).follow(ctx, toApply...)
	return run
}

type fakeHost struct {
	shadows map[string]api.StaleGuest // answers to Stale, by guest
	name    string

	unreachable bool
	failStep    string            // "guest.start www"
	unhealthy   string            // what is wrong with its guests; empty: nothing
	kept        []api.GuestState  // what StepRevert puts back
	ready       []string          // of the last Apply
	elsewhere   bool              // failStep fails for want of something
	dieAt       string            // the step at which the connection breaks
	before      func(step string) // called before each step
	exported    int               // exports, in all
	arrived     int               // contents of an image that broke off
	plainTrees  bool              // it takes whole images only
	badBase     bool              // what it should have is damaged
	importLimit int               // bytes that an import takes before it fails
	stall       chan struct{}     // an import that reads nothing until this is closed
	variant     string            // what it builds differs by this from what others build
	exportLimit int               // bytes that an export gives before it fails
	log         []string          // the steps that were taken
	requests    int               // of Apply
	mu          sync.Mutex
	open        int
	lease       api.Holder
	guard       *api.Guard // of steps that are not confirmed
	confirms    int        // that were asked for
	late        bool       // each is too late
	putBack     *api.Reverted
	unreverted  string // what a late one could not put back
	unguarded   string // why steps that have to be guarded are not taken
	away        int    // number of connections that fail once there is a guard; below 0: all
	exports     int    // that run
	mostExports int
	makeFails   string
	exportTakes time.Duration
	state       api.State
	images      map[string]string // content by ID
	files       map[string]string // digests by guest and path
	asked       func(api.FilesRequest)
	seen        func(api.Apply)
}

func (h *fakeHost) State(ctx context.Context) (api.State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state
	s.Guests, s.Images = slices.Clone(s.Guests), slices.Clone(s.Images)
	return s, ctx.Err()
}

// session is a controller's vsnode on a host.
type session struct {
	*fakeHost
	run string // whose lease it has
}

func (s *session) Lease(ctx context.Context, req api.Lease) (api.LeaseAnswer, error) {
	begun, first := time.Now(), ""
	for {
		s.mu.Lock()
		if s.lease.Run == "" {
			s.lease, s.run = req.Holder, req.Holder.Run
		}
		held, by := s.run != "", s.lease
		s.mu.Unlock()
		if first == "" {
			first = by.Run
		}
		if held || by.Run != first || time.Since(begun) >= req.Wait {
			return api.LeaseAnswer{Held: held, By: by, Reverted: s.putBack}, nil
		}
		select {
		case <-ctx.Done():
			return api.LeaseAnswer{}, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *session) Stale(_ context.Context, req api.StaleRequest) (answer api.StaleAnswer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range req.Images {
		if g, hides := s.shadows[name]; hides && req.Shadows {
			answer.Guests = append(answer.Guests, g)
		}
	}
	return answer, nil
}

func (s *session) Files(_ context.Context, req api.FilesRequest) (api.FilesAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != nil {
		s.asked(req)
	}
	var answer api.FilesAnswer
	for _, g := range req.Guests {
		if !slices.ContainsFunc(s.state.Guests, func(have api.GuestState) bool { return have.Name == g.Guest }) {
			continue
		}
		state := api.GuestFilesState{Guest: g.Guest}
		for _, f := range g.Files {
			if s.files[g.Guest+f.Path] != f.Digest {
				state.Files = append(state.Files, api.FileState{Path: f.Path, Differs: "content"})
			}
		}
		answer.Guests = append(answer.Guests, state)
	}
	return answer, nil
}

func (s *session) Confirm(ctx context.Context, req api.Confirm) (api.Confirmed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirms++
	if s.guard == nil || s.run != "" {
		return api.Confirmed{}, errors.New("there is nothing to be confirmed over this connection")
	}
	answer := api.Confirmed{}
	if s.late {
		answer.Reverted = &api.Reverted{Run: req.Run, Guests: s.guard.Guests, Error: s.unreverted}
	}
	s.guard = nil
	return answer, nil
}

func (s *session) Lock(context.Context, api.Lock) error { return nil }

func (s *session) Check(context.Context) (api.Check, error) { return api.Check{}, nil }

func (s *session) Release(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != "" {
		s.run, s.lease = "", api.Holder{}
	}
	return nil
}

func (s *session) Apply(ctx context.Context, req api.Apply, event func(api.Event)) (api.ApplyResult, error) {
	if s.run == "" {
		return api.ApplyResult{}, errors.New("a host was asked to change without its lease")
	}
	return s.fakeHost.Apply(ctx, req, event)
}

func (s *session) Close() error {
	s.Release(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	return nil
}

func (h *fakeHost) Apply(ctx context.Context, req api.Apply, event func(api.Event)) (api.ApplyResult, error) {
	h.mu.Lock()
	h.requests++
	if req.Guard != nil && h.unguarded != "" {
		h.mu.Unlock()
		return api.ApplyResult{}, errors.New(h.unguarded)
	}
	if req.Guard != nil {
		h.guard = req.Guard
	}
	h.ready = req.Ready
	h.mu.Unlock()
	if h.seen != nil {
		h.seen(req)
	}
	var res api.ApplyResult
	failed := map[string]bool{}
	for i, s := range req.Steps {
		if s.Kind == api.StepImport {
			return res, errors.New("a host was asked to take a step of the controller's")
		}
		if s.Guest != nil && s.Guest.Image == "" {
			return res, fmt.Errorf("guest %s is asked for without its image", s.Name)
		}
		what := string(s.Kind) + " " + s.Name
		if h.before != nil {
			h.before(what)
		}
		event(api.Event{Run: req.Run, Kind: api.Progress, Step: i, Message: what})
		switch {
		case ctx.Err() != nil:
			res.Results = append(res.Results, api.StepResult{Outcome: api.Skipped, Error: "interrupted"})
		case failed[s.Name]:
			res.Results = append(res.Results, api.StepResult{Outcome: api.Skipped, Error: "an earlier step of the guest did not succeed"})
		case h.dieAt == what:
			return res, errors.New("connection lost")
		case h.failStep == what:
			failed[s.Name] = true
			res.Results = append(res.Results, api.StepResult{Outcome: api.Failed, Error: what + ": it does not work", Elsewhere: h.elsewhere})
		case s.Kind == api.StepHealth && h.unhealthy != "":
			res.Results = append(res.Results, api.StepResult{Outcome: api.Failed, Error: "guest " + s.Name + ": not healthy: " + h.unhealthy})
		case s.Kind == api.StepRevert && h.kept == nil:
			res.Results = append(res.Results, api.StepResult{Outcome: api.Unchanged})
		default:
			res.Results = append(res.Results, h.take(s))
		}
	}
	return res, nil
}

// take does what one step says.
func (h *fakeHost) take(s api.Step) api.StepResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, string(s.Kind)+" "+s.Name)
	i := slices.IndexFunc(h.state.Guests, func(g api.GuestState) bool { return g.Name == s.Name })
	switch s.Kind {
	case api.StepBuildImage:
		h.has(&inventory.Image{Name: s.Image.Name, Method: s.Image.Method, Args: s.Image.Args, Packages: s.Image.Packages})
		return api.StepResult{Outcome: api.Changed, Image: &h.state.Images[len(h.state.Images)-1]}
	case api.StepCreate:
		h.state.Guests = append(h.state.Guests, api.GuestState{Guest: *s.Guest, Status: api.Stopped})
	case api.StepFiles:
		if h.files == nil {
			h.files = map[string]string{}
		}
		for _, f := range s.Files {
			h.files[s.Name+f.Path] = api.FileDigest(f.Content)
		}
	case api.StepConfigure:
		h.state.Guests[i].Guest = *s.Guest
	case api.StepStart, api.StepRestart:
		h.state.Guests[i].Status = api.Running
	case api.StepStop:
		h.state.Guests[i].Status = api.Stopped
	case api.StepHealth:
		return api.StepResult{Outcome: api.Unchanged}
	case api.StepRevert:
		h.state.Guests = slices.Clone(h.kept)
	case api.StepDelete:
		h.state.Guests = slices.Delete(h.state.Guests, i, i+1)
	}
	return api.StepResult{Outcome: api.Changed}
}

func (h *fakeHost) ExportImage(ctx context.Context, req api.ExportImage, w io.Writer) error {
	id := req.ID
	h.mu.Lock()
	text, ok := h.images[id]
	h.exports++
	h.exported++
	h.mostExports = max(h.mostExports, h.exports)
	h.mu.Unlock()
	defer func() { h.mu.Lock(); h.exports--; h.mu.Unlock() }()
	time.Sleep(h.exportTakes)
	if !ok {
		return fmt.Errorf("no image %s", id)
	}
	if req.Base != "" {
		text = "difference to " + req.Base + "\n" + text
	}
	if req.From > 0 {
		text = fmt.Sprintf("difference to %s from %d\n%s", req.Base, req.From, strings.TrimPrefix(text, "difference to "+req.Base+"\n"))
	}
	limit := len(text)
	if h.exportLimit > 0 {
		limit = h.exportLimit
	}
	for part := range slices.Chunk([]byte(text)[:limit], 32<<10) {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	if limit < len(text) {
		return errors.New("export: input/output error")
	}
	return nil
}

func (h *fakeHost) ImportImage(ctx context.Context, want string, r io.Reader) error {
	if h.stall != nil {
		select {
		case <-h.stall:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if h.importLimit > 0 {
		io.CopyN(io.Discard, r, int64(h.importLimit))
		return errUnreachable
	}
	text, err := io.ReadAll(r)
	if base, rest, is := bytes.Cut(text, []byte("\n")); is && bytes.HasPrefix(base, []byte("difference to ")) {
		h.mu.Lock()
		h.log = append(h.log, string(base))
		h.mu.Unlock()
		if text = rest; h.badBase {
			return errors.New("object 0123 is damaged")
		}
	}
	sum := sha256.Sum256(text)
	if id := "sha256:" + hex.EncodeToString(sum[:]); err != nil || id != want {
		return fmt.Errorf("import image: it is %s, want %s", id, want)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, "image import")
	name, _, _ := strings.Cut(string(text), "the root")
	h.hold(imageNamed(name), string(text))
	return nil
}

func (h *fakeHost) DeleteVolume(context.Context, api.DeleteVolume) (api.Deleted, error) {
	return api.Deleted{}, nil
}

func (h *fakeHost) Arrived(context.Context, api.ExportImage) (api.Arrived, error) {
	return api.Arrived{Parts: !h.plainTrees, Contents: h.arrived}, nil
}

func (h *fakeHost) CollectImages(context.Context, api.Collect) (api.Collected, error) {
	return api.Collected{}, nil
}

// MakeImage builds an image whose content is named by the bytes.
func (h *fakeHost) MakeImage(_ context.Context, req api.MakeImage, r io.Reader, event func(api.Event)) (api.StepResult, error) {
	text, err := io.ReadAll(r)
	if err == nil && h.makeFails != "" {
		err = errors.New(h.makeFails)
	}
	if err != nil {
		return api.StepResult{}, err
	}
	event(api.Event{Kind: api.Progress, Message: "unpacking"})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, "image.make "+req.Spec.Name)
	h.hold(&inventory.Image{Name: req.Spec.Name, Method: req.Spec.Method, Args: req.Spec.Args}, req.Spec.Name+"the root of "+api.FileDigest(text))
	made := &h.state.Images[len(h.state.Images)-1]
	made.Source = req.Source
	return api.StepResult{Outcome: api.Changed, Image: made}, nil
}

func (h *fakeHost) RemoveImage(context.Context, api.RemoveImage) (api.RemovedImage, error) {
	return api.RemovedImage{}, nil
}

// outcomes is what came of the hosts, in order.
func outcomes(r report.Run) string {
	var list []string
	for _, h := range r.Hosts {
		list = append(list, h.Name+" "+string(h.Status))
	}
	return strings.Join(list, ", ")
}

// results are the outcomes of a host's steps, one per line.
func results(h report.Host) []string {
	var list []string
	for _, s := range h.Steps {
		line := fmt.Sprintf("%s %s %s", s.Kind, s.Name, s.Outcome)
		if s.Error != "" {
			line += ": " + s.Error
		}
		list = append(list, line)
	}
	return list
}

// within fails a test that waits for what does not happen.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
