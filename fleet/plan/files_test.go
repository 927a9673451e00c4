package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func motd(change ...func(*inventory.File)) func(*inventory.Guest) {
	f := inventory.File{Path: "/etc/motd", Content: []byte("hello\n"), Mode: 0o644, Owner: "root:root"}
	for _, c := range change {
		c(&f)
	}
	return func(g *inventory.Guest) { g.Files = append(g.Files, f) }
}

func TestPlanOfFiles(t *testing.T) {
	restarts := func(f *inventory.File) { f.OnChange.Restart = true }
	stopped := func(g *api.GuestState) { g.Status = api.Stopped }
	differ := api.GuestFilesState{Guest: "www", Files: []api.FileState{{Path: "/etc/motd", Differs: "content"}}}
	for _, tt := range []struct {
		name  string
		want  *inventory.Guest
		have  []api.GuestState
		files api.GuestFilesState
		steps string
	}{
		{
			"a guest that is created has its files before it starts", www(motd()), nil, api.GuestFilesState{},
			`guest.create www sha256:b1: it is not on the host
			 guest.files www: /etc/motd: the inventory has it
			 guest.start www: the inventory says running`,
		},
		{
			"files of a guest whose configuration is made anew first", www(motd()),
			[]api.GuestState{there(func(g *api.GuestState) { g.Problem = "context: not a number" })},
			api.GuestFilesState{Guest: "www", Problem: "context: not a number"},
			`guest.configure www sha256:b1: its configuration cannot be used: context: not a number
			 guest.files www: /etc/motd: the inventory has it
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"a hook that the inventory no longer has is removed", www(), []api.GuestState{there(func(g *api.GuestState) { g.Hooks = []string{"pre-stop"} })},
			api.GuestFilesState{Guest: "www", Files: []api.FileState{{Path: "scripts/pre-stop.d/50-inventory", Differs: "it is to be removed"}}},
			`guest.files www: scripts/pre-stop.d/50-inventory: it is to be removed`,
		},
		{"a guest that runs on without what it lacks", www(), []api.GuestState{there()}, api.GuestFilesState{Guest: "www", Missing: []string{"mounts: open /srv/x: not there"}}, ""},
		{"files that are as they should be", www(motd()), []api.GuestState{there()}, api.GuestFilesState{Guest: "www"}, ""},
		{
			"a file that differs is written live", www(motd()), []api.GuestState{there()}, differ,
			`guest.files www: /etc/motd: content`,
		},
		{
			"one that asks for a restart", www(motd(restarts)), []api.GuestState{there()}, differ,
			`guest.files www: /etc/motd: content
			 guest.restart www: /etc/motd changes`,
		},
		{
			"one restart for all reasons", www(motd(restarts), func(g *inventory.Guest) { g.Hostname = "w" }), []api.GuestState{there()}, differ,
			`guest.configure www sha256:b1: hostname www → w
			 guest.files www: /etc/motd: content
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"a stopped guest has them before it starts", www(motd(restarts)), []api.GuestState{there(stopped)}, differ,
			`guest.files www: /etc/motd: content
			 guest.start www: it is stopped, the inventory says running`,
		},
		{
			"what a killed run did not come to is made up for", www(motd()), []api.GuestState{there()},
			api.GuestFilesState{Guest: "www", Pending: []api.OnChange{{Command: []string{"nginx", "-s", "reload"}}, {Restart: true}}},
			`guest.files www: after an earlier change it was not told: nginx -s reload
			 guest.restart www: files changed since it was started`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Make(&inventory.Host{Name: "web01", Guests: []*inventory.Guest{tt.want}}, state(tt.have...), api.FilesAnswer{Guests: []api.GuestFilesState{tt.files}}, Rules{Image: images})
			if len(p.Refused) > 0 {
				t.Fatalf("refused: %v", p.Refused)
			}
			if got, want := written(p), lines(tt.steps); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	p := Make(&inventory.Host{Guests: []*inventory.Guest{www(motd())}}, state(there()),
		api.FilesAnswer{Guests: []api.GuestFilesState{{Guest: "www", Problem: "/etc/motd: a directory is in its place"}}}, Rules{Image: images})
	if len(p.Refused) != 1 || p.Refused[0].Err.Error() != "its files: /etc/motd: a directory is in its place" {
		t.Errorf("refused: %v", p.Refused)
	}
}

// What a guest cannot start without is asked for, and named before anything is changed.
func TestPlanOfAGuestThatWouldNotStart(t *testing.T) {
	want := func(change ...func(*inventory.Guest)) *inventory.Guest {
		g := www(change...)
		g.Mounts = []setting.Mount{
			{Type: setting.Bind, Source: "/srv/x", Target: "/x"}, {Type: setting.RBind, Source: "/srv/y", Target: "/y", Options: []string{"nofail", "ro"}},
			{Type: setting.Tmpfs, Target: "/z"},
		}
		g.Devices = []setting.Device{{Source: "/dev/y", Target: "/dev/y", Access: "rw"}}
		return g
	}
	hook := func(g *inventory.Guest) {
		g.Files = append(g.Files, inventory.File{Path: setting.HookFile("pre-start"), Mode: 0o755})
	}
	missing := []string{"mounts: open /srv/x: not there", "device /dev/y: not there"}
	for _, tt := range []struct {
		name    string
		want    *inventory.Guest
		have    []api.GuestState
		asked   string
		refused string
	}{
		{"one that is not there", want(), nil, "/srv/x /dev/y", "it would not start: mounts: open /srv/x: not there; device /dev/y: not there"},
		{"one that a restart would end", want(func(g *inventory.Guest) { g.Hostname = "w" }), []api.GuestState{there()}, "/srv/x /dev/y", "it would not start: mounts: "},
		{"one that is to be stopped", want(func(g *inventory.Guest) { g.State = inventory.Stopped }), []api.GuestState{there()}, "", ""},
		{"one whose hook may make it", want(hook), nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := &inventory.Host{Name: "web01", Guests: []*inventory.Guest{tt.want}}
			req, err := FilesRequest(host, state(tt.have...), false)
			if err != nil {
				t.Fatal(err)
			}
			var asked []string
			var answer api.FilesAnswer
			for _, g := range req.Guests {
				if asked = append(g.Sources, g.Devices...); asked != nil {
					answer.Guests = append(answer.Guests, api.GuestFilesState{Guest: g.Guest, Missing: missing})
				}
			}
			if got := strings.Join(asked, " "); got != tt.asked {
				t.Errorf("asked for %q, want %q", got, tt.asked)
			}
			p := Make(host, state(tt.have...), answer, Rules{Image: images})
			if tt.refused == "" && len(p.Refused) > 0 || tt.refused != "" && (len(p.Refused) != 1 || !strings.HasPrefix(p.Refused[0].Err.Error(), tt.refused) || len(p.Steps) > 0) {
				t.Errorf("refused: %v, steps %v", p.Refused, p.Steps)
			}
		})
	}
}

// Equal specs have equal keys whether they hold the contents or not, and other
// files make another image.
func TestKeyOfAnImageWithFiles(t *testing.T) {
	image := *bookworm
	image.Files = []inventory.File{{Path: "/etc/motd", Content: []byte("a"), Mode: 0o644, Owner: "root:root"}}
	spec := Spec(&image)
	if spec.Files[0].Content == nil || spec.Record().Files[0].Content != nil || spec.Key() != spec.Record().Key() {
		t.Errorf("spec %+v, record %+v", spec, spec.Record())
	}
	for name, change := range map[string]func(*inventory.File){
		"content": func(f *inventory.File) { f.Content = []byte("b") },
		"mode":    func(f *inventory.File) { f.Mode = 0o600 },
		"owner":   func(f *inventory.File) { f.Owner = "1:1" },
		"path":    func(f *inventory.File) { f.Path = "/etc/issue" },
	} {
		other := image
		other.Files = slices.Clone(image.Files)
		change(&other.Files[0])
		if Spec(&other).Key() == spec.Key() {
			t.Errorf("another %s has the same key", name)
		}
	}
	if Spec(bookworm).Key() == spec.Key() {
		t.Error("with files and without have the same key")
	}
}
