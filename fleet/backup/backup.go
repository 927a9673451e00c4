package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/api"
)

// Head describes a backup.
type Head struct {
	Format  int       `json:"format"` // 2
	Host    string    `json:"host"`
	Taken   time.Time `json:"taken"`
	How     string    `json:"how"`             // api.SendHow
	Running bool      `json:"running"`         // it ran before
	Image   string    `json:"image,omitempty"` // the ID of what its files lie on
	Guest   api.Guest `json:"guest"`           // its settings; no credentials
	// Address of the host, which the guest may share.
	Address netip.Prefix `json:"address,omitzero"`
	Begun   int64        `json:"begun,omitempty"` // see api.SentGuest
	Files   int          `json:"files"`
	Size    int64        `json:"size"`   // of their contents
	Added   int64        `json:"added"`  // that the directory has grown by for it
	Bytes   int64        `json:"bytes"`  // of the list
	SHA256  string       `json:"sha256"` // of the list
}

const (
	format  = 2
	maxHead = 1 << 20
	// skippable is the first magic number of a frame that readers skip (RFC 8878, 3.1.2).
	skippable = 0x184D2A50
	// tail is what follows the head in its frame: its digest and its length.
	tail = sha256.Size + 4
)

// Writing is a backup that is being made.
type Writing struct {
	store *Store
	dir   string
	files files
	begun int64
	first bool
	added int64
}

// Begin begins a backup of a guest. What the last one has of it need not be sent again.
func (s *Store) Begin(ctx context.Context, host, guest string) (*Writing, error) {
	w := &Writing{store: s, dir: path.Join(host, guest), first: true}
	names, err := s.names(w.dir)
	if err != nil || len(names) == 0 {
		return w, err
	}
	last, err := s.Backup(ctx, names[len(names)-1])
	if err != nil {
		return w, nil // a damaged one is of no use here; Check finds it
	}
	w.files, w.begun = last.files, last.Begun
	return w, nil
}

// Since returns when the files of the last round, or of the last backup, were read; see [api.SendGuest].
func (w *Writing) Since() int64 { return w.begun }

// Index writes the index of the same.
func (w *Writing) Index(to io.Writer) error { return w.files.index(to) }

// Round takes what the host sends.
func (w *Writing) Round(ctx context.Context, r io.Reader) error {
	now, added, err := w.store.take(ctx, r, w.files)
	w.added += added
	if err == nil {
		w.files = now
	}
	return err
}

// Ended ends a round. begun is when it began by the host's clock: of several that of the first
// counts, as what changed since is sent again.
func (w *Writing) Ended(begun int64) {
	if w.first {
		w.begun, w.first = begun, false
	}
}

// Finish completes the backup, and returns its name.
func (w *Writing) Finish(h Head) (name string, err error) {
	h.Format, h.Begun, h.Added, h.Files, h.Size = format, w.begun, w.added, len(w.files.list), 0
	for _, f := range w.files.list {
		h.Size += f.size
	}
	var b bytes.Buffer
	if err := writeList(w.files.list, &b); err != nil {
		return "", err
	}
	h.Bytes = int64(b.Len())
	sum := sha256.Sum256(b.Bytes())
	h.SHA256 = hex.EncodeToString(sum[:])
	h.Added += h.Bytes
	text, err := json.Marshal(h)
	if err == nil && len(text) > maxHead {
		err = fmt.Errorf("its settings take %d KiB", len(text)>>10)
	}
	if err != nil {
		return "", err
	}
	frame := binary.LittleEndian.AppendUint32(nil, skippable)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(text)+tail))
	sum = sha256.Sum256(text)
	frame = append(append(frame, text...), sum[:]...)
	b.Write(binary.LittleEndian.AppendUint32(frame, uint32(len(text))))

	name = path.Join(w.dir, h.Taken.UTC().Format(timeFormat)+suffix)
	s := w.store
	if _, err := s.place.Stat(name); err == nil {
		return "", fmt.Errorf("%s is there already", path.Join(s.place.String(), name))
	}
	if err := s.makeDir(w.dir); err != nil {
		return "", err
	}
	if err := s.place.Sync(); err != nil { // no backup without its objects
		return "", err
	}
	if err := s.lock.held(); err != nil {
		return "", err
	}
	err = write(s.place, func(to io.Writer) (string, error) {
		_, err := to.Write(b.Bytes())
		return name, err
	})
	return name, errors.Join(err, s.place.Sync())
}

const timeFormat = "20060102T150405Z"

// Backup is one that is read.
type Backup struct {
	Head
	Name  string // HOST/GUEST/TIME.backup
	store *Store
	files files
}

// Backup reads a backup by its name. The contents are read later.
func (s *Store) Backup(ctx context.Context, name string) (*Backup, error) {
	b, err := readAll(s.place, name, maxList)
	if err != nil {
		return nil, err
	}
	one := &Backup{Name: name, store: s}
	if one.Head, err = readHead(bytes.NewReader(b), int64(len(b))); err == nil {
		list := b[:one.Bytes]
		if sum := sha256.Sum256(list); hex.EncodeToString(sum[:]) != one.SHA256 {
			err = errDamaged
		} else {
			one.files, err = parse(ctx, bytes.NewReader(list))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path.Join(s.place.String(), name), err)
	}
	return one, nil
}

var errNoBackup = errors.New("this is not a complete backup (vsfleet guest backup writes one)")

func readHead(f io.ReaderAt, end int64) (h Head, err error) {
	at := func(n int64) ([]byte, error) {
		if n < 0 || end < n {
			return nil, errNoBackup
		}
		b := make([]byte, n)
		_, err := f.ReadAt(b, end-n)
		if err == io.EOF {
			err = nil
		}
		return b, err
	}
	b, err := at(4)
	if err != nil {
		return h, err
	}
	size := int64(binary.LittleEndian.Uint32(b))
	if size > maxHead {
		return h, errNoBackup
	}
	frame, err := at(8 + size + tail)
	if err != nil {
		return h, err
	}
	text, sum := frame[8:8+size], frame[8+size:8+size+sha256.Size]
	if binary.LittleEndian.Uint32(frame) != skippable || int64(binary.LittleEndian.Uint32(frame[4:])) != size+tail || sha256.Sum256(text) != [sha256.Size]byte(sum) {
		return h, errNoBackup
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("its head: %w", err)
	}
	if h.Format != format {
		return h, fmt.Errorf("format %d is of another vsfleet", h.Format)
	}
	if h.Bytes != end-int64(len(frame)) {
		return h, errNoBackup
	}
	return h, nil
}

// Find returns the name of the backup that a path of the directory means: a backup, or a guest's
// directory, which means its last one.
func (s *Store) Find(name string) (string, error) {
	if strings.HasSuffix(name, suffix) {
		return name, nil
	}
	names, err := s.names(name)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s has no backup %s: see vsfleet guest backup list %s", s.place, name, s.place)
	}
	if err != nil {
		return "", err
	}
	return names[len(names)-1], nil
}

// names returns the names of the backups in a guest's directory, the oldest first.
func (s *Store) names(dir string) (names []string, err error) {
	list, err := s.place.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, info := range list {
		if strings.HasSuffix(info.Name(), suffix) {
			names = append(names, path.Join(dir, info.Name()))
		}
	}
	slices.Sort(names)
	return names, err
}

// Data writes the files, as vsnode receives them, to w.
func (b *Backup) Data(ctx context.Context, w io.Writer) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(4<<20), zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	if err := b.Tar(ctx, z); err != nil {
		return err // closing would end the frame as if all had been sent
	}
	return z.Close()
}

// Tar writes the files as a tar archive.
func (b *Backup) Tar(ctx context.Context, w io.Writer) error {
	return b.store.writeTo(ctx, b.files.list, w)
}

// File writes the content of one file of the guest to w. Links are not followed.
func (b *Backup) File(ctx context.Context, name string, w io.Writer) error {
	f := b.files.at[below+path.Clean("/" + name)[1:]]
	if f != nil && f.Typeflag == tar.TypeLink {
		f = b.files.at[f.Linkname]
	}
	switch {
	case f == nil:
		return fmt.Errorf("%s is not among the guest's own files: either its image has it (%s), or nothing", name, b.Image)
	case f.Typeflag == tar.TypeSymlink:
		return fmt.Errorf("%s is a link to %q", name, f.Linkname)
	case f.Typeflag == tar.TypeChar:
		return fmt.Errorf("the guest had removed %s", name)
	case f.Typeflag != tar.TypeReg:
		return fmt.Errorf("%s is not a regular file", name)
	case f.attributesOnly():
		return fmt.Errorf("of %s the guest had changed only the owner, mode or times: its content is the image's, %s", name, b.Image)
	case f.object == "":
		return nil
	}
	return b.store.content(ctx, f.object, f.size, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// attributesOnly reports whether the content of a file is the image's.
func (f *file) attributesOnly() bool {
	_, only := f.PAXRecords["SCHILY.xattr.trusted.overlay.metacopy"]
	return only
}
