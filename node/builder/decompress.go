package builder

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxDictionary bounds the memory that an archive may require: as much as
// zstd --long=27 and more than xz -9.
const maxDictionary = 128 << 20

// unsupported are kinds of archives that are recognized only to name them in the error.
var unsupported = []struct{ magic, name string }{
	{"\x1f\x9d", "packed by compress (.Z)"},
	{"\x04\x22\x4d\x18", "packed by lz4"},
	{"LZIP", "packed by lzip"},
	{"\x89LZO", "packed by lzop"},
	{"PK\x03\x04", "a zip archive"},
	{"7z\xbc\xaf", "a 7z archive"},
	{"070701", "a cpio archive"},
	{"070707", "a cpio archive"},
	{"hsqs", "a squashfs image"},
	{"!<arch>", "a Debian package or library (ar)"},
	{"QFI\xfb", "a disk image (qcow2)"},
}

// decompress returns a reader of the tar archive in r. It recognizes the compression
// by the first bytes, as file(1) does.
func decompress(f io.Reader) (r io.Reader, done func(), err error) {
	b := bufio.NewReaderSize(f, 1<<18)
	magic, err := b.Peek(512)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	done, err = func() {}, nil // an archive may be shorter than a header
	starts := func(prefix string) bool { return bytes.HasPrefix(magic, []byte(prefix)) }
	switch {
	case isTar(magic):
		r = b
	case starts("\x1f\x8b"):
		r, err = newMembers(b)
	case starts("BZh"):
		r = bzip2.NewReader(b)
	case starts("\xfd7zXZ\x00"):
		if err = xzDictionary(magic); err == nil {
			r, err = xz.NewReader(b)
		}
	case starts("\x5d\x00\x00"): // xz --format=lzma: its settings, and a dictionary of whole 64 KiB
		if size := littleEndian(magic, 1, 4); size > maxDictionary {
			return nil, nil, errDictionary
		}
		r, err = lzma.NewReader(b)
	case starts("\x28\xb5\x2f\xfd"):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxDictionary)); err == nil {
			r, done = d, d.Close
		}
	default:
		err = errors.New("want a tar archive, alone or packed by gzip, bzip2, xz, lzma or zstd")
		for _, kind := range unsupported {
			if starts(kind.magic) {
				err = fmt.Errorf("it is %s: %w", kind.name, err)
			}
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return r, done, nil
}

var errDictionary = fmt.Errorf("to unpack it takes more than %d MiB of memory: pack it again with xz -9 or less", maxDictionary>>20)

// isTar verifies the checksum of a header, which old archives and volume labels have
// as well; they lack "ustar".
func isTar(header []byte) bool {
	if len(header) < 512 {
		return false
	}
	want, err := strconv.ParseInt(strings.Trim(string(header[148:156]), " \x00"), 8, 64)
	if err != nil {
		return false
	}
	sum := int64(0)
	for i, b := range header[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int64(b)
	}
	return sum == want
}

func littleEndian(b []byte, from, n int) (v uint64) {
	for i := range n {
		if from+i < len(b) {
			v |= uint64(b[from+i]) << (8 * i)
		}
	}
	return v
}

// xzDictionary checks the dictionary size that the first block of an .xz file
// requires (The .xz File Format, 3.1 and 5.3.1): the library would allocate any size.
func xzDictionary(b []byte) error {
	const header = 12 // of the stream
	if len(b) < header+2 {
		return io.ErrUnexpectedEOF
	}
	flags, at := b[header+1], header+2
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // sizes of the block
		for present && at < len(b) {
			at++
			present = b[at-1]&0x80 != 0
		}
	}
	if at+2 < len(b) && b[at] == 0x21 && b[at+1] == 1 && b[at+2] > 30 { // LZMA2; 30 is 128 MiB
		return errDictionary
	}
	return nil
}

// gzipMembers reads what gzip unpacks: one member after the other, but not what follows
// the last one, such as the zeros that fill up a tape or a disk.
type gzipMembers struct {
	from *bufio.Reader
	gz   *gzip.Reader
	over bool
}

func newMembers(b *bufio.Reader) (*gzipMembers, error) {
	gz, err := gzip.NewReader(b)
	if err != nil {
		return nil, err
	}
	gz.Multistream(false)
	return &gzipMembers{from: b, gz: gz}, nil
}

func (m *gzipMembers) Read(p []byte) (int, error) {
	for !m.over {
		n, err := m.gz.Read(p)
		if n > 0 || err != io.EOF {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
		next, err := m.from.Peek(2)
		if err != nil && err != io.EOF {
			return 0, err
		}
		if m.over = len(next) < 2 || next[0] != 0x1f || next[1] != 0x8b; m.over {
			break
		}
		if err := m.gz.Reset(m.from); err != nil {
			return 0, err
		}
		m.gz.Multistream(false)
	}
	return 0, io.EOF
}
