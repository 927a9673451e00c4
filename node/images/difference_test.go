package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux/killtest"
	"github.com/vsfleet/vsfleet/node/images/objects"
)

// noise returns bytes that do not compress.
func noise(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// twoVersions are the files of an image and of its next version, the difference of which is
// small: programs with other bytes here and there, one of them under the name of its version.
func twoVersions() (one, two map[string]string) {
	one = map[string]string{"bin/tool": noise(1, 300<<10), "lib/libdns-9.18.24.so": noise(2, 200<<10), "same": noise(3, 100<<10), "etc/release": "1", "gone": "x"}
	two = maps.Clone(one)
	delete(two, "gone")
	delete(two, "lib/libdns-9.18.24.so")
	two["bin/tool"] = one["bin/tool"][:1000] + "security" + one["bin/tool"][1000:]
	two["lib/libdns-9.18.28.so"] = one["lib/libdns-9.18.24.so"] + "more"
	two["etc/release"], two["etc/new"], two["copy"] = "2", strings.Repeat("new ", 100), one["gone"]
	return one, two
}

// versions returns a store that has two versions of an image, and one that has the first.
func versions(t testing.TB) (source, target *Store, one, two string) {
	source, target = open(t), open(t)
	if !source.composed() {
		t.Fatal("this kernel has no EROFS")
	}
	first, second := twoVersions()
	one = made(t, source, archive(t, "debian", first)).ID
	two = made(t, source, archive(t, "debian2", second)).ID
	carry(t, source, target, one, "")
	return source, target, one, two
}

// carry brings an image from one store to another, and returns the bytes that it took.
func carry(t testing.TB, from, to *Store, id, base string) int {
	t.Helper()
	b := sent(t, from, id, base)
	_, _, err := to.Import(t.Context(), bytes.NewReader(b), id)
	must(t, err)
	return len(b)
}

func sent(t testing.TB, from *Store, id, base string) []byte {
	t.Helper()
	var b bytes.Buffer
	if base == "" {
		must(t, from.Export(t.Context(), id, &b))
	} else {
		must(t, from.ExportDifference(t.Context(), id, base, 0, &b))
	}
	return b.Bytes()
}

func TestAnImageComesAsADifference(t *testing.T) {
	source, target, one, two := versions(t)
	whole := len(sent(t, source, two, ""))
	if n := carry(t, source, target, two, one); n > whole/50 {
		t.Errorf("the difference took %d bytes, and the whole image %d", n, whole)
	}
	if !maps.Equal(contents(t, target, two), contents(t, source, two)) {
		t.Error("it has another content")
	}
	a, err := source.records(two)
	must(t, err)
	b, err := target.records(two)
	must(t, err)
	if a[0].Description != b[0].Description || b[0].Description == "" {
		t.Errorf("its description is %q, want %q", b[0].Description, a[0].Description)
	}
	if !bytes.Equal(sent(t, source, two, one), sent(t, target, two, one)) {
		t.Error("two hosts send different differences")
	}
	checked(t, target)
	// Back again, as a rollback to a version that a host has not any more.
	must(t, target.Remove(t.Context(), one, nobody))
	carry(t, source, target, one, two)
	checked(t, target)
	// Again: the host has it.
	if _, changed, err := target.Import(t.Context(), bytes.NewReader(sent(t, source, two, one)), two); changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
}

// checked fails the test if an image or an object is damaged, or an object is left over.
func checked(t testing.TB, s *Store) {
	t.Helper()
	c, err := s.Check(t.Context(), nobody)
	if must(t, err); len(c.Damaged) > 0 {
		t.Errorf("damaged: %v", c.Damaged)
	}
	if done, err := s.Collect(t.Context(), false, true, nobody); err != nil || done.Objects > 0 {
		t.Errorf("%d objects are left over (%v)", done.Objects, err)
	}
	if list, _ := filepath.Glob(filepath.Join(s.dir, tmpPrefix+"*")); len(list) > 0 {
		t.Errorf("left: %v", list)
	}
}

func TestADifferenceIsTheWholeImageWhereThereIsNoBase(t *testing.T) {
	source, target, one, two := versions(t)
	other := "sha256:" + strings.Repeat("0", 64)
	carry(t, source, target, two, other)
	must(t, target.Remove(t.Context(), two, nobody))
	source.Plain = true
	plain := made(t, source, archive(t, "plain", map[string]string{"a": "b"})).ID
	carry(t, source, target, plain, one)
	checked(t, target)
}

// damage changes a byte of an object.
func damage(t testing.TB, s *Store, content string) {
	t.Helper()
	sum := sha256.Sum256([]byte(content))
	path := filepath.Join(s.objects.Dir(), objects.Place(hex.EncodeToString(sum[:])))
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2]++
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, b, 0o444))
}

func TestADamagedBaseIsNotUsed(t *testing.T) {
	for _, row := range []struct{ name, file string }{
		{"an object that stays", "same"},
		{"an object that is a dictionary", "bin/tool"},
	} {
		t.Run(row.name, func(t *testing.T) {
			source, target, one, two := versions(t)
			first, _ := twoVersions()
			damage(t, target, first[row.file])
			if _, _, err := target.Import(t.Context(), bytes.NewReader(sent(t, source, two, one)), two); err == nil {
				t.Fatal("it was used")
			}
			if here, _ := target.Has(two); here {
				t.Fatal("it has the image")
			}
			carry(t, source, target, two, "") // whole, which replaces what is damaged
			if row.file == "same" {
				checked(t, target)
			}
		})
	}
	t.Run("a dictionary on the source", func(t *testing.T) {
		source, target, one, two := versions(t)
		first, _ := twoVersions()
		damage(t, source, first["bin/tool"])
		carry(t, source, target, two, one) // what it does not match comes as it is
		checked(t, target)
	})
}

func TestHostileDifferences(t *testing.T) {
	source, _, one, two := versions(t)
	good := sent(t, source, two, one)
	end := bytes.IndexByte(good, '\n')
	end += bytes.IndexByte(good[end+1:], '\n') + 1
	end += bytes.IndexByte(good[end+1:], '\n') + 1
	end += bytes.IndexByte(good[end+1:], '\n') + 2 // where the parts begin
	head, parts := good[:end], good[end:]
	manifest := firstPart(t, parts)
	var zeros bytes.Buffer
	z, err := zstd.NewWriter(&zeros)
	must(t, err)
	_, err = io.CopyN(z, zero{}, 64<<20)
	must(t, errors.Join(err, z.Close()))
	bomb := slices.Concat(piece(zeros.Bytes()), piece(nil))
	heading := func(contents, dictionaries byte, sums ...byte) []byte {
		return append([]byte{0, contents, 0, dictionaries}, bytes.Repeat(sums, 32)...)
	}
	replaced := func(old, by string) []byte { return bytes.Replace(slices.Clone(good), []byte(old), []byte(by), 1) }
	for _, row := range []struct {
		name   string
		stream []byte
		want   string
	}{
		{"another base than it says", replaced(one+"\n", two[:70]+"0\n"), "no such image"},
		{"a base that is no ID", replaced(one+"\n", "sha256:../"+one[10:]+"\n"), "64 hexadecimal digits"},
		{"another image than it says", replaced(two, one), ""},
		{"cut off in the head", good[:end-10], "read the base"},
		{"a first content that is not a number", replaced(one+"\n0\n", one+"\n-1\n"), "number of the first content"},
		{"contents that never came", replaced(one+"\n0\n", one+"\n1\n"), "the manifest"},
		{"cut off in the manifest", good[:end+100], "unexpected EOF"},
		{"cut off after the manifest", good[:end+len(manifest)], "unexpected EOF"},
		{"cut off before the end", good[:len(good)-1], "unexpected EOF"},
		{"more than there may be", append(slices.Clone(good), manifest...), "goes on after its end"},
		{"a part twice", slices.Concat(head, manifest, parts), ""},
		{"a manifest that is a bomb", slices.Concat(head, heading(0, 0), bomb), "not a manifest"},
		{"a content that is a bomb", slices.Concat(head, manifest, heading(1, 0), bomb), "what came is"},
		{"more contents than there are", slices.Concat(head, manifest, heading(100, 0), bomb), "goes on after its end"},
		{"a part without contents", slices.Concat(head, manifest, heading(0, 0), bomb), "goes on after its end"},
		{"a dictionary that the base does not have", slices.Concat(head, manifest, heading(1, 1, 7), bomb), "the base does not have"},
		{"a manifest with another dictionary", slices.Concat(head, heading(0, 1, 7), bomb), "damaged"},
		{"a manifest with two dictionaries", slices.Concat(head, heading(0, 2, 7, 7), bomb), "does not begin with it"},
		{"a content in the manifest's place", slices.Concat(head, heading(1, 0), bomb), "does not begin with it"},
		{"no frames at all", slices.Concat(head, manifest, heading(1, 0), piece(nil)), "unexpected EOF"},
		{"a piece of 4 GiB", slices.Concat(head, manifest, heading(1, 0), []byte{255, 255, 255, 255}, zeros.Bytes()[:5]), "unexpected EOF"},
		{"fewer bytes in the record", replaced(`"bytes":`, `"bytes":1e1,"x":`), ""},
		{"fewer files in the record", replaced(`"files":`, `"files":1,"x":`), "more than the 1 files"},
	} {
		t.Run(row.name, func(t *testing.T) {
			target := open(t)
			carry(t, source, target, one, "")
			_, _, err := target.Import(t.Context(), bytes.NewReader(row.stream), two)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
			checked(t, target)
		})
	}
}

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func piece(b []byte) []byte {
	var out bytes.Buffer
	if len(b) == 0 {
		_ = pieces{&out}.end()
	}
	_, _ = pieces{&out}.Write(b)
	return out.Bytes()
}

// firstPart returns the first part of some.
func firstPart(t *testing.T, parts []byte) []byte {
	r := bytes.NewReader(parts)
	_, err := readPartHead(r)
	must(t, errors.Join(err, skipFrame(r)))
	return parts[:len(parts)-r.Len()]
}

func TestADifferenceThatIsGivenUpLeavesNothing(t *testing.T) {
	source, target, one, two := versions(t)
	good := sent(t, source, two, one)
	for at := 0; at < len(good); at += len(good)/7 + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := target.Import(ctx, io.MultiReader(bytes.NewReader(good[:at]), breaks{cancel}), two)
		if err == nil {
			t.Fatal("half of it was enough")
		}
		checked(t, target)
	}
	carry(t, source, target, two, one)
	checked(t, target)
}

type breaks struct{ cancel func() }

func (b breaks) Read([]byte) (int, error) { b.cancel(); return 0, fmt.Errorf("the line is cut") }

func TestObjectsOfOtherImagesNeedNotCome(t *testing.T) {
	source, target, one, two := versions(t)
	_, second := twoVersions()
	// It has the new program already, in another image, and one that is damaged.
	made(t, target, archive(t, "other", map[string]string{"tool": second["bin/tool"], "new": second["etc/new"]}))
	damage(t, target, second["etc/new"])
	carry(t, source, target, two, one)
	if !maps.Equal(contents(t, target, two), contents(t, source, two)) {
		t.Error("another content")
	}
	checked(t, target)
}

func TestADifferenceKilledAtAnyTime(t *testing.T) {
	source, _, one, _ := versions(t)
	files := map[string]string{}
	for i := range 10 {
		files[fmt.Sprintf("new%d", i)] = noise(uint64(i), 20<<10)
	}
	next := archive(t, "next", files)
	two := made(t, source, next).ID
	stream := filepath.Join(t.TempDir(), "stream")
	must(t, os.WriteFile(stream, sent(t, source, two, one), 0o600))
	once := func(k int) killtest.Result {
		s := open(t)
		carry(t, source, s, one, "")
		r := killBefore(t, k, s, next, "import "+two+" "+stream)
		sound(t, s)
		if r.Killed {
			killBefore(t, 0, s, next, "import "+two+" "+stream)
		}
		if err := s.Export(t.Context(), two, io.Discard); err != nil {
			t.Fatalf("killed before change %d: %v", k, err)
		}
		checked(t, s)
		return r
	}
	for _, k := range killtest.Steps(t, once(0).Changes, 12) {
		once(k)
	}
}

func TestADifferenceOnAFullDisk(t *testing.T) {
	source, _, one, _ := versions(t)
	two := made(t, source, archive(t, "large", map[string]string{"small": noise(8, 1<<20), "z": noise(9, 8<<20)})).ID
	difference := sent(t, source, two, one)
	runtime.LockOSThread() // never unlocked: the mount goes with the thread
	must(t, unix.Unshare(unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	disk := t.TempDir()
	must(t, unix.Mount("test", disk, "tmpfs", 0, "size=8m"))
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	s, err := Open(filepath.Join(disk, ".images"))
	must(t, err)
	carry(t, source, s, one, "")
	if _, _, err := s.Import(t.Context(), bytes.NewReader(difference), two); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want a full disk", err)
	}
	checked(t, s)
}

func FuzzDifference(f *testing.F) {
	source, target, one, two := versions(f)
	good := sent(f, source, two, one)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(differenceMagic + "[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !bytes.HasPrefix(data, []byte(differenceMagic)) {
			return
		}
		_, changed, err := target.Import(t.Context(), bytes.NewReader(data), two)
		if changed {
			must(t, target.Remove(t.Context(), two, nobody))
		} else if err == nil {
			t.Error("neither stored nor refused")
		}
	})
}
