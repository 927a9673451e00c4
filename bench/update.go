package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images"
)

// updates is where scripts/bench-updates puts packages in two versions.
const updates = "bin/updates"

// An update is what packages have before and after their security fixes, as directories
// and as images of two hosts.
type update struct {
	dir            string // on the disk
	source, target *images.Store
	old, new       string // images
	sent           int64  // bytes, the last time
}

// updateRow brings a host from one version of packages to the next.
func updateRow(ctx context.Context, b *bench) error {
	u := &update{dir: "/var/lib/update"}
	packages, err := u.unpack(ctx)
	if err != nil {
		return err
	}
	files, size, alone, err := u.changed(ctx)
	if err != nil {
		return err
	}
	if err := u.build(ctx); err != nil {
		return err
	}
	var rsynced int64
	subjects := []subject{
		{"difference: made, sent, taken", func(ctx context.Context) (time.Duration, error) {
			kept, err := filepath.Glob(u.dir + "/source/.images/*/*.difference")
			for _, path := range kept {
				err = errors.Join(err, os.Remove(path))
			}
			if err != nil {
				return 0, err
			}
			return u.carry(ctx)
		}},
		{"difference that is kept: sent, taken", u.carry},
		{"rsync -az", func(ctx context.Context) (took time.Duration, err error) {
			took, rsynced, err = u.rsync(ctx)
			return took, err
		}},
		{"layer of the changed files, unpacked", u.layer},
	}
	title := fmt.Sprintf("Update of %d Debian packages, %d files of %.1f MB, to the disk", packages, files, float64(size)/1e6)
	if err := row(ctx, title, b.rounds(5), subjects, []pair{{0, 2, 1}, {1, 2, 1}, {1, 3, 0}}); err != nil {
		return err
	}
	layer, err := os.Stat(u.dir + "/layer.tar.gz")
	if err != nil {
		return err
	}
	fmt.Printf("  MB sent: difference %.1f, rsync -z %.1f, layer %.1f, the files by zstd -3 %.1f\n",
		float64(u.sent)/1e6, float64(rsynced)/1e6, float64(layer.Size())/1e6, float64(alone)/1e6)
	for _, r := range []struct {
		name   string
		bytes  int64
		target float64
	}{{"the files by zstd -3", alone, 0.35}, {"rsync -z", rsynced, 0.6}, {"layer", layer.Size(), 0}} {
		ratio := float64(u.sent) / float64(r.bytes)
		fmt.Printf("  bytes of the difference : %s = %.2f%s\n", r.name, ratio, verdict(ratio, r.target))
	}
	return nil
}

// unpack makes the directories.
func (u *update) unpack(ctx context.Context) (packages int, err error) {
	for _, version := range []string{"old", "new"} {
		debs, err := filepath.Glob(filepath.Join(updates, version, "*.deb"))
		if err != nil || len(debs) == 0 {
			return 0, errors.Join(err, fmt.Errorf("%s has no packages: run scripts/bench, or scripts/bench-updates %s", updates, updates))
		}
		packages = len(debs)
		if err := os.MkdirAll(filepath.Join(u.dir, version), 0o755); err != nil {
			return 0, err
		}
		for _, deb := range debs {
			if err := runQuietly(ctx, "dpkg-deb", "-x", deb, filepath.Join(u.dir, version)); err != nil {
				return 0, err
			}
		}
	}
	return packages, nil
}

// changed finds the files that are new or other, and their size, also when each is
// compressed alone. It makes the layer of them.
func (u *update) changed(ctx context.Context) (files int, size, alone int64, err error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(3)))
	if err != nil {
		return 0, 0, 0, err
	}
	var names bytes.Buffer
	err = fs.WalkDir(os.DirFS(u.dir+"/new"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		now, err := os.ReadFile(filepath.Join(u.dir, "new", path))
		if err != nil {
			return err
		}
		if before, err := os.ReadFile(filepath.Join(u.dir, "old", path)); err == nil && bytes.Equal(before, now) {
			return nil
		}
		files++
		size += int64(len(now))
		alone += int64(len(z.EncodeAll(now, nil)))
		names.WriteString(path + "\x00")
		return nil
	})
	if err != nil {
		return 0, 0, 0, err
	}
	tar := exec.CommandContext(ctx, "tar", "-C", u.dir+"/new", "--null", "-T", "-", "-czf", u.dir+"/layer.tar.gz")
	tar.Stdin = &names
	if out, err := tar.CombinedOutput(); err != nil {
		return 0, 0, 0, fmt.Errorf("tar: %w: %s", err, out)
	}
	return files, size, alone, nil
}

// build makes images of both versions on the source, and brings the first to the target.
func (u *update) build(ctx context.Context) (err error) {
	if u.source, err = images.Open(u.dir + "/source/.images"); err != nil {
		return err
	}
	if u.target, err = images.Open(u.dir + "/target/.images"); err != nil {
		return err
	}
	for version, id := range map[string]*string{"old": &u.old, "new": &u.new} {
		spec := api.ImageSpec{Name: version, Method: "template", Args: []string{"-t", filepath.Join(u.dir, version)}}
		img, _, err := u.source.Build(ctx, spec, nil)
		if err != nil {
			return err
		}
		*id = img.ID
	}
	return u.send(ctx, u.old, "")
}

// send sends an image from one host to the other.
func (u *update) send(ctx context.Context, id, base string) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(u.source.ExportDifference(ctx, id, base, 0, w)) }()
	in := &counting{r: r}
	_, _, err := u.target.Import(ctx, in, id)
	r.CloseWithError(err)
	u.sent = in.n
	return err
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (u *update) carry(ctx context.Context) (time.Duration, error) {
	nobody := func(string) ([]string, error) { return nil, nil }
	if here, err := u.target.Has(u.new); err != nil || here {
		if err := errors.Join(err, u.target.Remove(ctx, u.new, nobody)); err != nil {
			return 0, err
		}
	}
	unix.Sync()
	return timed(func() error { return u.send(ctx, u.new, u.old) })
}

var bytesSent = regexp.MustCompile(`Total bytes (sent|received): ([0-9,]+)`)

// copied makes a copy of the old version.
func (u *update) copied(ctx context.Context) (string, error) {
	dir := u.dir + "/copy"
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	err := runQuietly(ctx, "cp", "-a", u.dir+"/old", dir)
	unix.Sync()
	return dir, err
}

func (u *update) rsync(ctx context.Context) (took time.Duration, sent int64, err error) {
	dir, err := u.copied(ctx)
	if err != nil {
		return 0, 0, err
	}
	var out []byte
	took, err = timed(func() (err error) {
		// As between two machines, where whole files are not the default.
		if out, err = exec.CommandContext(ctx, "rsync", "-az", "--delete", "--no-whole-file", "--stats", u.dir+"/new/", dir+"/").CombinedOutput(); err != nil {
			return fmt.Errorf("rsync: %w: %s", err, out)
		}
		return syncfs(dir)
	})
	if err != nil {
		return 0, 0, err
	}
	for _, m := range bytesSent.FindAllStringSubmatch(string(out), -1) {
		n, err := strconv.ParseInt(strings.ReplaceAll(m[2], ",", ""), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		sent += n
	}
	return took, sent, nil
}

func (u *update) layer(ctx context.Context) (time.Duration, error) {
	dir, err := u.copied(ctx)
	if err != nil {
		return 0, err
	}
	return timed(func() error {
		if err := runQuietly(ctx, "tar", "-C", dir, "-xzf", u.dir+"/layer.tar.gz"); err != nil {
			return err
		}
		return syncfs(dir)
	})
}

func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
