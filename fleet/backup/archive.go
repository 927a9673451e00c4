package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// Head describes an archive.
type Head struct {
	Format  int       `json:"format"` // 1
	Host    string    `json:"host"`
	Taken   time.Time `json:"taken"`
	How     string    `json:"how"`             // api.SendHow
	Running bool      `json:"running"`         // it ran before
	Image   string    `json:"image,omitempty"` // the ID of what its files lie on
	Guest   api.Guest `json:"guest"`           // its settings; no credentials
	// Address of the host, which the guest may share.
	Address netip.Prefix `json:"address,omitzero"`
	Bytes   int64        `json:"bytes"`  // of the files, as they are sent
	SHA256  string       `json:"sha256"` // of the same
}

const (
	suffix  = ".tar.zst"
	part    = ".part"
	maxHead = 1 << 20
	// skippable is the first magic number of a frame that readers skip (RFC 8878, 3.1.2).
	skippable = 0x184D2A50
	// tail is what follows the head in its frame: its digest and its length.
	tail = sha256.Size + 4
)

// Name returns the path of an archive below dir: HOST/GUEST/TIME.tar.zst.
func Name(dir, host, guest string, taken time.Time) string {
	return filepath.Join(dir, host, guest, taken.UTC().Format("20060102T150405Z")+suffix)
}

// Writer writes an archive.
type Writer struct {
	file *os.File
	path string
	hash hash.Hash
	size int64
}

// Create begins an archive, which must not exist. Finish or Abandon ends it.
func Create(path string) (*Writer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s is there already", path)
	}
	f, err := os.OpenFile(path+part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &Writer{file: f, path: path, hash: sha256.New()}, nil
}

// spaceStep is the interval at which free space is looked at, and minSpace is what is left
// free, or a twentieth of the filesystem: a host that sends without end must not fill it.
const (
	spaceStep = 16 << 20
	minSpace  = 256 << 20
)

// Write appends to the files of the archive.
func (w *Writer) Write(b []byte) (int, error) {
	if w.size == 0 || w.size/spaceStep != (w.size+int64(len(b)))/spaceStep {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(w.file.Fd()), &fs); err != nil {
			return 0, err
		}
		if left := fs.Bavail * uint64(fs.Bsize); left < min(minSpace, fs.Blocks*uint64(fs.Bsize)/20) {
			return 0, fmt.Errorf("only %d MiB are left in %s", left>>20, filepath.Dir(w.path))
		}
	}
	n, err := w.file.Write(b)
	w.hash.Write(b[:n])
	w.size += int64(n)
	return n, err
}

// Finish completes the archive.
func (w *Writer) Finish(h Head) error {
	h.Format, h.Bytes, h.SHA256 = 1, w.size, hex.EncodeToString(w.hash.Sum(nil))
	text, err := json.Marshal(h)
	if err == nil && len(text) > maxHead {
		err = fmt.Errorf("its settings take %d KiB", len(text)>>10)
	}
	if err == nil {
		frame := binary.LittleEndian.AppendUint32(nil, skippable)
		frame = binary.LittleEndian.AppendUint32(frame, uint32(len(text)+tail))
		sum := sha256.Sum256(text)
		frame = append(append(frame, text...), sum[:]...)
		_, err = w.file.Write(binary.LittleEndian.AppendUint32(frame, uint32(len(text))))
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err == nil {
		err = os.Rename(w.path+part, w.path)
	}
	if err != nil {
		w.Abandon()
		return err
	}
	return errors.Join(w.file.Close(), linux.SyncDir(filepath.Dir(w.path)))
}

// Abandon removes what was written.
func (w *Writer) Abandon() {
	w.file.Close()
	os.Remove(w.path + part)
}

// Archive is an archive that is read.
type Archive struct {
	Head
	file *os.File
}

// Open opens an archive and reads its head. The files are not read yet: see Verify.
func Open(path string) (*Archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	a := &Archive{file: f}
	if err := a.readHead(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// Close closes the archive.
func (a *Archive) Close() error { return a.file.Close() }

var errNoArchive = errors.New("this is no complete archive of vsfleet guest backup")

func (a *Archive) readHead() error {
	info, err := a.file.Stat()
	if err != nil {
		return err
	}
	end := info.Size()
	at := func(n, before int64) ([]byte, error) {
		if n < 0 || end-before < n {
			return nil, errNoArchive
		}
		b := make([]byte, n)
		_, err := a.file.ReadAt(b, end-before-n)
		return b, err
	}
	b, err := at(4, 0)
	if err != nil {
		return err
	}
	size := int64(binary.LittleEndian.Uint32(b))
	if size > maxHead {
		return errNoArchive
	}
	frame, err := at(8+size+tail, 0)
	if err != nil {
		return err
	}
	text, sum := frame[8:8+size], frame[8+size:8+size+sha256.Size]
	if binary.LittleEndian.Uint32(frame) != skippable || int64(binary.LittleEndian.Uint32(frame[4:])) != size+tail || sha256.Sum256(text) != [sha256.Size]byte(sum) {
		return errNoArchive
	}
	if err := json.Unmarshal(text, &a.Head); err != nil {
		return fmt.Errorf("its head: %w", err)
	}
	if a.Format != 1 {
		return fmt.Errorf("format %d is of a newer vsfleet", a.Format)
	}
	if a.Bytes != end-int64(len(frame)) {
		return errNoArchive
	}
	return nil
}

// Data returns a reader of the files, as vsnode has sent them and receives them.
func (a *Archive) Data() io.Reader { return io.NewSectionReader(a.file, 0, a.Bytes) }

// Verify reads the files and compares them with their digest.
func (a *Archive) Verify(ctx context.Context) error {
	h := sha256.New()
	if _, err := io.Copy(h, &canceled{ctx, a.Data()}); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != a.SHA256 {
		return fmt.Errorf("%s is damaged: its digest is %.12s…, and should be %.12s…", a.file.Name(), got, a.SHA256)
	}
	return nil
}

// File writes the content of one file of the guest to w. Links are not followed.
func (a *Archive) File(ctx context.Context, name string, w io.Writer) error {
	want := "root" + path.Clean("/"+name)
	for range 2 { // a second time for the file that a hard link is
		h, r, err := a.find(ctx, want)
		if err != nil {
			return err
		}
		switch {
		case h == nil:
			return fmt.Errorf("%s is not among the guest's own files: either its image has it (%s), or nothing", name, a.Image)
		case h.Typeflag == tar.TypeLink:
			want = h.Linkname
			r.Close()
			continue
		}
		defer r.Close()
		switch {
		case h.Typeflag == tar.TypeSymlink:
			return fmt.Errorf("%s is a link to %q", name, h.Linkname)
		case h.Typeflag == tar.TypeChar:
			return fmt.Errorf("the guest had removed %s", name)
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%s is no file", name)
		case hasKey(h.PAXRecords, "SCHILY.xattr.trusted.overlay.metacopy"):
			return fmt.Errorf("of %s the guest had changed only the owner, mode or times: its content is the image's, %s", name, a.Image)
		}
		_, err = io.Copy(w, r.tar)
		return err
	}
	return fmt.Errorf("%s is a hard link to a hard link: the archive was made by something else", name)
}

func hasKey(m map[string]string, key string) bool { _, ok := m[key]; return ok }

// found is a place in the files of an archive.
type found struct {
	*zstd.Decoder
	tar *tar.Reader
}

// find returns the header of a name, nil if there is none.
func (a *Archive) find(ctx context.Context, name string) (*tar.Header, found, error) {
	z, err := zstd.NewReader(&canceled{ctx, a.Data()}, zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, found{}, err
	}
	f := found{z, tar.NewReader(z)}
	for {
		h, err := f.tar.Next()
		if err == nil && strings.TrimSuffix(h.Name, "/") != name {
			continue
		}
		if err != nil {
			z.Close()
			if err == io.EOF {
				err = nil
			}
			return nil, found{}, err
		}
		return h, f, nil
	}
}

// canceled is a reader that ends with its context.
type canceled struct {
	ctx context.Context
	r   io.Reader
}

func (c *canceled) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}
