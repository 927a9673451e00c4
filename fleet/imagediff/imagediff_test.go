package imagediff

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/fleet/report"
)

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// file returns the line of a file, as %s takes it: mode, owner, content, time.
func file(path, mode string, owner int, content string, mtime int) string {
	return fmt.Sprintf("f %+q %s %d %d %d %d \"\" %s\n", path, mode, owner, owner, len(content), mtime, sum(content))
}

// image is one that a host has: its lines, and the contents of files.
func image(lines string, contents map[string]string) Image {
	text := manifestHead + lines
	return Image{ID: "sha256:" + sum(text), Read: func(_ context.Context, path string, w io.Writer) error {
		if path != "" {
			return compress(w, contents[path])
		}
		return compress(w, text)
	}}
}

func compress(w io.Writer, text string) error {
	z, err := zstd.NewWriter(w)
	if err != nil {
		return err
	}
	_, err = io.WriteString(z, text)
	return errors.Join(err, z.Close())
}

func TestCompare(t *testing.T) {
	status := func(version string) string {
		return "Package: nginx\nStatus: install ok installed\nVersion: " + version + "\n"
	}
	dirs := "d \"var\" 755 0 0 0 1 \"\" \nd \"var/lib\" 755 0 0 0 1 \"\" \nd \"var/lib/dpkg\" 755 0 0 0 1 \"\" \n"
	from := image("d \"bin\" 755 0 0 0 1 \"\" \n"+file("bin/a", "755", 0, "one", 1)+file("bin/b", "755", 0, "same", 1)+"l \"bin/c\" 0 0 0 0 1 \"a\" \n"+
		file("bin/d", "644", 0, "gone", 1)+"h \"bin/e\" 0 0 0 0 0 \"bin/b\" \n"+dirs+file("var/lib/dpkg/status", "644", 0, status("1.22-1"), 1),
		map[string]string{"var/lib/dpkg/status": status("1.22-1")})
	to := image("d \"bin\" 755 0 0 0 2 \"\" \n"+file("bin/a", "4755", 33, "two!", 2)+file("bin/b", "755", 0, "same", 2)+"l \"bin/c\" 0 0 0 0 2 \"b\" \n"+
		"l \"bin/e\" 0 0 0 0 2 \"b\" \n"+file("bin/f", "644", 0, "same", 2)+dirs+file("var/lib/dpkg/status", "644", 0, status("1.22-2"), 2),
		map[string]string{"var/lib/dpkg/status": status("1.22-2")})
	var d report.ImageDiff
	if err := Compare(t.Context(), &d, from, to); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range d.Files {
		got = append(got, strings.TrimSpace(string(f.Change)+" "+f.Path+" "+strings.Join(f.What, ",")))
	}
	want := []string{
		"changed bin/a content,mode,owner", "changed bin/c target", "removed bin/d", "changed bin/e type", "added bin/f", "changed var/lib/dpkg/status content",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if d.FilesAdded != 1 || d.FilesRemoved != 1 || d.FilesChanged != 4 || d.TimesOnly != 2 {
		t.Errorf("%d added, %d removed, %d changed, %d times: want 1, 1, 4, 2", d.FilesAdded, d.FilesRemoved, d.FilesChanged, d.TimesOnly)
	}
	if want := int64(len("two!") + len(status("1.22-2"))); d.BytesNew != want {
		t.Errorf("%d new bytes, want %d", d.BytesNew, want)
	}
	if a := d.Files[0]; a.From.Mode != "0755" || a.To.Mode != "04755" || a.To.Owner != 33 || a.To.Size != 4 {
		t.Errorf("bin/a is %+v, then %+v", a.From, a.To)
	}
	packages := []report.PackageDiff{{Name: "nginx", Change: report.Upgraded, From: "1.22-1", To: "1.22-2"}}
	if !reflect.DeepEqual(d.Packages, packages) || d.Problems != nil {
		t.Errorf("packages %v, problems %q", d.Packages, d.Problems)
	}

	same := report.ImageDiff{}
	if err := Compare(t.Context(), &same, from, from); err != nil || same.Files != nil || same.Packages != nil || same.PackagesTo != 1 {
		t.Errorf("an image differs from itself: %+v, %v", same, err)
	}
	back := report.ImageDiff{}
	if err := Compare(t.Context(), &back, to, from); err != nil || back.Packages[0].Change != report.Downgraded || back.FilesAdded != 1 {
		t.Errorf("the other way: %+v, %v", back, err)
	}
}

// What a host sends is not believed.
func TestOtherContents(t *testing.T) {
	status := file("status", "644", 0, "x", 1)
	good := image(status, nil)
	for _, row := range []struct {
		name  string
		image Image
		want  string
	}{
		{"another manifest", Image{ID: "sha256:" + sum("x"), Read: good.Read}, "the host sends the manifest of"},
		{"no manifest", image("", nil).sending("hello\n"), "not a manifest"},
		{"a line that is none", image("f \"a\" 0 0\n", nil), "not a line of a manifest"},
		{"a hard link to nothing", image("h \"a\" 0 0 0 0 0 \"b\" \n", nil), "not a line of a manifest"},
		{"a failure of the host", Image{Read: func(context.Context, string, io.Writer) error { return errors.New("it is on fire") }}, "it is on fire"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := Compare(t.Context(), new(report.ImageDiff), row.image, good)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
	t.Run("another package database", func(t *testing.T) {
		lines := "d \"var\" 755 0 0 0 1 \"\" \nd \"var/lib\" 755 0 0 0 1 \"\" \nd \"var/lib/dpkg\" 755 0 0 0 1 \"\" \n" + file("var/lib/dpkg/status", "644", 0, "what it was", 1)
		d := report.ImageDiff{}
		if err := Compare(t.Context(), &d, image(lines, map[string]string{"var/lib/dpkg/status": "what it is!"}), good); err != nil {
			t.Fatal(err)
		}
		if len(d.Problems) != 1 || !strings.Contains(d.Problems[0], "the host sends another content") || d.FilesRemoved != 4 {
			t.Errorf("problems %q, %d removed", d.Problems, d.FilesRemoved)
		}
	})
}

// sending returns the image of a host that sends a text as its manifest.
func (i Image) sending(text string) Image {
	i.Read = func(_ context.Context, _ string, w io.Writer) error { return compress(w, text) }
	return i
}

func FuzzParseManifest(f *testing.F) {
	f.Add(manifestHead + file("a", "755", 0, "x", 1) + "h \"b\" 0 0 0 0 0 \"a\" \nl \"c\" 0 0 0 0 1 \"\\u00e4\" \nf \"d\" 644 1 2 0 1.000000001 \"\" " + sum("") + " \"user.a\" \"\\x00\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseManifest(strings.NewReader(text))
		if err != nil {
			return
		}
		var d report.ImageDiff
		compareFiles(&d, m, m)
		if len(d.Files) > 0 || d.BytesNew != 0 {
			t.Errorf("a tree differs from itself: %+v", d)
		}
		compareFiles(&d, nil, m)
		if d.FilesAdded != len(m) {
			t.Errorf("%d added of %d", d.FilesAdded, len(m))
		}
	})
}

func TestReadFileIsBounded(t *testing.T) {
	var b bytes.Buffer
	if err := compress(&b, strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(&b, entry{size: 3, content: sum("xxx")}); err == nil {
		t.Error("a file that is longer than the image says was taken")
	}
}
