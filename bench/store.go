package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// A release is a tree as large as a small Debian, in two versions: what a second build has
// other times for, and other content in a twentieth of the files.
type release struct {
	*bench
	trees  [2]string // directories
	images [2]api.Image
	bytes  int64 // of the files of a version
}

const releaseFiles = 7000

// storeRow measures images: their mounts, their ways in, and what they share.
func storeRow(ctx context.Context, b *bench) error {
	r := &release{bench: b}
	for v := range r.trees {
		r.trees[v] = fmt.Sprintf("/var/lib/release-%d", v+1)
		if err := r.write(v); err != nil {
			return err
		}
	}
	var err error
	if r.images[0], err = r.build(ctx, 0); err != nil {
		return err
	}
	for _, part := range []func(context.Context) error{r.mounts, r.imports, r.creates, r.versions, r.pages, r.hashify} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// write writes a version. Sizes are those of a distribution: half of the files are below
// 5 KB, and a hundredth has most of the bytes.
func (r *release) write(version int) error {
	r.bytes = 0
	for i := range releaseFiles {
		seed := uint64(i)
		if version > 0 && i%20 == 0 {
			seed += 1 << 32
		}
		random := rand.New(rand.NewPCG(uint64(i), 0))
		size := int(min(math.Exp(8.6+1.6*random.NormFloat64()), 8<<20))
		if i == 1 {
			size = 32 << 20 // as a locale archive, or a large library
		}
		r.bytes += int64(size)
		path := fmt.Sprintf("%s/usr/share/d%02d/f%04d", r.trees[version], i%90, i)
		if err := writeFile(path, noise(seed, size)); err != nil {
			return err
		}
	}
	program, err := os.ReadFile(r.tree + "/bin/busybox")
	if err != nil {
		return err
	}
	if err := writeFile(r.trees[version]+"/bin/busybox", program); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "etc", "proc", "root", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(r.trees[version], dir), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"sh", "sleep", "true", "find", "cat"} {
		if err := os.Symlink("busybox", filepath.Join(r.trees[version], "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

// noise returns bytes that compress to a half, as programs do.
func noise(seed uint64, size int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for i := range b {
		if i>>6&1 == 0 {
			b[i] = byte(random.Uint32())
		}
	}
	return b
}

func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o755)
}

func (r *release) build(ctx context.Context, version int) (api.Image, error) {
	spec := api.ImageSpec{Name: "release", Method: "template", Args: []string{"-t", r.trees[version]}}
	img, _, err := r.host.Images.Build(ctx, spec, nil)
	return img, err
}

// open mounts an image, or a plain tree, with an upper layer of its own.
func (r *release) open(ctx context.Context, image string) (*os.File, error) {
	root := procctx.Root{Image: image, Upper: "/var/lib/bench-upper", Work: "/var/lib/bench-work"}
	for _, dir := range []string{root.Upper, root.Work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return root.Open(ctx)
}

// mounts: a root is mounted, walked through and read.
func (r *release) mounts(ctx context.Context) error {
	image, err := r.host.Images.Root(r.images[0].ID)
	if err != nil {
		return err
	}
	mount := func(name, image string) subject {
		return subject{name, func(ctx context.Context) (time.Duration, error) {
			return timed(func() error {
				f, err := r.open(ctx, image)
				if err != nil {
					return err
				}
				return f.Close()
			})
		}}
	}
	err = row(ctx, "a root is mounted, and unmounted (target: 1 ms)", r.rounds(30),
		[]subject{mount("description and objects", image), mount("a plain tree", r.trees[0])}, []pair{{0, 1, 0}})
	if err != nil {
		return err
	}
	root, err := r.open(ctx, image)
	if err != nil {
		return err
	}
	defer root.Close()
	tree, err := os.Open(r.trees[0])
	if err != nil {
		return err
	}
	defer tree.Close()
	guest, host := fmt.Sprintf("/proc/self/fd/%d/.", root.Fd()), fmt.Sprintf("/proc/self/fd/%d/.", tree.Fd()) // links cost time, too
	over := func(name, dir string, visit func(path string, d fs.DirEntry) error) subject {
		return subject{name, func(context.Context) (time.Duration, error) {
			return timed(func() error {
				return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
					if err != nil {
						return err
					}
					return visit(path, d)
				})
			})
		}}
	}
	// Both come into memory in the same way: what was just written lies there in larger pieces.
	if err := errors.Join(drop(r.trees[0]), drop("/var/lib/vservers")); err != nil {
		return err
	}
	stat := func(_ string, d fs.DirEntry) error { _, err := d.Info(); return err }
	err = row(ctx, fmt.Sprintf("stat of all its %d files", releaseFiles), r.rounds(15),
		[]subject{over("below a guest's root", guest, stat), over("on the host", host, stat)}, []pair{{0, 1, 1.2}})
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	read := func(path string, d fs.DirEntry) error {
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for n := 1; n > 0; {
			n, _ = f.Read(buf)
		}
		return nil
	}
	err = row(ctx, fmt.Sprintf("opening and reading all its %d MB, from memory", r.bytes/1e6), r.rounds(15),
		[]subject{over("below a guest's root", guest, read), over("on the host", host, read)}, []pair{{0, 1, 1.01}})
	if err != nil {
		return err
	}
	var largest string
	var size int64
	err = filepath.WalkDir(r.trees[0], func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, _ := d.Info(); info.Size() > size {
				largest, size = strings.TrimPrefix(path, r.trees[0]), info.Size()
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	again := func(name, path string) subject {
		return subject{name, func(context.Context) (time.Duration, error) {
			f, err := os.Open(path)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			return timed(func() error {
				for range 3 {
					for at := int64(0); at < size; at += int64(len(buf)) {
						_, _ = f.ReadAt(buf, at)
					}
				}
				return nil
			})
		}}
	}
	return row(ctx, fmt.Sprintf("reading one open file of %d MB, from memory", size/1e6), r.rounds(15),
		[]subject{again("below a guest's root", guest+largest), again("on the host", host+largest)}, []pair{{0, 1, 1.01}})
}

// imports: a stream becomes an image of a store that has nothing.
func (r *release) imports(ctx context.Context) error {
	var stream bytes.Buffer
	if err := r.host.Images.Export(ctx, r.images[0].ID, &stream); err != nil {
		return err
	}
	const dir = "/var/lib/bench-import"
	fresh := func(ctx context.Context, do func() error) (time.Duration, error) {
		if err := os.RemoveAll(dir); err != nil {
			return 0, err
		}
		return timed(do)
	}
	defer os.RemoveAll(dir)
	subjects := []subject{
		{"vsnode imports it", func(ctx context.Context) (time.Duration, error) {
			s, err := images.Open(dir + "/.images")
			if err != nil {
				return 0, err
			}
			return fresh(ctx, func() error {
				_, _, err := s.Import(ctx, bytes.NewReader(stream.Bytes()), r.images[0].ID)
				return err
			})
		}},
		{"cp -a of the tree, and sync", func(ctx context.Context) (time.Duration, error) {
			return fresh(ctx, func() error { return runQuietly(ctx, "sh", "-c", "cp -a "+r.trees[0]+" "+dir+"; sync -f "+dir) })
		}},
		{"sha256sum of the tree", func(ctx context.Context) (time.Duration, error) {
			return fresh(ctx, func() error {
				return runQuietly(ctx, "sh", "-c", "find "+r.trees[0]+" -type f -print0 | xargs -0 sha256sum")
			})
		}},
	}
	all, err := turns(ctx, r.rounds(5), subjects)
	if err != nil {
		return err
	}
	fmt.Printf("\nan image of %d MB comes, %d MB as a stream (target: 300 MB/s, or what the disk does)\n", r.bytes/1e6, stream.Len()/1e6)
	for i, s := range subjects {
		fmt.Printf("  %-44s %10s   %.0f MB/s\n", s.name, threeDigits(all[i].median()), float64(r.bytes)/1e6/all[i].median().Seconds())
	}
	return nil
}

// creates: a guest is made from an image that is there.
func (r *release) creates(ctx context.Context) error {
	r.image, r.images[0] = r.images[0], r.image
	g := r.spec("from-release", "/bin/sleep", "1000000")
	r.image, r.images[0] = r.images[0], r.image
	var disk int64
	all, err := turns(ctx, r.rounds(20), []subject{{"create", func(ctx context.Context) (time.Duration, error) {
		took, err := timed(func() error { return r.host.Guests.Create(ctx, g) })
		if err != nil {
			return 0, err
		}
		disk = 0
		for _, dir := range []string{r.host.Guests.DataDir, r.host.Guests.ConfigDir} {
			n, err := diskUse(filepath.Join(dir, g.Name))
			if err != nil {
				return 0, err
			}
			disk += n
		}
		return took, r.host.Guests.Delete(ctx, g.Name)
	}}})
	if err != nil {
		return err
	}
	fmt.Printf("\na guest is made from it\n  %-44s %10s   (target 15 ms)\n  %-44s %6d KiB   (target 200)\n", "median", threeDigits(all[0].median()), "disk, configuration included", disk>>10)
	return nil
}

// versions: the second version comes.
func (r *release) versions(ctx context.Context) (err error) {
	const lib = "/var/lib/vservers/"
	before, err := diskUse(lib + ".store")
	if err != nil {
		return err
	}
	if r.images[1], err = r.build(ctx, 1); err != nil {
		return err
	}
	after, err := diskUse(lib + ".store")
	if err != nil {
		return err
	}
	var changed, description int64
	for i := range releaseFiles {
		if i%20 == 0 {
			info, err := os.Stat(fmt.Sprintf("%s/usr/share/d%02d/f%04d", r.trees[1], i%90, i))
			if err != nil {
				return err
			}
			changed += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	if description, err = diskUse(lib + ".images/" + strings.TrimPrefix(r.images[1].ID, "sha256:")); err != nil {
		return err
	}
	fmt.Printf("\na second version, %.1f MB of it changed and all times\n", float64(changed)/1e6)
	fmt.Printf("  %-44s %.2f MB\n", "new objects", float64(after-before)/1e6)
	fmt.Printf("  %-44s %.2f MB   (target 1)\n", "besides: manifest and description", float64(description+after-before-changed)/1e6)
	return nil
}
