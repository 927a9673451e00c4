package guest

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

func TestIndexFile(t *testing.T) {
	entries := map[string]*indexEntry{}
	for i := range 3 { // of all modes
		g := numbered(i)
		g = api.Guest{Name: g.Name, Context: g.Context, Network: api.Network{ // what is claimed
			Mode: g.Network.Mode, Addresses: g.Network.Addresses, Ports: g.Network.Ports, Forwards: g.Network.Forwards,
		}}
		entries[g.Name] = &indexEntry{Guest: g, Files: strings.Join([]string{".", "context"}, fileSep), Sum: uint64(i) << 60}
	}
	entries["bad"] = &indexEntry{Guest: api.Guest{Name: "bad"}, Bad: true, Files: ".", Sum: 7}
	volumes := []setting.Mount{{Type: setting.Volume, Source: "db", Target: "/a\tb", Options: []string{setting.SharedVolume}}}
	entries["runs"] = &indexEntry{Guest: api.Guest{Name: "runs", Context: 9, Volumes: volumes}, Root: "/var/lib/vservers/run s/root"}
	path := filepath.Join(t.TempDir(), "index")
	saveIndex(path, entries)
	if got := loadIndex(path); !reflect.DeepEqual(got, entries) {
		t.Errorf("%+v\nwant %+v", got, entries)
	}
	for name, root := range map[string]string{"a tab": "/a\tb", "a line break": "/a\nb"} { // is left out, to be read each time
		entries["runs"] = &indexEntry{Guest: api.Guest{Name: "runs"}, Root: root}
		saveIndex(path, entries)
		if got := loadIndex(path); len(got) != len(entries)-1 || got["runs"] != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzIndexEntry(f *testing.F) {
	for _, e := range []indexEntry{{Guest: numbered(0), Sum: 1 << 63, Files: "."}, {Guest: numbered(1)}, {Guest: numbered(2), Root: "/a"}, {Bad: true}} {
		f.Add(e.format())
	}
	f.Add("a\t1\tfalse\t.\t\t5\tshared\t10.0.0.1/8,\t80/tcp\t\t")
	f.Fuzz(func(t *testing.T, line string) {
		e, err := parseEntry(line)
		if err != nil {
			return
		}
		again, err := parseEntry(e.format())
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q is %+v, and that is read as %+v (%v)", line, e, again, err)
		}
	})
}
