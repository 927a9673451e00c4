package builder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func archive(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, name := range names {
		must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(name))}))
		_, err := io.WriteString(tw, name)
		must(t, err)
	}
	must(t, tw.Close())
	return b.Bytes()
}

func pack[W io.WriteCloser](t testing.TB, content []byte, open func(io.Writer) (W, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	must(t, err)
	_, err = w.Write(content)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// bzipped is a tar with the file etc/os-release, packed by bzip2: Go only unpacks.
const bzipped = "QlpoOTFBWSZTWZVSajwAAHT7gMqABABAAuWAEABqBJ4ACAggAHQSlPSZDRpo9QyegkkmjJpp6hoGj61CCEEMEIQ/byNqZyQIYGPDoeIosIZUGhXecM40ipepkcFjoZ5Hxex+KPOQ9ERAwLuSKcKEhKqTUeA="

// v7 takes from a tar what tar before POSIX did not write.
func v7(plain []byte) []byte {
	b := slices.Clone(plain)
	copy(b[257:512], make([]byte, 255))
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// xzAsking is an .xz whose first block asks for another dictionary.
func xzAsking(xzd []byte, size byte) []byte {
	b := slices.Clone(xzd)
	at := bytes.Index(b[:40], []byte{0x21, 1})
	b[at+2] = size
	return b
}

func TestTemplateIsKnownByItsFirstBytes(t *testing.T) {
	plain := archive(t, "etc/os-release")
	gz := pack(t, plain, func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil })
	xzd := pack(t, plain, func(w io.Writer) (*xz.Writer, error) { return xz.NewWriter(w) })
	gz2 := func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil }
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	must(t, err)
	zst := pack(t, plain, func(w io.Writer) (*zstd.Encoder, error) { return zstd.NewWriter(w) })
	for _, row := range []struct {
		name    string
		content []byte
		fails   string
	}{
		{"plain tar", plain, ""},
		{"gzip", gz, ""},
		{"two gzip members", slices.Concat(gz, pack(t, nil, func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil })), ""},
		{"xz", xzd, ""},
		{"zstd", zst, ""},
		{"a truncated tar", plain[:520], "unexpected EOF"},
		{"a tar that was cut off between two files", plain[:1024], "the archive has no end: it was cut off"},
		{"a tar that was cut off between two files, in gzip",
			pack(t, plain[:1024], func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil }), "the archive has no end"},
		{"a gzip with endless zeros behind the archive",
			pack(t, append(slices.Clone(plain), make([]byte, maxPadding+1)...), func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil }), "goes on after its end"},
		{"a truncated gzip", gz[:len(gz)-6], "unexpected EOF"},
		{"a gzip with a wrong check sum", append(slices.Clone(gz[:len(gz)-8]), 1, 2, 3, 4, gz[len(gz)-4], gz[len(gz)-3], 0, 0), "invalid checksum"},
		{"a truncated xz", xzd[:len(xzd)-6], "EOF"},
		{"a truncated zstd", zst[:len(zst)-3], "EOF"},
		{"bzip2", bz, ""},
		{"lzma", pack(t, plain, func(w io.Writer) (*lzma.Writer, error) { return lzma.NewWriter(w) }), ""},
		{"before POSIX", v7(plain), ""},
		{"gzip in two members", slices.Concat(pack(t, plain[:600], gz2), pack(t, plain[600:], gz2)), ""},
		{"gzip filled with zeros", slices.Concat(gz, make([]byte, 1024)), ""},
		{"gzip and what is not of it", slices.Concat(gz, []byte("trailing")), ""},
		{"gzip that was cut off", gz[:len(gz)-20], "unexpected EOF"},
		{"two archives in one", slices.Concat(plain, plain), "another archive follows its end"},
		{"lz4", []byte("\x04\x22\x4d\x18 and more"), "it is packed by lz4"},
		{"zip", []byte("PK\x03\x04 and more"), "it is a zip archive"},
		{"cpio", []byte("070701 and more"), "it is a cpio archive"},
		{"a disk image", []byte("QFI\xfb and more"), "it is a disk image"},
		{"xz that asks for 1 GiB", xzAsking(xzd, 36), "more than 128 MiB of memory"},
		{"lzma that asks for 1 GiB", []byte("\x5d\x00\x00\x00\x40 and more than that"), "more than 128 MiB of memory"},
		{"a text", []byte("#!/bin/sh\n"), "want a tar archive"},
		{"nothing", nil, "want a tar archive"},
		{"an empty tar", archive(t), "want a tar archive"},
		{"an empty tar in gzip", pack(t, archive(t), func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriter(w), nil }), "empty"},
	} {
		t.Run(row.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "template.jpg")
			must(t, os.WriteFile(file, row.content, 0o600))
			dir := t.TempDir()
			err := Run(context.Background(), Request{Spec: api.ImageSpec{Method: "template", Args: []string{"-t", file}}, Dir: dir})
			if row.fails == "" {
				must(t, err)
				if b, err := os.ReadFile(filepath.Join(dir, "etc/os-release")); err != nil || string(b) != "etc/os-release" {
					t.Errorf("unpacked %q, %v", b, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), row.fails) || len(row.content) > 0 && !strings.Contains(err.Error(), file) {
				t.Errorf("error is %v, want one with %q and the file's name", err, row.fails)
			}
		})
	}
}

func TestTemplatesAreStacked(t *testing.T) {
	tmp, dir := t.TempDir(), t.TempDir()
	one, two := filepath.Join(tmp, "one"), filepath.Join(tmp, "two")
	must(t, os.WriteFile(one, archive(t, "etc/base", "etc/both"), 0o600))
	must(t, os.WriteFile(two, archive(t, "./etc/both", "etc/extra"), 0o600))
	must(t, Run(context.Background(), Request{Spec: api.ImageSpec{Method: "template", Args: []string{"-t", one, "-t" + two}}, Dir: dir}))
	for name, want := range map[string]string{"etc/base": "etc/base", "etc/both": "./etc/both", "etc/extra": "etc/extra"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s is %q (%v), want %q", name, b, err, want)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for _, row := range []struct {
		name  string
		spec  api.ImageSpec
		fails string
	}{
		{"an unknown method", api.ImageSpec{Method: "magic"}, "no such method; there are debootstrap, dnf, yum, skeleton, template, rsync, clone, host and oci"},
		{"a mistyped method", api.ImageSpec{Method: "debotstrap"}, "no such method; did you mean debootstrap?"},
		{"a method of util-vserver", api.ImageSpec{Method: "rpm"}, "the method is not offered: it installed lists of packages without what they depend on; use dnf"},
		{"an rsync from nowhere", api.ImageSpec{Method: "rsync"}, "which tree? want -s"},
		{"an rsync of an option", api.ImageSpec{Method: "rsync", Args: []string{"-s", "--server"}}, `source "--server": want [[USER@]HOST:]DIRECTORY`},
		{"an rsync of a relative path", api.ImageSpec{Method: "rsync", Args: []string{"-s", "srv/x"}}, "want an absolute path, or HOST:DIRECTORY"},
		{"an rsync of a path that is not there", api.ImageSpec{Method: "rsync", Args: []string{"--source=/nowhere"}}, "no /nowhere on this host"},
		{"an rsync of the host with its images", api.ImageSpec{Method: "rsync", Args: []string{"-s", "/"}}, "/ holds the images of this host: copy a part of it, or use the method host"},
		{"an rsync that copies nothing", api.ImageSpec{Method: "rsync", Args: []string{"-s", "/srv", "--", "--dry-run"}}, "argument --dry-run: what comes of it is no copy"},
		{"an rsync that removes its source", api.ImageSpec{Method: "rsync", Args: []string{"-s", "/srv", "-o", "--remove-source-files"}}, "what comes of it is no copy"},
		{"an rsync of a second source", api.ImageSpec{Method: "rsync", Args: []string{"-s", "/srv", "--", "/etc"}}, `argument "/etc": want options of rsync`},
		{"a clone of nobody", api.ImageSpec{Method: "clone"}, "which guest? want -s GUEST"},
		{"a clone on a host without guests", api.ImageSpec{Method: "clone", Args: []string{"-s", "www"}}, "no guests on this host"},
		{"a clone with unification's excludes", api.ImageSpec{Method: "clone", Args: []string{"-s", "www", "-X", "list"}}, "argument -X: no file is linked"},
		{"a clone without a relative path", api.ImageSpec{Method: "clone", Args: []string{"-s", "www", "-x", "tmp"}}, `path "tmp": want an absolute path`},
		{"a host with its kernel's files", api.ImageSpec{Method: "host", Args: []string{"-i", "/proc"}}, "argument -i /proc: a guest has its own"},
		{"a host with an argument that there is not", api.ImageSpec{Method: "host", Args: []string{"-s", "/"}}, `argument "-s": want one of -x, -i`},
		{"a host with something behind --", api.ImageSpec{Method: "host", Args: []string{"--", "x"}}, `argument "x": nothing follows --`},
		{"a skeleton with a command that fails", api.ImageSpec{Method: "skeleton", Args: []string{"--", "sh", "-c", "echo no; exit 3"}}, "sh: exit status 3: no"},
		{"a skeleton with a command without a name", api.ImageSpec{Method: "skeleton", Args: []string{"--", ""}}, "the command has no name"},
		{"what is not for choice", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "--", "--format=tar"}}, "argument --format=tar: how and where"},
		{"a tree that is none", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "--", "--foreign"}}, "argument --foreign: what it leaves is no tree"},
		{"options of both tools", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "--", "--no-check-gpg", "--skip=check/empty"}}, "only debootstrap knows --no-check-gpg, and only mmdebstrap knows --skip"},
		{"a template without a file", api.ImageSpec{Method: "template"}, "want -t FILE"},
		{"a template of packages", api.ImageSpec{Method: "template", Args: []string{"-t", "/x"}, Packages: []string{"vim"}}, "it takes no packages: put them into what it copies"},
		{"a template that is not there", api.ImageSpec{Method: "template", Args: []string{"-t", "/nowhere/x.tar"}}, "no archive /nowhere/x.tar on this host"},
		{"a template that is a device", api.ImageSpec{Method: "template", Args: []string{"-t", "/dev/null"}}, "/dev/null is neither a file nor a directory"},
		{"an option that there is not", api.ImageSpec{Method: "template", Args: []string{"-x", "y"}}, `argument "-x": want one of -t`},
		{"an option of util-vserver", api.ImageSpec{Method: "template", Args: []string{"--pkgmgmt"}}, "packages are managed in the guest"},
		{"options of util-vserver that are taken", api.ImageSpec{Method: "template", Args: []string{"-d", "sid", "--template", "/nowhere/x.tar"}}, "no archive /nowhere/x.tar"},
		{"an option without its value", api.ImageSpec{Method: "template", Args: []string{"-t"}}, "-t needs a value"},
		{"no distribution", api.ImageSpec{Method: "debootstrap"}, "want -d DIST"},
		{"two distributions", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "-d", "trixie"}}, "-d is given 2 times"},
		{"a distribution that is an option", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "--setup-hook=reboot"}}, "want a name, as bookworm"},
		{"a distribution that is a path", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "../x"}}, "want a name, as bookworm"},
		{"a mirror that is an option", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "-m", "--x=http:/"}}, "want a URL"},
		{"a mirror that is a source line", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "-m", "deb [trusted=yes] http://x/ sid main"}}, "want a URL"},
		{"a mirror without a scheme", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "-m", "mirror"}}, "want a URL"},
		{"a script that is an option", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "-s", "--help"}}, "want a file's name"},
		{"a package that is an option", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid"}, Packages: []string{"-x"}}, `package "-x"`},
		{"two packages in one", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid"}, Packages: []string{"a,b"}}, `package "a,b"`},
		{"an empty package among the options", api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "sid", "--", "--include=a,"}}, `package ""`},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := Run(context.Background(), Request{Spec: row.spec, Dir: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), row.fails) {
				t.Errorf("error is %v, want one with %q", err, row.fails)
			}
		})
	}
}

func TestMissingKeysAreExplained(t *testing.T) {
	for _, row := range []struct{ what, dist, says, want string }{
		{"by apt, for Ubuntu", "noble", "E: The repository 'http://archive.ubuntu.com/ubuntu noble InRelease' is not signed.", "(apt-get install ubuntu-keyring; Debian has it from 13 on)"},
		{"by debootstrap, for Debian", "bookworm", "E: Keyring-based check was requested", "(apt-get install debian-archive-keyring)"},
	} {
		t.Run(row.what, func(t *testing.T) {
			pretend(t, `echo "`+row.says+`"; exit 25`)
			err := Run(context.Background(), Request{Spec: api.ImageSpec{Method: "debootstrap", Args: []string{"-d", row.dist}}, Dir: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestBootstrapChoosesItsTool(t *testing.T) {
	for _, row := range []struct {
		name  string
		tools []string
		args  []string
		pkgs  []string
		want  string // the command's end
		fails string
	}{
		{"mmdebstrap where both are", []string{"mmdebstrap", "debootstrap"}, []string{"-d", "bookworm"}, nil, "mmdebstrap … bookworm DIR", ""},
		{"mmdebstrap with a mirror", []string{"mmdebstrap"}, []string{"-d", "sid", "-m", "http://x/debian"}, nil, "mmdebstrap … sid DIR http://x/debian", ""},
		{"packages of both kinds are one list", []string{"mmdebstrap"}, []string{"-d", "sid", "--", "--include=b,c", "--variant=minbase"}, []string{"a"},
			"mmdebstrap … --include=a,b,c --variant=minbase sid DIR", ""},
		{"debootstrap where nothing else is", []string{"debootstrap"}, []string{"-d", "bookworm"}, []string{"vim"},
			"debootstrap --force-check-gpg --include=vim bookworm DIR http://deb.debian.org/debian", ""},
		{"debootstrap for a script", []string{"mmdebstrap", "debootstrap"}, []string{"-d", "x", "-s", "/s"}, nil,
			"debootstrap --force-check-gpg x DIR http://deb.debian.org/debian /s", ""},
		{"debootstrap for its own options", []string{"mmdebstrap", "debootstrap"}, []string{"-d", "x", "--", "--no-check-gpg"}, nil,
			"debootstrap --no-check-gpg x DIR http://deb.debian.org/debian", ""},
		{"mmdebstrap for its own options", []string{"mmdebstrap", "debootstrap"}, []string{"-d", "x", "--", "--aptopt=Acquire::Retries 3", "--customize-hook=true"}, nil,
			"mmdebstrap … --aptopt=Acquire::Retries 3 --customize-hook=true x DIR", ""},
		{"Ubuntu by its name", []string{"mmdebstrap"}, []string{"-d", "noble"}, nil, "mmdebstrap … --components=main,universe KEYRINGnoble DIR", ""},
		{"Ubuntu by its mirror", []string{"mmdebstrap"}, []string{"-d", "x", "-m", "http://x/ubuntu"}, nil, "mmdebstrap … --components=main,universe KEYRINGx DIR http://x/ubuntu", ""},
		{"Ubuntu with a keyring and components", []string{"mmdebstrap"}, []string{"-d", "noble", "--", "--keyring=/k", "--components=main"}, nil,
			"mmdebstrap … --aptopt=Acquire::Languages \"none\" --keyring=/k --components=main noble DIR", ""},
		{"Ubuntu by debootstrap", []string{"debootstrap"}, []string{"-d", "noble"}, nil,
			"debootstrap --force-check-gpg --components=main,universe noble DIR " + ubuntuMirrors[runtime.GOARCH], ""},
		{"nothing for mmdebstrap's options", []string{"debootstrap"}, []string{"-d", "x", "--", "--aptopt=x"}, nil, "", "only mmdebstrap knows --aptopt, and it is not on this host"},
		{"nothing for debootstrap's options", []string{"mmdebstrap"}, []string{"-d", "x", "--", "--no-check-gpg"}, nil, "", "apt-get install debootstrap"},
		{"nothing at all", nil, []string{"-d", "x"}, nil, "", "neither mmdebstrap nor debootstrap is on this host; install one: apt-get install mmdebstrap"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bin := t.TempDir()
			for _, tool := range row.tools {
				must(t, os.WriteFile(filepath.Join(bin, tool), nil, 0o755))
			}
			t.Setenv("PATH", bin)
			b, err := parseBootstrap(api.ImageSpec{Args: row.args, Packages: row.pkgs})
			must(t, err)
			program, args, err := b.(*bootstrap).command("DIR")
			if row.fails != "" {
				if err == nil || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("error is %v, want one with %q", err, row.fails)
				}
				return
			}
			must(t, err)
			command := strings.Join(append([]string{filepath.Base(program)}, args...), " ")
			keyring := ""
			if isFile(ubuntuKeyring) {
				keyring = "--keyring=" + ubuntuKeyring + " "
			}
			head, tail, _ := strings.Cut(strings.Replace(row.want, "KEYRING", keyring, 1), "… ")
			if !strings.HasPrefix(command, head) || !strings.HasSuffix(command, tail) {
				t.Errorf("command is %q, want %q", command, row.want)
			}
		})
	}
}

func TestProgressIsReadFromTheTools(t *testing.T) {
	type step struct {
		message     string
		done, total int64
	}
	var got []step
	o := &output{req: Request{Log: io.Discard, Progress: func(e api.Event) { got = append(got, step{e.Message, e.Done, e.Total}) }}}
	for _, piece := range []string{
		"I: skipping check/qemu as requested\nI: running apt-get upd", "ate...\n",
		"Get:1 http://deb.debian.org/debian bookworm/main amd64 libc6 amd64 2.36 [2757 kB]\n",
		"0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.\nUnpacking libc6 (2.36) ...\n",
		"Setting up libc6:amd64 (2.36) ...\n\n",
		"0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.\n",
		"Setting up nginx (1.22) ...\nSetting up\n0 newly installed, upgraded,\nI: Configuring apt...",
	} {
		_, err := o.Write([]byte(piece))
		must(t, err)
	}
	o.flush()
	want := []step{
		{"running apt-get update", 0, 0}, {"downloading libc6", 0, 0}, {"unpacking libc6", 0, 0},
		{"configuring libc6:amd64", 0, 0}, {"configuring nginx", 2, 3}, {"Configuring apt", 2, 3},
	}
	if !slices.Equal(got, want) {
		t.Errorf("progress is\n%v, want\n%v", got, want)
	}
	if len(o.tail) != tailLines || o.tail[tailLines-1] != "I: Configuring apt..." {
		t.Errorf("tail is %q", o.tail)
	}
}

func FuzzOutput(f *testing.F) {
	f.Add("Get:1 a b c d\nSetting up x\n", "0 upgraded, 1 newly installed, ")
	f.Fuzz(func(t *testing.T, a, b string) {
		o := &output{req: Request{Log: io.Discard}}
		for _, piece := range []string{a, b} {
			if n, err := o.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		o.flush()
	})
}

func FuzzArguments(f *testing.F) {
	f.Add("-d bookworm -m http://deb.debian.org/debian -- --include=vim", "nginx")
	f.Fuzz(func(t *testing.T, args, pkg string) {
		s, err := parseBootstrap(api.ImageSpec{Args: strings.Split(args, " "), Packages: []string{pkg}})
		if err != nil {
			return
		}
		b := s.(*bootstrap)
		if strings.HasPrefix(b.dist, "-") || strings.HasPrefix(b.mirror, "-") || strings.HasPrefix(b.script, "-") ||
			strings.ContainsAny(strings.Join(b.include, ""), ", /\n") {
			t.Errorf("%+v", b)
		}
	})
}

// Files of the spec go on top of what the method made, and stay below it.
func TestFilesOfTheSpec(t *testing.T) {
	outside := t.TempDir()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "srv", Linkname: outside, Mode: 0o777}))
	must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o600}))
	must(t, tw.Close())
	box := filepath.Join(t.TempDir(), "box.tar")
	must(t, os.WriteFile(box, b.Bytes(), 0o600))
	run := func(f api.File) (string, error) {
		f.Digest = api.FileDigest(f.Content)
		dir := t.TempDir()
		return dir, Run(t.Context(), Request{Spec: api.ImageSpec{Method: "template", Args: []string{"-t", box}, Files: []api.File{f}}, Dir: dir})
	}
	dir, err := run(api.File{Path: "/etc/passwd", Content: []byte("new"), Mode: 0o644, Owner: "7:8"})
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(dir+"/etc/passwd", &st))
	if content, err := os.ReadFile(dir + "/etc/passwd"); err != nil || string(content) != "new" || st.Mode&0o777 != 0o644 || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("%q, mode %o of %d:%d, %v", content, st.Mode, st.Uid, st.Gid, err)
	}
	if _, err := run(api.File{Path: "/srv/x", Mode: 0o644, Owner: "0:0"}); err == nil || !strings.Contains(err.Error(), "file /srv/x: /srv is a link that leads nowhere") {
		t.Errorf("through a link out: %v", err)
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
		t.Errorf("outside: %v, %v", list, err)
	}
}

// A template is fitted by what is in it, as a fresh Debian is.
func TestTemplatesAreFitForGuests(t *testing.T) {
	reg := func(name, content string) func(*tar.Writer) {
		return func(tw *tar.Writer) {
			must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}))
			_, err := io.WriteString(tw, content)
			must(t, err)
		}
	}
	sym := func(name, to string) func(*tar.Writer) {
		return func(tw *tar.Writer) {
			must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}))
		}
	}
	const fstab = "# mine\nUUID=1234 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\ntmpfs /tmp tmpfs size=10m 0 0\n/swapfile none swap sw 0 0\n"
	for _, row := range []struct {
		name    string
		archive []func(*tar.Writer)
		want    map[string]string // content, or where a link leads; "-": it is not there
		warning string
	}{
		{"systemd in /lib, as Debian 11 has it", []func(*tar.Writer){
			reg("lib/systemd/systemd", "x"), reg("etc/machine-id", "0123"), sym("var/lib/dbus/machine-id", "/etc/machine-id"), reg("etc/fstab", fstab), sym("etc/systemd/system/default.target", "/lib/systemd/system/graphical.target"),
		}, map[string]string{
			"etc/machine-id": "", "var/lib/dbus/machine-id": "/etc/machine-id",
			"etc/systemd/system/default.target":        "/lib/systemd/system/multi-user.target",
			"etc/systemd/system/systemd-udevd.service": "/dev/null",
			"etc/fstab": "# mine\n# not in a guest: UUID=1234 / ext4 defaults 0 1\n# not in a guest: /dev/sda2 none swap sw 0 0\ntmpfs /tmp tmpfs size=10m 0 0\n# not in a guest: /swapfile none swap sw 0 0\n",
		}, ""},
		{"systemd in /usr/lib, as others have it, with a target of its own", []func(*tar.Writer){
			reg("usr/lib/systemd/systemd", "x"), sym("etc/systemd/system/default.target", "/etc/systemd/system/mine.target"), reg("etc/ssh/ssh_host_rsa_key", "k"),
		}, map[string]string{
			"etc/machine-id": "", "etc/systemd/system/default.target": "/etc/systemd/system/mine.target", "etc/systemd/system/getty.target": "/dev/null",
			"etc/ssh/ssh_host_rsa_key": "k",
		}, "the image holds SSH host keys (ssh_host_rsa_key)"},
		{"an inittab", []func(*tar.Writer){
			reg("etc/fstab", fstab), reg("etc/inittab", "#1:23:respawn:/sbin/getty 9600 tty1\nid:2:initdefault:\n1:2345:respawn:/sbin/getty --noclear 38400 tty1\n::respawn:/sbin/syslogd -n\ntty1::respawn:/sbin/getty 38400 tty1\n"),
		}, map[string]string{
			"etc/fstab":   "# mine\n# not in a guest: UUID=1234 / ext4 defaults 0 1\n# not in a guest: /dev/sda2 none swap sw 0 0\ntmpfs /tmp tmpfs size=10m 0 0\n# not in a guest: /swapfile none swap sw 0 0\n",
			"etc/inittab": "#1:23:respawn:/sbin/getty 9600 tty1\nid:2:initdefault:\n# not in a guest: 1:2345:respawn:/sbin/getty --noclear 38400 tty1\n::respawn:/sbin/syslogd -n\n# not in a guest: tty1::respawn:/sbin/getty 38400 tty1\n",
		}, ""},
		{"no systemd", []func(*tar.Writer){reg("sbin/init", "x"), reg("etc/machine-id", "0123"), reg("etc/fstab", fstab)}, map[string]string{
			"etc/machine-id": "-", "etc/systemd/system/getty.target": "-", "etc/fstab": fstab,
		}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			for _, add := range row.archive {
				add(tw)
			}
			must(t, tw.Close())
			box, dir, warned := filepath.Join(t.TempDir(), "box.tar"), t.TempDir(), ""
			must(t, os.WriteFile(box, b.Bytes(), 0o600))
			must(t, Run(t.Context(), Request{Spec: api.ImageSpec{Method: "template", Args: []string{"-t", box}}, Dir: dir, Progress: func(e api.Event) {
				if e.Kind == api.Warning {
					warned = e.Message
				}
			}}))
			for name, want := range row.want {
				got, err := os.Readlink(filepath.Join(dir, name))
				if err != nil {
					var content []byte
					content, err = os.ReadFile(filepath.Join(dir, name))
					got = string(content)
				}
				if os.IsNotExist(err) {
					got = "-"
				}
				if got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if row.warning == "" && warned != "" || !strings.HasPrefix(warned, row.warning) {
				t.Errorf("warning %q, want %q", warned, row.warning)
			}
		})
	}
}

// Files with holes, as tar writes them in each of its formats, get their content and their
// holes back.
func TestSparseArchives(t *testing.T) {
	source := t.TempDir()
	f, err := os.Create(source + "/sparse")
	must(t, err)
	defer f.Close()
	for _, at := range []int64{0, 5 << 20, 31 << 20} {
		_, err := f.WriteAt([]byte("data"), at)
		must(t, err)
	}
	must(t, f.Truncate(40<<20))
	want, err := os.ReadFile(f.Name())
	must(t, err)
	for _, format := range []string{"--format=gnu", "--format=oldgnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1", "--format=posix --sparse-version=1.0"} {
		t.Run(format, func(t *testing.T) {
			box, dir := filepath.Join(t.TempDir(), "box.tar"), t.TempDir()
			args := append(strings.Fields(format), "--sparse", "-C", source, "-cf", box, "sparse")
			if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
				t.Fatalf("tar: %s", out)
			}
			must(t, Run(t.Context(), Request{Spec: api.ImageSpec{Method: "template", Args: []string{"-t", box}}, Dir: dir}))
			var st unix.Stat_t
			must(t, unix.Stat(dir+"/sparse", &st))
			if got, err := os.ReadFile(dir + "/sparse"); err != nil || !bytes.Equal(got, want) || st.Blocks*512 > 4<<20 {
				t.Errorf("it has %d bytes (%v) in %d blocks, and the content is equal: %v", len(got), err, st.Blocks, bytes.Equal(got, want))
			}
		})
	}
}
