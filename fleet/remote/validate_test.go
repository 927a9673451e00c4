package remote

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

const goodID = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestAnswersThatCannotBe(t *testing.T) {
	state := func(b string) error { _, err := decode[api.State]([]byte(b)); return err }
	stat := func(b string) error { _, err := decode[api.Stat]([]byte(b)); return err }
	apply := func(b string) error { _, err := decode[api.ApplyResult]([]byte(b)); return err }
	check := func(b string) error { _, err := decode[api.Check]([]byte(b)); return err }
	installed := func(b string) error { _, err := decode[api.Installed]([]byte(b)); return err }
	removed := func(b string) error { _, err := decode[api.RemovedImage]([]byte(b)); return err }
	kept := func(b string) error { _, err := decode[api.Generations]([]byte(b)); return err }
	hashified := func(b string) error { _, err := decode[api.Hashified]([]byte(b)); return err }
	volumes := func(b string) error { _, err := decode[api.Volumes]([]byte(b)); return err }
	confirmed := func(b string) error { _, err := decode[api.Confirmed]([]byte(b)); return err }
	guest := func(fields string) string {
		return `{"guests": [{"name": "www", "context": 120, "status": "running"` + fields + `}]}`
	}
	image := func(id string) string { return fmt.Sprintf(`{"images": [{"id": %q}]}`, id) }
	for _, row := range []struct {
		name string
		read func(string) error
		in   string
		want string // of an error; "": it can be
	}{
		{"a host with a guest and an image", state, strings.TrimSuffix(guest(`, "image": "`+goodID+`"`), "}") + `, "images": [{"id": "` + goodID + `", "key": "` + goodID[7:] + `"}]}`, ""},
		{"an ID that is a command", state, image(`sha256:\'; touch /tmp/x; #`), "image ID"},
		{"an ID that is a path", state, image("sha256:../../etc"), "image ID"},
		{"an ID of another length", state, image(goodID[:70]), "image ID"},
		{"an ID with a line's end", state, image(goodID + "\n"), "image ID"},
		{"a guest's image", state, guest(`, "image": "x"`), `guest "www": image "x"`},
		{"a name with a slash", state, `{"guests": [{"name": "../x", "status": "stopped"}]}`, `name "../x"`},
		{"a name that is an option", state, `{"guests": [{"name": "-rf", "status": "stopped"}]}`, `name "-rf"`},
		{"a name with an escape", state, `{"guests": [{"name": "w\u009bw", "status": "stopped"}]}`, "name"},
		{"a guest that is there twice", state, `{"guests": [{"name": "a", "status": "stopped"}, {"name": "a", "status": "stopped"}]}`, "twice"},
		{"a context that cannot be", state, guest(`, "context": 50000`), "context 50000"},
		{"a status that is none", state, `{"guests": [{"name": "a", "status": "so\u001bso"}]}`, `status "so`},
		{"a limit below nothing", state, guest(`, "limits": {"memoryBytes": -1}`), "limits"},
		{"what another guest runs by", state, guest(`, "runs": {"name": "a b"}`), `name "a b"`},
		{"a number beyond numbers", state, guest(`, "processes": 99999999999999999999`), "cannot unmarshal number"},
		{"a method that is none", state, `{"host": {"methods": ["a b"]}}`, "method"},
		{"a machine without memory", state, `{"host": {"memoryBytes": -5}}`, "memory"},
		{"the host's own row", stat, `{"rows": [{"name": "root server"}]}`, ""},
		{"a row with a name that cannot be", stat, `{"rows": [{"context": 5, "name": "a b"}]}`, `guest "a b"`},
		{"memory that would overflow a sum", stat, `{"rows": [{"context": 5, "name": "a", "rss": 18446744073709551615}]}`, "bytes"},
		{"a time before all time", stat, `{"rows": [{"context": 5, "name": "a", "uptime": -1}]}`, "times"},
		{"an image that was built", apply, `{"results": [{"outcome": "changed", "image": {"id": "sha256:x"}}]}`, "step 1: image ID"},
		{"an outcome that is none", apply, `{"results": [{"outcome": "great"}]}`, `outcome "great"`},
		{"where vsnode was installed", installed, `{"path": "/usr/local/sbin/vsnode", "links": ["vserver"]}`, ""},
		{"a file that moves the cursor", installed, `{"path": "/usr\u001b[2J"}`, "file"},
		{"a link that is a text", installed, `{"path": "/x", "links": ["all your hosts"]}`, "file"},
		{"an image that was not there", removed, `{}`, ""},
		{"an image removed elsewhere", removed, `{"id": "../../etc"}`, "image ID"},
		{"what is kept of a guest", kept, `{"kept": [{"guest": "www", "run": "20261128T120000Z-0123abcd"}]}`, ""},
		{"what is kept of a path", kept, `{"kept": [{"guest": "../www", "run": "x"}]}`, `guest "../www"`},
		{"a run that is a text", kept, `{"kept": [{"guest": "www", "run": "a\u001b[2J"}]}`, `run "a`},
		{"what a guest gave up", hashified, `{"guests": [{"name": "www", "files": 2, "bytes": 8192, "added": 4096}]}`, ""},
		{"less than nothing", hashified, `{"guests": [{"name": "www", "bytes": -1}]}`, "-1 bytes"},
		{"a guest that is a text", hashified, `{"guests": [{"name": "\u001b[2J"}]}`, "guest"},
		{"a volume of a guest", volumes, `{"volumes": [{"name": "data", "bytes": 4096, "guests": ["www"]}]}`, ""},
		{"a volume that is a path", volumes, `{"volumes": [{"name": "../data"}]}`, `volume "../data"`},
		{"a guest of a volume that is a text", volumes, `{"volumes": [{"name": "data", "guests": ["all\u001b"]}]}`, "guests"},
		{"a hook at no moment", state, guest(`, "hooks": ["post-start", "\u001b[2J"]`), "hooks"},
		{"what was put back", confirmed, `{"reverted": {"run": "20261128T120000Z-0123abcd", "guests": ["www"]}}`, ""},
		{"a guest that was put back and is a text", confirmed, `{"reverted": {"run": "x", "guests": ["all of them"]}}`, "guest"},
		{"a verdict that is none", check, `{"rows": [{"name": "x", "verdict": "maybe"}]}`, `verdict "maybe"`},
		{"a text without end", check, `{"rows": [{"name": "` + strings.Repeat("x", maxText+1) + `", "verdict": "yes"}]}`, "a text of more than 64 KiB"},
		{"lists within lists", check, strings.Repeat("[", 1000), "lists within each other"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.read(row.in)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

// Three bytes of a message decode to a guest of several hundred: 12 MB would take 3 GB.
func TestAMessageOfManySmallThings(t *testing.T) {
	for _, in := range []string{
		`{"guests":[` + strings.Repeat("{},", 4<<20) + `{}]}`,
		`{"guests":[{"unknown":[` + strings.Repeat(`"",`, 4<<20) + `""]}]}`,
		`{"images":[` + strings.Repeat(`{"spec":{"args":["",""]}},`, 500_000) + `{}]}`,
		`[` + strings.Repeat(`[`+strings.Repeat("0,", 40_000)+"0],", 100) + `0]`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decode[api.State]([]byte(in))
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Error("no error")
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
			t.Errorf("%d MiB for a message of %d: %v", used>>20, len(in)>>20, err)
		}
	}
}

func FuzzCheckSize(f *testing.F) {
	f.Add([]byte(`{"a":["\"",{}],"b":"\\"}`))
	f.Add([]byte(`]]]"\`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkSize(b); err != nil && len(b) < maxDepth {
			t.Fatal(err)
		}
	})
}
