package systemd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestWhatAGuestHasBeyondTheTemplate(t *testing.T) {
	for _, row := range []struct {
		what  string
		guest Guest
		want  string
	}{
		{"nothing", Guest{Name: "www"}, ""},
		{"a restart that is the default", Guest{Name: "www", Restart: "no"}, ""},
		{"all", Guest{"www", "night", []string{"db", "cache-1"}, "always", 5, "600", []string{"CPUWeight=200", "MemoryLow=1048576"}}, `[Unit]
Wants=vserver@db.service vserver@cache-1.service
After=vserver@db.service vserver@cache-1.service
PartOf=vservers-night.target
StartLimitBurst=5
StartLimitIntervalSec=600
[Service]
Restart=always
CPUWeight=200
MemoryLow=1048576
`},
	} {
		t.Run(row.what, func(t *testing.T) {
			if got := row.guest.DropIn(); got != row.want {
				t.Errorf("got\n%s\nwant\n%s", got, row.want)
			}
		})
	}
}

func testUnits(t *testing.T) Units {
	dir := t.TempDir()
	return Units{filepath.Join(dir, "run"), filepath.Join(dir, "etc"), filepath.Join(dir, "lib", "vsnode"), filepath.Join(dir, "lock")}
}

func TestUnitsAreWrittenByManyAtOnce(t *testing.T) {
	u := testUnits(t)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			g := Guest{Name: fmt.Sprintf("www%d", i), Mark: "night"}
			if err := errors.Join(u.Enable(t.Context(), g.Mark), u.Write(t.Context(), g)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i := range 20 {
		if err := u.Write(t.Context(), Guest{Name: fmt.Sprintf("www%d", i)}); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(u.run); len(left) != 1 {
		t.Errorf("it leaves %v", left)
	}
}

func TestTheSliceKeepsWhatItsGuestsKeep(t *testing.T) {
	u := testUnits(t)
	for _, row := range []struct {
		what string
		do   func() error
		want string
	}{
		{"nobody keeps any", func() error { return u.Write(t.Context(), Guest{Name: "www", Shares: []string{"CPUWeight=200"}}) }, ""},
		{"one", func() error {
			return u.Write(t.Context(), Guest{Name: "www", Shares: []string{"CPUWeight=200", "MemoryLow=100"}})
		}, "[Slice]\nMemoryLow=100\n"},
		{"a second one", func() error {
			return u.Write(t.Context(), Guest{Name: "db", Shares: []string{"MemoryLow=50", "MemoryMin=7"}})
		}, "[Slice]\nMemoryLow=150\nMemoryMin=7\n"},
		{"the first is deleted", func() error { return u.Forget(t.Context(), "www") }, "[Slice]\nMemoryLow=50\nMemoryMin=7\n"},
		{"the second keeps none any more", func() error { return u.Write(t.Context(), Guest{Name: "db"}) }, ""},
	} {
		if err := row.do(); err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		got, err := os.ReadFile(u.dropIn(Slice))
		if err != nil && !errors.Is(err, os.ErrNotExist) || string(got) != row.want {
			t.Errorf("%s: %q, %v; want %q", row.what, got, err, row.want)
		}
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	u := testUnits(t)
	if err := u.Write(t.Context(), Guest{Name: "www", Restart: "always", Shares: []string{"MemoryLow=100"}}, Guest{Name: "db"}); err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"default", "night"} {
		if err := u.Enable(t.Context(), mark); err != nil {
			t.Fatal(err)
		}
		if err := u.WriteTarget(t.Context(), mark, []Guest{{Name: "www", Mark: "night"}}); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(u.etc, "vserver@www.service.d", "override.conf")
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, []byte("[Service]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := u.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	filepath.Walk(filepath.Dir(u.run), func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && path != u.lock {
			left = append(left, path)
		}
		return err
	})
	if len(left) != 1 || left[0] != own {
		t.Errorf("it leaves %v, want an administrator's %s", left, own)
	}
}

func TestTheBinaryIsThisProgram(t *testing.T) {
	u := testUnits(t)
	for range 2 { // the second time it is there
		if err := u.placeBinary(); err != nil {
			t.Fatal(err)
		}
	}
	ours, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(u.binary)
	if err != nil || string(ours) != string(theirs) {
		t.Errorf("%s is another program, %v", u.binary, err)
	}
}

// What systemd itself says of the units: systemd-analyze is in Debian's systemd.
func TestSystemdTakesTheUnits(t *testing.T) {
	u := testUnits(t)
	if err := u.Write(t.Context(), Guest{"www", "night", []string{"db"}, "on-failure", 5, "600", []string{"CPUWeight=200", "IOWeight=50", "MemoryLow=1048576", "MemoryMin=4096"}}); err != nil {
		t.Fatal(err)
	}
	if err := u.Enable(t.Context(), "night"); err != nil {
		t.Fatal(err)
	}
	var units []string
	for dir, from := range map[string]string{u.run: "vserver@.service", u.etc: "vservers@.service"} {
		text, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			t.Fatal(err)
		}
		// The program is looked for.
		text = []byte(strings.ReplaceAll(string(text), Binary, "/bin/true"))
		unit := filepath.Join(t.TempDir(), strings.Replace(from, "@", "@www", 1))
		if err := os.WriteFile(unit, text, 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
