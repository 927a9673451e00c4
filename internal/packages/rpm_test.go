package packages

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// rpmbuild makes a package of each spec, NAME EPOCH VERSION RELEASE ARCH, with a long
// description, and returns their files.
func rpmbuild(t testing.TB, dir string, specs ...string) (files []string) {
	t.Helper()
	for i, s := range specs {
		var name, epoch, version, release, arch string
		if _, err := fmt.Sscan(s, &name, &epoch, &version, &release, &arch); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strconv.Itoa(i)+".spec")
		text := fmt.Sprintf("Name: %s\nEpoch: %s\nVersion: %s\nRelease: %s\nSummary: s\nLicense: l\n%%description\n%s\n%%files\n",
			name, epoch, version, release, strings.Repeat("It is long. ", 1000*(i%2)))
		write(t, path, strings.ReplaceAll(text, "Epoch: 0\n", ""))
		run(t, "rpmbuild", "--quiet", "-bb", "--target", arch, "--define", "_topdir "+dir, "--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}-%{ARCH}.rpm", path)
		files = append(files, filepath.Join(dir, "RPMS", name+"-"+version+"-"+release+"-"+arch+".rpm"))
	}
	return files
}

// rpmDatabase returns a database that rpm has made of packages.
func rpmDatabase(t testing.TB, specs ...string) []byte {
	t.Helper()
	return install(t, rpmbuild(t, t.TempDir(), specs...))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// install returns the database of a root in which rpm has installed packages.
func install(t testing.TB, files []string) []byte {
	t.Helper()
	root := t.TempDir()
	run(t, "rpm", append([]string{"--root", root, "--dbpath", "/var/lib/rpm", "-i", "--nodeps", "--justdb", "--ignorearch", "--force-debian"}, files...)...)
	data, err := os.ReadFile(filepath.Join(root, "var/lib/rpm/rpmdb.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadRPM(t *testing.T) {
	data := rpmDatabase(t, "bash 0 5.1.8 9.el9 x86_64", "alpha 2 1.2 3 noarch", "zlib 0 1.2.11 40.el9 x86_64", "zlib 0 1.2.11 40.el9 i686",
		"kernel 0 5.14.0 70.el9 x86_64", "kernel 0 5.14.0 427.el9 x86_64")
	want := Set{"bash": "5.1.8-9.el9", "alpha": "2:1.2-3", "zlib": "1.2.11-40.el9", "zlib:i686": "1.2.11-40.el9", "kernel": "5.14.0-427.el9"}
	for _, path := range []string{"var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite"} {
		got, err := Find(func(name string, _ int64) ([]byte, error) {
			if name != path {
				return nil, fs.ErrNotExist
			}
			return data, nil
		})
		if err != nil || got.Tool != RPM || !maps.Equal(got.Packages, want) {
			t.Errorf("%s: %v, %v, want %v", path, got, err, want)
		}
	}
	_, err := Find(func(name string, _ int64) ([]byte, error) {
		if name == "var/lib/rpm/Packages" {
			return []byte("Berkeley DB"), nil
		}
		return nil, fs.ErrNotExist
	})
	if err == nil || !strings.Contains(err.Error(), "var/lib/rpm/Packages: of rpm's databases only those in SQLite are read") {
		t.Errorf("Berkeley DB: %v", err)
	}
}

// More packages than one page lists, so that there are inner pages.
func TestReadRPMOfManyPackages(t *testing.T) {
	dir := t.TempDir()
	spec := "Name: p\nVersion: 0\nRelease: 1\nSummary: s\nLicense: l\n%description\n"
	for i := range 40 {
		spec += fmt.Sprintf("%%package -n p%02d\nVersion: %d\nSummary: s\n%%description -n p%02d\n%s\n%%files -n p%02d\n", i, i, i, strings.Repeat("It is long. ", 10*i), i)
	}
	write(t, filepath.Join(dir, "p.spec"), spec)
	run(t, "rpmbuild", "--quiet", "-bb", "--target", "noarch", "--define", "_topdir "+dir, filepath.Join(dir, "p.spec"))
	files, err := filepath.Glob(filepath.Join(dir, "RPMS/noarch/*.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readRPM(install(t, files))
	if err != nil || len(got) != 40 || got["p07"] != "7-1" || got["p39"] != "39-1" {
		t.Errorf("%v, %v", got, err)
	}
}

// A guest writes the database: whatever bytes are changed, reading ends, and soon.
func TestDamagedRPMDatabases(t *testing.T) {
	data := rpmDatabase(t, "bash 0 5.1.8 9.el9 x86_64", "alpha 2 1.2 3 noarch")
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		bad := append([]byte(nil), data[:len(data)-r.IntN(2)*r.IntN(len(data))]...)
		for range 1 + r.IntN(20) {
			if len(bad) > 0 {
				bad[r.IntN(min(len(bad), 1<<(8+r.IntN(12))))] = byte(r.IntN(256))
			}
		}
		_, _ = readRPM(bad)
	}
}

// smallDatabase returns a database with pages of 512 bytes: the schema, a page with one row of
// the table Packages, and two that its blob goes on in.
func smallDatabase(blob []byte) []byte {
	const size = 512
	pages := make([]byte, 3*size, 8*size)
	copy(pages, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(pages[16:], size)
	leaf := func(page, head []byte, cell []byte) {
		at := size - len(cell)
		copy(page[at:], cell)
		copy(head, []byte{13, 0, 0, 0, 1})
		binary.BigEndian.PutUint16(head[8:], uint16(at))
	}
	schema := append([]byte{6, 13 + 2*5, 13 + 2*8, 13 + 2*8, 1, 13}, "tablePackagesPackages\x02"...)
	leaf(pages[:size], pages[100:], append([]byte{byte(len(schema)), 1}, schema...))
	two := func(n int) []byte { return []byte{0x80 | byte(n>>7), byte(n & 0x7f)} }
	payload := append(append([]byte{4, 0}, two(12+2*len(blob))...), blob...)
	local := 39 + (len(payload)-39)%(size-4)
	if local > size-35 {
		local = 39
	}
	cell := append(append(two(len(payload)), 1), payload[:local]...)
	leaf(pages[size:2*size], pages[size:], binary.BigEndian.AppendUint32(cell, 3))
	rest := payload[local:]
	for n := 3; len(rest) > 0; n++ {
		page := binary.BigEndian.AppendUint32(nil, uint32(n+1))
		page = append(page, rest[:min(len(rest), size-4)]...)
		rest = rest[len(page)-4:]
		pages = append(pages[:(n-1)*size], append(page, make([]byte, size-len(page))...)...)
	}
	return pages
}

// packageHeader returns the header of a package.
func packageHeader(name, version, release, description, arch string) []byte {
	var index, data []byte
	tags := []struct {
		tag  uint32
		text string
	}{{tagName, name}, {tagVersion, version}, {tagRelease, release}, {1005, description}, {tagArch, arch}}
	for _, row := range tags {
		for _, n := range []uint32{row.tag, 6, uint32(len(data)), 1} {
			index = binary.BigEndian.AppendUint32(index, n)
		}
		data = append(data, row.text+"\x00"...)
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(len(tags))), uint32(len(data)))
	return append(append(head, index...), data...)
}

func FuzzReadRPM(f *testing.F) {
	small := smallDatabase(packageHeader("alpha", "1", "2", strings.Repeat("long ", 200), "noarch"))
	if set, err := readRPM(small); err != nil || set["alpha"] != "1-2" {
		f.Fatalf("the small database has %v, %v", set, err)
	}
	f.Add(small)
	f.Fuzz(func(t *testing.T, data []byte) {
		set, _ := readRPM(data)
		for name, version := range set {
			if RPM.Compare(version, version) != 0 || name == "" {
				t.Errorf("package %q %q", name, version)
			}
		}
	})
}

// TestCompareRPM: each row is what rpm says, too, and so are versions of random parts.
func TestCompareRPM(t *testing.T) {
	rows := [][2]string{
		{"1.0-1", "1.0-1"}, {"1.0-1", "1.0-2"}, {"1.9-1", "1.10-1"}, {"1.0~rc1-1", "1.0-1"}, {"1.0^git1-1", "1.0-1"}, {"1.0^git1-1", "1.0.1-1"}, {"2-1", "1:1-1"},
		{"1.0a-1", "1.0-1"}, {"1.a-1", "1.1-1"}, {"1..0-1", "1.0-1"}, {"007-1", "7-1"}, {"1.0-1.el9", "1.0-1.el9_4"}, {"1_0-1", "1.0-1"}, {"a-1", "A-1"}, {"1.-1", "1-1"},
	}
	r := rand.New(rand.NewPCG(3, 4))
	parts := []string{"1", "2", "10", "007", "a", "b", "Z", ".", "_", "~", "^", "+", "el9"}
	random := func() string {
		text := "1"
		for range r.IntN(5) {
			text += parts[r.IntN(len(parts))]
		}
		return text
	}
	for range 500 {
		rows = append(rows, [2]string{random() + "-1", random() + "-1"})
	}
	var lua strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&lua, "print(rpm.vercmp('%s','%s')..' ')\n", row[0], row[1])
	}
	said := strings.Fields(run(t, "rpm", "--eval", "%{lua:"+lua.String()+"}"))
	if len(said) != len(rows) {
		t.Fatalf("rpm gives %d results for %d rows", len(said), len(rows))
	}
	sign := func(n int) int { return min(1, max(-1, n)) }
	for i, row := range rows {
		if got, back := sign(RPM.Compare(row[0], row[1])), sign(RPM.Compare(row[1], row[0])); strconv.Itoa(got) != said[i] || back != -got {
			t.Errorf("%s against %s: %d, the other way %d; rpm says %s", row[0], row[1], got, back, said[i])
		}
	}
}
