package imagediff

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	manifestHead = "vsfleet tree 1\n"
	maxEntries   = 2_000_000 // more than any image has
	maxManifest  = 1 << 30
	maxLine      = 1 << 20
	maxWindow    = 8 << 20 // of zstd
)

// An entry is a line of a manifest.
type entry struct {
	kind     string // as in the manifest: f, d, l, h, p
	mode     string // octal
	uid, gid int64
	size     int64
	mtime    string
	link     string // the target of a symbolic link
	content  string // the sha256 of a file
	xattrs   string // as in the manifest
	hard     string // the file that this is another name of; the rest is then that one's
}

// A manifest has the entries of a tree by their paths.
type manifest map[string]entry

// readManifest reads a manifest that was compressed by zstd, which must be that of the image.
func readManifest(r io.Reader, id string) (manifest, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	sum := sha256.New()
	m, err := parseManifest(io.TeeReader(io.LimitReader(z, maxManifest), sum))
	if err != nil {
		return nil, fmt.Errorf("read the manifest of image %s: %w", id, err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != id {
		return nil, fmt.Errorf("the host sends the manifest of %s as that of image %s", got, id)
	}
	return m, nil
}

var errLine = errors.New("not a line of a manifest")

func parseManifest(r io.Reader) (manifest, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 1<<16), maxLine)
	if !lines.Scan() || lines.Text()+"\n" != manifestHead {
		return nil, errors.Join(errors.New("not a manifest that this version of vsfleet knows"), lines.Err())
	}
	m := manifest{}
	for lines.Scan() {
		path, e, err := parseLine(lines.Text())
		if err == nil && e.kind == "h" {
			e, err = m.other(e.link)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %.100q", err, lines.Text())
		}
		if m[path] = e; len(m) > maxEntries {
			return nil, fmt.Errorf("it has more than %d files", maxEntries)
		}
	}
	return m, lines.Err()
}

// other returns the entry of another name of a file.
func (m manifest) other(file string) (entry, error) {
	e, ok := m[file]
	if !ok || e.kind == "d" || e.hard != "" {
		return e, errLine
	}
	e.hard = file
	return e, nil
}

// parseLine reads: kind path mode uid gid size mtime link sha256 [xattr value]…
func parseLine(line string) (path string, e entry, err error) {
	f := fields{rest: line}
	e.kind = f.word()
	path = f.quoted()
	e.mode = f.word()
	e.uid, e.gid, e.size = f.number(), f.number(), f.number()
	e.mtime = f.word()
	e.link = f.quoted()
	e.content, e.xattrs, _ = strings.Cut(f.rest, " ")
	_, mode := strconv.ParseUint(e.mode, 8, 12)
	if f.failed || mode != nil || path == "" || len(e.kind) != 1 || !strings.Contains("fdlhp", e.kind) || e.size < 0 {
		return "", e, errLine
	}
	return path, e, nil
}

// Fields takes the fields of a line, each with the space after it.
type fields struct {
	rest   string
	failed bool
}

func (f *fields) word() string {
	word, rest, ok := strings.Cut(f.rest, " ")
	f.rest, f.failed = rest, f.failed || !ok
	return word
}

func (f *fields) number() int64 {
	n, err := strconv.ParseInt(f.word(), 10, 64)
	f.failed = f.failed || err != nil
	return n
}

func (f *fields) quoted() string {
	q, err := strconv.QuotedPrefix(f.rest)
	if err != nil || !strings.HasPrefix(q, `"`) {
		f.failed = true
		return ""
	}
	text, err := strconv.Unquote(q)
	rest, ok := strings.CutPrefix(f.rest[len(q):], " ")
	f.rest, f.failed = rest, f.failed || err != nil || !ok
	return text
}
