package rootfs

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func stream(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		must(t, w.WriteHeader(&h))
		if h.Size > 0 {
			io.WriteString(w, "text")
		}
	}
	must(t, w.Close())
	return &b
}

func regular(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o4640}
}

func below(t *testing.T, dir string) Dir {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return Dir{Root: f}
}

func TestPut(t *testing.T) {
	sub := tar.Header{Typeflag: tar.TypeDir, Name: "tree/", Mode: 0o750}
	for _, tt := range []struct {
		name, dest string
		headers    []tar.Header
		made, want string // a path, or what the error says
	}{
		{"a file into a directory", "/etc", []tar.Header{regular("motd")}, "etc/motd", ""},
		{"a file by its name", "/etc/issue", []tar.Header{regular("motd")}, "etc/issue", ""},
		{"a file over a file", "/etc/old", []tar.Header{regular("motd")}, "etc/old", ""},
		{"a tree into a directory", "/etc", []tar.Header{sub, regular("tree/a")}, "etc/tree/a", ""},
		{"a tree by its name", "/etc/t", []tar.Header{sub, regular("tree/a")}, "etc/t/a", ""},
		{"through a link, which is resolved inside", "/out", []tar.Header{regular("motd")}, "etc/motd", ""},
		{"a file over a directory", "/", []tar.Header{regular("etc")}, "", "a directory is in its place"},
		{"a tree over a file", "/etc", []tar.Header{{Typeflag: tar.TypeDir, Name: "old/"}}, "", "a file is in the place"},
		{"into a directory that is not there", "/var/x/", []tar.Header{regular("motd")}, "", "no such file"},
		{"a name above", "/etc", []tar.Header{regular("../motd")}, "", "has the name"},
		{"a name above, later", "/etc", []tar.Header{sub, regular("tree/../../motd")}, "", "has the name"},
		{"an absolute name", "/etc", []tar.Header{regular("/motd")}, "", "has the name"},
		{"a device", "/etc", []tar.Header{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}}, "", "not entries of kind"},
		{"nothing", "/etc", nil, "", "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			must(t, os.MkdirAll(root+"/etc", 0o755))
			must(t, os.WriteFile(root+"/etc/old", nil, 0o600))
			must(t, os.Chown(root+"/etc/old", 33, 34))
			must(t, os.Symlink("/../../etc", root+"/out"))
			err := below(t, root).Put(t.Context(), tt.dest, "", stream(t, tt.headers...))
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			must(t, err)
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(root, tt.made), &st))
			owner := uint32(0)
			if tt.made == "etc/old" {
				owner = 33
			}
			if st.Mode&0o7777 != 0o640 || st.Uid != owner || st.Size != 4 {
				t.Errorf("mode %o, owner %d, %d bytes", st.Mode, st.Uid, st.Size)
			}
			if left, _ := filepath.Glob(root + "/etc/.*~"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestGet(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/srv/sub/mnt", 0o755))
	must(t, os.WriteFile(root+"/srv/sub/file", []byte("text"), 0o640))
	must(t, os.Symlink("/etc/shadow", root+"/srv/link"))
	must(t, os.Symlink("/srv/sub/file", root+"/start"))
	must(t, unix.Mkfifo(root+"/srv/pipe", 0o600))
	must(t, unix.Mount("tmpfs", root+"/srv/sub/mnt", "tmpfs", 0, ""))
	defer unix.Unmount(root+"/srv/sub/mnt", unix.MNT_DETACH)
	for _, tt := range []struct{ path, names, notes string }{
		{"/srv", "srv/ srv/link->/etc/shadow srv/sub/ srv/sub/file=text", "srv/pipe: a pipe, left out srv/sub/mnt: another filesystem, left out"},
		{"/srv/sub/file", "file=text", ""},
		{"/start", "start=text", ""},
		{"/srv/pipe", "", "pipe: a pipe, left out"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			var b bytes.Buffer
			var notes []string
			must(t, below(t, root).Get(t.Context(), tt.path, &b, func(text string) { notes = append(notes, text) }))
			var names []string
			in := tar.NewReader(&b)
			for {
				h, err := in.Next()
				if err == io.EOF {
					break
				}
				must(t, err)
				content, err := io.ReadAll(in)
				must(t, err)
				name := h.Name
				if h.Linkname != "" {
					name += "->" + h.Linkname
				}
				if len(content) > 0 {
					name += "=" + string(content)
				}
				names = append(names, name)
			}
			slices.Sort(names)
			slices.Sort(notes)
			if got := strings.Join(names, " "); got != tt.names {
				t.Errorf("got %s, want %s", got, tt.names)
			}
			if got := strings.Join(notes, " "); got != tt.notes {
				t.Errorf("noted %s, want %s", got, tt.notes)
			}
		})
	}
	if err := below(t, root).Get(t.Context(), "/nowhere", io.Discard, func(string) {}); err == nil {
		t.Error("what is not there was copied")
	}
}
