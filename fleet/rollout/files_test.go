package rollout

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// What files should hold leaves the controller only to be written.
func TestFilesAreAskedForWithoutTheirContents(t *testing.T) {
	f := newFleet(t, "a")
	f.inv.Hosts[0].Guests[0].Files = []inventory.File{{Path: "/etc/key", Content: []byte("geheim"), Mode: 0o600, Owner: "root:root", Secret: true}}
	h := f.hosts["a"].has(bookworm)
	h.state.Guests = []api.GuestState{there()}
	var asked []api.File
	h.asked = func(req api.FilesRequest) { asked = req.Guests[0].Files }
	r := f.apply(within(t))
	if len(asked) != 1 || asked[0].Content != nil || asked[0].Digest != api.FileDigest([]byte("geheim")) {
		t.Errorf("asked for %+v", asked)
	}
	if got := h.files["www/etc/key"]; got != api.FileDigest([]byte("geheim")) {
		t.Errorf("written: %q, %v", got, results(r.Hosts[0]))
	}
	if again := f.apply(within(t)); again.Hosts[0].Status != outcome.OK {
		t.Errorf("again: %s, %v", again.Hosts[0].Status, results(again.Hosts[0]))
	}
}

// A request is bounded: large files are sent in several, the steps of each guest in one.
func TestManyFilesGoInSeveralRequests(t *testing.T) {
	f := newFleet(t, "a")
	host := f.inv.Hosts[0]
	host.Guests = nil
	for i := range 5 {
		large := motd(func(file *inventory.File) { file.Content = make([]byte, 2<<20) })
		host.Guests = append(host.Guests, www(named(fmt.Sprintf("g%d", i), 130+i), large))
	}
	h := f.hosts["a"].has(bookworm)
	var most int
	h.seen = func(req api.Apply) {
		b, err := json.Marshal(req)
		if err != nil {
			t.Error(err)
		}
		most = max(most, len(b))
		if last := req.Steps[len(req.Steps)-1]; last.Kind != api.StepStart {
			t.Errorf("a request ends with %s of %s", last.Kind, last.Name)
		}
	}
	r := f.apply(within(t))
	if r.Hosts[0].Status != outcome.Changed || h.requests < 2 || most > wire.MaxMessage {
		t.Errorf("%s in %d requests of at most %d bytes: %v", r.Hosts[0].Status, h.requests, most, results(r.Hosts[0]))
	}
}
