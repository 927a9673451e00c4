package composefs

import (
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestVerityIsTheKernels has what composefs-info measure-file says of the same files,
// but for the empty one: there composefs takes a block of zeros, and the kernel none.
func TestVerityIsTheKernels(t *testing.T) {
	for size, want := range map[int]string{
		0:            "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
		1:            "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551",
		4095:         "f7c044deee0d5af15f6478c08b8a0c03931d9963beb30220eeca8bdd03e1c7e4",
		4096:         "258b680fa93e3bfc1586d9b439d29a2172bd0db550fe7da1272fd8120d801182",
		4097:         "0b56d91e56b7acb8a5d9b3c634035e958de06d93cebf44ec208715e5d31e702e",
		128 * 4096:   "3f0878082c1ff21b3c72099f28aafe4d629ba40d693ad12c03a48921cf50e92d",
		128*4096 + 1: "0b290ba5244d75295e37ef71e3cf78277b2ccb688c590011bb5c9dc95cad7937",
		256*4096 + 5: "403da621dbe3f9df957bd54dd7cf6d2cb70a703f67ffcc6f9bce34958f8440e4",
	} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte((i*7 + i/4096) % 251)
		}
		for _, part := range []int{size + 1, 1000, 4096, 9999} {
			var v Verity
			for rest := content; len(rest) > 0; {
				n := min(part, len(rest))
				v.Write(rest[:n])
				rest = rest[n:]
			}
			if sum := v.Sum(); hex.EncodeToString(sum[:]) != want {
				t.Errorf("%d bytes in parts of %d: %x, want %s", size, part, sum, want)
			}
		}
	}
}

func TestWhatCannotBeDescribedIsRefused(t *testing.T) {
	dir, file := Node{Mode: unix.S_IFDIR | 0o755}, Node{Mode: unix.S_IFREG | 0o644}
	with := func(n Node, change func(*Node)) Node { change(&n); return n }
	tree := func(t *testing.T) *Tree {
		tree, err := New(dir)
		for _, path := range []string{"etc", "etc/passwd", "usr"} {
			n := dir
			if path == "etc/passwd" {
				n = file
			}
			err = errors.Join(err, tree.Add(path, n))
		}
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	for _, row := range []struct {
		name, path string
		node       Node
		want       string
	}{
		{"a name with a zero byte", "var\x00", file, "zero byte"},
		{"a long name", strings.Repeat("v", 256), file, "256 bytes: 255"},
		{"a path that ends with a slash", "usr/", dir, "name is empty"},
		{"a path that begins with a slash", "/var", dir, "directory does not come before"},
		{"a path out of the root", "../var", dir, "directory does not come before"},
		{"a path with .. in it", "usr/../var", dir, "directory does not come before"},
		{"an entry below a file", "etc/passwd/x", file, "no directory"},
		{"an entry below nothing", "var/log", file, "does not come before"},
		{"an entry twice", "usr", dir, "twice"},
		{"an entry out of order", "bin", dir, `comes after "usr"`},
		{"a mode with too many bits", "var", Node{Mode: unix.S_IFREG | 1<<16}, "more bits"},
		{"a mode without a type", "var", Node{Mode: 0o644}, "no type"},
		{"more than a second", "var", with(file, func(n *Node) { n.Nsec = 1e9 }), "more than a second"},
		{"a size that is not the content's", "var", with(file, func(n *Node) { n.Size, n.Content = 3, "ab" }), "has 2 bytes"},
		{"a file of 9 PB", "var", with(file, func(n *Node) { n.Size = 1024<<43 + 1 }), "larger than EROFS"},
		{"an object elsewhere", "var", with(file, func(n *Node) { n.Size, n.Payload = 1, "../../etc/shadow" }), "not below"},
		{"an object with an absolute path", "var", with(file, func(n *Node) { n.Size, n.Payload = 1, "/etc/shadow" }), "not below"},
		{"an object with a long path", "var", with(file, func(n *Node) { n.Size, n.Payload = 1, strings.Repeat("x", 4096) }), "4096 bytes"},
		{"an object with a zero byte", "var", with(file, func(n *Node) { n.Size, n.Payload = 1, "x\x00" }), "zero byte"},
		{"an attribute with a zero byte", "var", with(file, func(n *Node) { n.Xattrs = []Xattr{{"user.\x00", ""}} }), "zero byte"},
		{"an attribute twice", "var", with(file, func(n *Node) { n.Xattrs = []Xattr{{"user.a", ""}, {"user.a", "1"}} }), "twice"},
		{"large attributes", "var", with(file, func(n *Node) { n.Xattrs = []Xattr{{"user.a", strings.Repeat("x", 32743)}} }), "more than 32767"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := tree(t).Add(row.path, row.node); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
	for _, link := range [][3]string{
		{"var", "usr", "is a directory"},
		{"var", "usr/bin", "does not come before"},
		{"var", "", "does not come before"},
		{"etc", "etc/passwd", "comes after"},
	} {
		if err := tree(t).Link(link[0], link[1]); err == nil || !strings.Contains(err.Error(), link[2]) {
			t.Errorf("a link from %s to %s: %v, want %q", link[0], link[1], err, link[2])
		}
	}
	if _, err := New(file); err == nil {
		t.Error("a file is a root")
	}
}

// A full disk.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

func TestAWriteThatFailsIsReported(t *testing.T) {
	tree, err := parseDump(asset(t, "special.dump"))
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []int{0, 100, 12000} {
		if _, err := tree.Write(&full{left}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
}

// FuzzDump writes whatever parses: nothing may panic, and equal trees give equal
// images.
func FuzzDump(f *testing.F) {
	for _, name := range []string{"special", "longlink", "honggfuzz-bigfile-with-acl", "should-fail-self-hardlink", "should-fail-too-big"} {
		f.Add(asset(f, name+".dump"))
	}
	for seed := range uint64(20) {
		if dump := generate(seed); len(dump) < 20000 {
			f.Add(dump)
		}
	}
	f.Fuzz(func(t *testing.T, dump string) {
		tree, err := parseDump(dump)
		if err != nil {
			return
		}
		var size, again counter
		a, err := tree.Write(&size)
		if err != nil || size%blockSize != 0 {
			t.Errorf("%d bytes, error %v", size, err)
		}
		tree, _ = parseDump(dump)
		if b, err := tree.Write(&again); a != b || size != again || err != nil {
			t.Errorf("written twice: %x and %x, error %v", a, b, err)
		}
	})
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func BenchmarkWrite(b *testing.B) {
	for name, entries := range map[string]int{"10000": 10_000, "1000000": 1_000_000} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				tree := largeTree(b, entries)
				if _, err := tree.Write(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
