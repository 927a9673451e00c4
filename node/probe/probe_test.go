package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

func TestVerdictsOfErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want api.Verdict
	}{
		{"it worked", nil, api.Yes},
		{"the kernel does not know the call", fmt.Errorf("fsopen: %w", unix.ENOSYS), api.No},
		{"the kernel does not know the flag", unix.EINVAL, api.No},
		{"root is refused (the tests are run by root)", unix.EPERM, api.No},
		{"BPF without what is asked for", fmt.Errorf("attach: %w", ebpf.ErrNotSupported), api.No},
		{"a full disk is no answer", unix.ENOSPC, api.Unknown},
		{"too many open files is no answer", unix.EMFILE, api.Unknown},
		{"an error that nobody knows", errors.New("odd"), api.Unknown},
	} {
		if got := Tried(c.err).Verdict; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("6.1.0-50-amd64")
	f.Fuzz(func(t *testing.T, text string) {
		if major, minor, ok := parseRelease(text); ok && (major < 0 || minor < 0) {
			t.Errorf("%q is %d.%d", text, major, minor)
		}
	})
}

// A yes is remembered; a no is asked again, and so is what may change.
func TestWhatIsAskedAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  Answer
		changes bool
		want    int32
	}{
		{"a yes", Yes("it is there"), false, 1},
		{"a no", No("it is not there"), false, 3},
		{"an unknown", Unknown("too many open files"), false, 3},
		{"a yes that may change", Yes("set"), true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int32
			a := &Ability{Name: "x", Changes: c.changes, Probe: func(*System) Answer {
				asked.Add(1)
				return c.answer
			}}
			s := &System{}
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					if got := s.Ask(a); got != c.answer {
						t.Errorf("got %+v, want %+v", got, c.answer)
					}
				})
			}
			all.Wait()
			if got := asked.Load(); got != c.want {
				t.Errorf("asked %d times, want %d", got, c.want)
			}
		})
	}
}

func TestErrorsNameTheRow(t *testing.T) {
	ability := func(got Answer) *Ability {
		return &Ability{Name: "mount API", Cure: "run a newer kernel", Probe: func(*System) Answer { return got }}
	}
	const refused = "mount root: invalid argument"
	for _, c := range []struct {
		name    string
		err     error
		answer  Answer
		want    string
		missing bool
	}{
		{"what is missing explains the error", fmt.Errorf("mount root: %w", unix.EINVAL), No("fsopen: function not implemented"),
			refused + "; this host lacks mount API: fsopen: function not implemented (run a newer kernel)", true},
		{"a cure of the probe's own", fmt.Errorf("mount root: %w", unix.EINVAL), No("x is 0").WithCure("sysctl -w x=1"),
			refused + "; this host lacks mount API: x is 0 (sysctl -w x=1)", true},
		{"a module of netlink is missing", fmt.Errorf("list tcp sockets: %w", unix.ENOENT), No("not loaded"),
			"list tcp sockets: no such file or directory; this host lacks mount API: not loaded (run a newer kernel)", true},
		{"a file is missing", &os.PathError{Op: "open", Path: "/x", Err: unix.ENOENT}, No("not loaded"), "open /x: no such file or directory", false},
		{"all is there", fmt.Errorf("mount root: %w", unix.EINVAL), Yes(""), refused, false},
		{"it could not be told", fmt.Errorf("mount root: %w", unix.EINVAL), Unknown("odd"), refused, false},
		{"an error that no ability would have prevented", fmt.Errorf("mount root: %w", unix.ENOSPC), No("x"), "mount root: no space left on device", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Here().Explain(c.err, ability(c.answer))
			if err.Error() != c.want || errors.Is(err, ErrMissing) != c.missing || !errors.Is(err, errors.Unwrap(c.err)) {
				t.Errorf("error %v, missing %v; want %s", err, errors.Is(err, ErrMissing), c.want)
			}
		})
	}
	if err := Here().Explain(nil, ability(No("x"))); err != nil {
		t.Errorf("an error of nothing: %v", err)
	}
	if err := Want(ability(Yes(""))); err != nil {
		t.Errorf("wanted what is there: %v", err)
	}
	err := Want(ability(Unknown("too many open files")))
	if err == nil || errors.Is(err, ErrMissing) || err.Error() != "mount API: could not be told: too many open files" {
		t.Errorf("could not be told: %v", err)
	}
}

func TestDebootstrapIsFoundAsABuildFindsIt(t *testing.T) {
	for _, c := range []struct {
		name  string
		tools []string
		want  string // empty: a no
	}{
		{"mmdebstrap", []string{"mmdebstrap"}, "mmdebstrap"},
		{"debootstrap", []string{"debootstrap"}, "debootstrap"},
		{"both", []string{"debootstrap", "mmdebstrap"}, "mmdebstrap"},
		{"neither", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin := t.TempDir()
			for _, tool := range c.tools {
				if err := os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin)
			want := Answer{Verdict: api.Yes, Detail: filepath.Join(bin, c.want)}
			if c.want == "" {
				want = No("mmdebstrap or debootstrap is not installed")
			}
			if got := Ask(Debootstrap); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got := Debootstrap.Row(want); c.want == "" && !strings.Contains(got.Cure, "apt-get") {
				t.Errorf("cure %q", got.Cure)
			}
		})
	}
}

func TestModulesThatCannotBeLoaded(t *testing.T) {
	const usual, lost = "modprobe", "kernel.modules_disabled keeps modules from being loaded: name %s in /etc/modules-load.d and reboot"
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const dep = "lib/modules/6.1.0/modules.dep"
	files := file("kernel/drivers/net/veth.ko:\nkernel/fs/erofs/erofs.ko.xz: kernel/lib/crc32c.ko.xz\n")
	off, on := file("1\n"), file("0\n")
	for _, c := range []struct {
		name  string
		found Answer
		files fstest.MapFS
		want  string
	}{
		{"a kernel that loads modules", No("not supported"), fstest.MapFS{"proc/sys/kernel/modules_disabled": on, dep: files}, usual},
		{"a kernel that loads no more of them", No("not supported"), fstest.MapFS{"proc/sys/kernel/modules_disabled": off, dep: files}, fmt.Sprintf(lost, "veth, erofs")},
		{"one of the modules is there already", No("not supported"),
			fstest.MapFS{"proc/sys/kernel/modules_disabled": off, dep: files, "sys/module/veth/uevent": file("")}, fmt.Sprintf(lost, "erofs")},
		{"all of them are", No("not permitted"),
			fstest.MapFS{"proc/sys/kernel/modules_disabled": off, dep: files, "sys/module/veth/uevent": file(""), "sys/module/erofs/features": file("")}, usual},
		{"what works has all that it needs", Yes("it works"), fstest.MapFS{"proc/sys/kernel/modules_disabled": off, dep: files}, ""},
		{"modules that are built in", No("not supported"), fstest.MapFS{"proc/sys/kernel/modules_disabled": off, dep: file("kernel/drivers/net/tun.ko:\n")}, usual},
		{"a kernel whose modules are not known", No("not supported"), fstest.MapFS{"proc/sys/kernel/modules_disabled": off}, usual},
		{"a kernel without modules", No("not supported"), fstest.MapFS{dep: files}, usual},
	} {
		a := &Ability{Name: "x", Cure: usual, Modules: []string{"veth", "erofs"}, Probe: func(*System) Answer { return c.found }}
		s := &System{Files: c.files, Release: "6.1.0"}
		if got := a.Row(s.Ask(a)).Cure; got != c.want {
			t.Errorf("%s: cure %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRulesWhoseModulesCannotBeLoaded: nf_tables alone is not enough.
func TestRulesWhoseModulesCannotBeLoaded(t *testing.T) {
	s := &System{Release: "6.1.0", Files: fstest.MapFS{
		"proc/sys/kernel/modules_disabled": {Data: []byte("1\n")},
		"lib/modules/6.1.0/modules.dep":    {Data: []byte("kernel/net/netfilter/nft_ct.ko: kernel/net/netfilter/nf_tables.ko\nkernel/net/netfilter/nft_nat.ko:\n")},
		"sys/module/nf_tables/uevent":      {},
		"sys/module/nft_nat/uevent":        {},
	}}
	got := s.Ask(NFTables)
	if got.Verdict != api.No || got.Detail != "not loaded: nft_ct" || !strings.Contains(got.Cure, "name nft_ct in") {
		t.Errorf("got %+v", got)
	}
}

func TestSocketsOfTheHostAreListed(t *testing.T) {
	if got := Ask(SocketDiag); got.Verdict != api.Yes {
		t.Errorf("got %+v", got)
	}
}
