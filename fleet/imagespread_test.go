package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/versions"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func imageID(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

// fleetOf loads an inventory, and has its hosts answer with images and with guests of the
// first of them; a host with no entry does not answer.
func fleetOf(t *testing.T, yaml string, has map[string][]api.Image) (*inventory.Inventory, Answers[api.State]) {
	t.Helper()
	inv := inventoryOf(t, yaml)
	var answers Answers[api.State]
	for _, h := range inv.Hosts {
		var answer = Answers[api.State]{{Host: h, Outcome: outcome.Unreachable, Err: errors.New("no answer")}}[0]
		if images, ok := has[h.Name]; ok {
			answer.Outcome, answer.Err = outcome.OK, nil
			answer.Value = api.State{Host: api.Host{Arch: "amd64"}, Images: images}
			if h.Name == "arm1" {
				answer.Value.Host.Arch = "arm64"
			}
			if len(images) > 0 {
				answer.Value.Guests = []api.GuestState{{Guest: api.Guest{Name: "www", Image: images[0].ID}}}
			}
		}
		answers = append(answers, answer)
	}
	return inv, answers
}

const spreadFleet = `
hosts:
  web[1-3]: {address: "203.0.113.[11-13]"}
  arm1: {address: 203.0.113.2}
  db1: {address: 203.0.113.3}
  db2: {address: 203.0.113.4}
groups:
  serving: {hosts: ["web[1-3]", arm1, db2]}
images:
  base: {method: template, args: [-t, /base.tar]}
guests:
  www: {on: serving, image: base, network: {mode: nat}}
`

func TestSpread(t *testing.T) {
	image := func(name, digit string) api.Image {
		return api.Image{ID: imageID(digit), Spec: api.ImageSpec{Name: name}}
	}
	inv, answers := fleetOf(t, spreadFleet, map[string][]api.Image{
		"web1": {image("base", "2"), image("base", "1")},
		"web2": {image("base", "1"), image("base", "2")},
		"web3": {image("base", "1"), image("box", "7")},
		"arm1": {image("base", "a")},
		"db2":  {},
	})
	key := plan.Spec(inv.Image("base")).Key()
	known := versions.File{Images: map[string][]versions.Version{"base": {
		{Number: 1, ID: imageID("1"), Key: key, Arch: "amd64"},
		{Number: 2, ID: imageID("2"), Key: key, Arch: "amd64"}, {Number: 2, ID: imageID("a"), Key: key, Arch: "arm64"},
	}}}
	want := []report.ImageSpread{
		{
			Name: "base", Version: 2, IDs: []string{imageID("2"), imageID("a")}, Hosts: 6, Have: []string{"web1", "web2", "arm1"},
			Others: []report.OtherImage{{Version: 1, ID: imageID("1"), Hosts: []string{"web3"}}},
			Lack:   []string{"db2"}, Unknown: []string{"db1"}, Guests: 4, Current: 2,
		},
		{
			Name: "box", IDs: []string{imageID("7")}, Hosts: 6, Have: []string{"web3"},
			Others: []report.OtherImage{}, Lack: []string{}, Unknown: []string{"db1"},
		},
	}
	if got := Spread(inv, known, answers); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	// Without versions, what most hosts have counts.
	got := Spread(inv, versions.File{}, answers)[0]
	if got.Version != 0 || len(got.Have) != 4 || len(got.Others) != 0 {
		t.Errorf("without versions: %+v", got)
	}
}

// What image diff is asked to compare.
func TestImagesAreFound(t *testing.T) {
	image := func(digit string) api.Image { return api.Image{ID: imageID(digit), Spec: api.ImageSpec{Name: "other"}} }
	inv, answers := fleetOf(t, spreadFleet, map[string][]api.Image{"web1": {image("5"), image("6")}, "arm1": {image("a")}})
	known := versions.File{Images: map[string][]versions.Version{"old": {
		{Number: 1, ID: imageID("5"), Key: "k", Arch: "amd64"}, {Number: 2, ID: imageID("6"), Key: "k", Arch: "amd64"},
		{Number: 2, ID: imageID("a"), Key: "k", Arch: "arm64"}, {Number: 3, ID: imageID("9"), Key: "k", Arch: "amd64"},
	}}}
	d := ImageDiffer{Access: &Access{}, Inventory: inv, Known: known, Answers: answers}
	for _, row := range []struct {
		name, text string
		ids        []string
		err        string
	}{
		{"a version", "old@1", []string{imageID("5")}, ""},
		{"a version of two architectures", "old@2", []string{imageID("6"), imageID("a")}, ""},
		{"a version that no host has", "old@3", nil, "none of these hosts has image old@3"},
		{"a version that is none", "old@4", nil, `old has no version "4"`},
		{"not a number", "old@new", nil, `old has no version "new"`},
		{"the beginning of an ID", "5555", []string{imageID("5")}, ""},
		{"an ID", imageID("a"), []string{imageID("a")}, ""},
		{"a name that is not in the inventory", "other", nil, "other may be several images: "},
		{"an image that no host has", "base", nil, "none of these hosts has image base"},
		{"a word", "bose", nil, "did you mean base?"},
	} {
		t.Run(row.name, func(t *testing.T) {
			list, err := d.find(row.text)
			var ids []string
			for _, i := range list {
				ids = append(ids, i.ID)
			}
			if !reflect.DeepEqual(ids, row.ids) || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("%v, %v", ids, err)
			}
		})
	}
	if from, to, err := d.before("old@3"); from != "old@2" || to != "old@3" || err != nil {
		t.Errorf("before old@3: %s, %s, %v", from, to, err)
	}
	if _, _, err := d.before("old@1"); err == nil || !strings.Contains(err.Error(), "no version before 1") {
		t.Errorf("before old@1: %v", err)
	}
}

func inventoryOf(t *testing.T, yaml string) *inventory.Inventory {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fleet.yml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}
