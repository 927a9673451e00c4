package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/procctx"
)

const sharers = 20

// guestsOf makes guests of a version of the release.
func (r *release) guestsOf(ctx context.Context, version int, name string, n int) (names []string, err error) {
	was := r.image
	defer func() { r.image = was }()
	r.image = r.images[version]
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%02d", name, i))
		if err := r.guest(ctx, names[i], "/bin/sleep", "1000000"); err != nil {
			return names, err
		}
	}
	return names, nil
}

// pages: what is in memory after guests of the same version, and of two versions, have read
// all their files.
func (r *release) pages(ctx context.Context) (err error) {
	first, err := r.guestsOf(ctx, 0, "reader", sharers)
	if err != nil {
		return err
	}
	second, err := r.guestsOf(ctx, 1, "newer", 1)
	if err != nil {
		return err
	}
	defer func() {
		for _, name := range append(first, second...) {
			err = errors.Join(err, r.host.Guests.Delete(context.WithoutCancel(ctx), name))
		}
	}()
	read := func(names ...string) (int64, error) {
		for _, name := range names {
			if err := r.host.Guests.Start(ctx, name, guest.Options{}); err != nil {
				return 0, err
			}
			if err := runQuietly(ctx, r.vserver, name, "exec", "sh", "-c", "find /usr -type f -exec cat {} + > /dev/null"); err != nil {
				return 0, err
			}
		}
		return resident("/var/lib/vservers")
	}
	if err := drop("/var/lib/vservers"); err != nil {
		return err
	}
	before, err := resident("/var/lib/vservers")
	if err != nil {
		return err
	}
	one, err := read(first[0])
	if err != nil {
		return err
	}
	all, err := read(first[1:]...)
	if err != nil {
		return err
	}
	// What is new in the second version is in memory besides.
	var changed int64
	for i := 0; i < releaseFiles; i += 20 {
		info, err := os.Stat(fmt.Sprintf("%s/usr/share/d%02d/f%04d", r.trees[1], i%90, i))
		if err != nil {
			return err
		}
		changed += (info.Size() + 4095) &^ 4095
	}
	both, err := read(second[0])
	if err != nil {
		return err
	}
	one, all, both = one-before, all-before, both-before
	fmt.Printf("\nin memory, of all files below /var/lib/vservers, once guests have read theirs (mincore)\n")
	fmt.Printf("  %-44s %.1f MB\n", "one guest", float64(one)/1e6)
	fmt.Printf("  %-44s %.1f MB: %.3f of one (target 1.03)\n", fmt.Sprintf("%d guests", sharers), float64(all)/1e6, float64(all)/float64(one))
	fmt.Printf("  %-44s %.1f MB: %.3f of one, without %.1f MB that are new (target 1.03)\n", "and one of the next version", float64(both)/1e6, float64(both-changed)/float64(one), float64(changed)/1e6)
	return nil
}

// eachFile calls visit with each regular file below a directory.
func eachFile(dir string, visit func(f *os.File, size int64) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || info.Size() == 0 {
			return err
		}
		return visit(f, info.Size())
	})
}

// drop takes all files below a directory out of the page cache.
func drop(dir string) error {
	unix.Sync()
	return eachFile(dir, func(f *os.File, _ int64) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) })
}

// resident returns the bytes of all files below a directory that are in the page cache. What
// guests read in their roots are pages of these files.
func resident(dir string) (sum int64, err error) {
	err = eachFile(dir, func(f *os.File, size int64) error {
		b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(b) }()
		pages := make([]byte, (size+4095)>>12)
		if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
			return errno
		}
		for _, p := range pages {
			sum += int64(p&1) << 12
		}
		return nil
	})
	return sum, err
}

// hashify: the same upgrade was made in guests by hand.
func (r *release) hashify(ctx context.Context) (err error) {
	names, err := r.guestsOf(ctx, 0, "upgraded", sharers)
	if err != nil {
		return err
	}
	defer func() {
		for _, name := range names {
			err = errors.Join(err, r.host.Guests.Delete(context.WithoutCancel(ctx), name))
		}
	}()
	image, err := r.host.Images.Root(r.images[0].ID)
	if err != nil {
		return err
	}
	const upgraded, size = 400, 150_000
	for _, name := range names {
		data := filepath.Join(r.host.Guests.DataDir, name)
		root, err := procctx.Root{Image: image, Upper: data + "/root", Work: data + "/work"}.Open(ctx)
		if err != nil {
			return err
		}
		for i := range upgraded {
			if err := writeFile(fmt.Sprintf("/proc/self/fd/%d/usr/lib/package/f%d", root.Fd(), i), noise(uint64(i)+1<<40, size)); err != nil {
				return err
			}
		}
		root.Close()
	}
	unix.Sync()
	before, err := diskUse("/var/lib/vservers")
	if err != nil {
		return err
	}
	sum, err := timed(func() error {
		return runQuietly(ctx, "sh", "-c", "sha256sum "+filepath.Join(r.host.Guests.DataDir, names[0])+"/root/usr/lib/package/*")
	})
	if err != nil {
		return err
	}
	var answer api.Hashified
	took, err := timed(func() error {
		answer, err = r.host.Hashify(ctx, api.Hashify{Guests: names})
		return err
	})
	var problems []string
	for _, g := range answer.Guests {
		if g.Problem != "" {
			problems = append(problems, g.Name+": "+g.Problem)
		}
	}
	if err != nil || problems != nil {
		return errors.Join(err, errors.New(strings.Join(problems, "; ")))
	}
	after, err := diskUse("/var/lib/vservers")
	if err != nil {
		return err
	}
	const total = sharers * upgraded * size
	const duplicate = total - upgraded*size
	fmt.Printf("\nhashify, after the same upgrade of %d files, %.0f MB, in %d guests\n", upgraded, float64(upgraded*size)/1e6, sharers)
	fmt.Printf("  %-44s %.1f %% of %.0f MB (target 95)\n", "given back of what is there more than once", 100*float64(before-after)/duplicate, float64(duplicate)/1e6)
	fmt.Printf("  %-44s %s, %.0f MB/s (target 300); sha256sum: %.0f MB/s\n", "time", threeDigits(took), total/1e6/took.Seconds(), upgraded*size/1e6/sum.Seconds())
	return nil
}
