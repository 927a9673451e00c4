package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/node/api"
)

// Keys of PAX records of a list: the object of a file, and the size of that.
const (
	objectRecord = "VSFLEET.object"
	sizeRecord   = "VSFLEET.size"
	ownRecords   = "VSFLEET."
)

// below is before the names of all files that are sent.
const below = "root/"

// A file is one name of a guest's own files. Of what has a content the header's size is 0.
type file struct {
	*tar.Header
	object string // "": nothing is in it
	size   int64
}

// files are in the order in which they were sent.
type files struct {
	list []*file
	at   map[string]*file
}

// maxFiles bounds the memory that a host can have taken.
const maxFiles = 4 << 20

func (f *files) add(one *file) error {
	if !strings.HasPrefix(one.Name, below) {
		return fmt.Errorf("%q is not a name of the guest's", one.Name)
	}
	if len(f.list) == maxFiles || len(one.PAXRecords) > 1000 {
		return fmt.Errorf("more than %d files, or too many attributes", maxFiles)
	}
	if f.at == nil {
		f.at = map[string]*file{}
	}
	if f.at[one.Name] != nil {
		return fmt.Errorf("%q is there twice", one.Name)
	}
	f.list, f.at[one.Name] = append(f.list, one), one
	return nil
}

// index writes what a host is told of the files that are known.
func (f *files) index(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, one := range f.list {
		if id := one.PAXRecords[api.IDRecord]; id != "" {
			fmt.Fprintf(b, "%q %s\n", strings.TrimPrefix(one.Name, below), id)
		}
	}
	_, _ = b.WriteString(api.IndexEnd) // Flush has the error
	return b.Flush()
}

// read calls visit for what a host sends.
func read(ctx context.Context, r io.Reader, visit func(h *tar.Header, content io.Reader) error) error {
	in := bufio.NewReaderSize(&canceled{ctx, r}, 1<<16)
	if _, err := in.Peek(1); err != nil {
		return fmt.Errorf("read the files: %w", err)
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	tr := tar.NewReader(z)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = visit(h, tr)
		}
		if err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, io.LimitReader(z, 1<<20)) // the frame's checksum
	return err
}

// kept reports whether a file is the one of the round before.
func kept(h *tar.Header) bool { return h.Typeflag == tar.TypeLink && h.Linkname == h.Name }

const (
	// small is what a content may have that is kept in memory.
	small = 1 << 20
	// writers is how many contents are written or read at a time.
	writers = 12
)

// take reads a round, and keeps its contents. have are the files of the round before.
func (s *Store) take(ctx context.Context, r io.Reader, have files) (now files, added int64, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	sizes := make(chan int64, 1)
	sizes <- 0
	count := func(n int64) { sizes <- <-sizes + n }
	err = read(gctx, r, func(h *tar.Header, content io.Reader) error {
		if kept(h) {
			one := have.at[h.Name]
			if one == nil {
				return fmt.Errorf("%q is said to be known already, and is not", h.Name)
			}
			return now.add(one)
		}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, ownRecords) && key != api.IDRecord {
				delete(h.PAXRecords, key)
			}
		}
		one := &file{Header: h}
		if h.Typeflag != tar.TypeReg {
			return now.add(one)
		}
		one.size, h.Size = h.Size, 0
		switch {
		case one.size == 0:
		case one.size > small:
			var n int64
			var err error
			if one.object, n, err = s.putStream(content); err != nil {
				return err
			}
			count(n)
		default:
			b := make([]byte, one.size)
			if _, err := io.ReadFull(content, b); err != nil {
				return err
			}
			g.Go(func() (err error) {
				var n int64
				one.object, n, err = s.put(b)
				count(n)
				return err
			})
		}
		return now.add(one)
	})
	werr := g.Wait()
	if werr != nil {
		err = werr // that of the reader is only its echo
	}
	return now, <-sizes, err
}

// ReadIndex reads a round and returns its index.
func ReadIndex(ctx context.Context, r io.Reader) ([]byte, error) {
	var all files
	err := read(ctx, r, func(h *tar.Header, _ io.Reader) error {
		if h.PAXRecords[api.IDRecord] == "" {
			return nil
		}
		return all.add(&file{Header: &tar.Header{Name: h.Name, PAXRecords: map[string]string{api.IDRecord: h.PAXRecords[api.IDRecord]}}})
	})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = all.index(&b)
	return b.Bytes(), err
}

// writeTo writes the files as a host receives them, a tar archive.
func (s *Store) writeTo(ctx context.Context, list []*file, w io.Writer) error {
	g, ctx := errgroup.WithContext(ctx)
	type ahead struct {
		*file
		content chan []byte // of a small one
	}
	queue := make(chan ahead, writers)
	g.Go(func() error { // reads ahead
		defer close(queue)
		for _, one := range list {
			next := ahead{file: one}
			if one.object != "" && one.size <= small {
				next.content = make(chan []byte, 1)
				g.Go(func() error {
					var b []byte
					err := s.content(ctx, one.object, one.size, func(r io.Reader) (err error) {
						b, err = io.ReadAll(r)
						return err
					})
					if err == nil {
						next.content <- b
					}
					return err
				})
			}
			select {
			case queue <- next:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	g.Go(func() error {
		tw := tar.NewWriter(w)
		for next := range queue {
			h := *next.Header
			h.Size, h.PAXRecords = next.size, map[string]string{}
			for key, value := range next.PAXRecords {
				if !strings.HasPrefix(key, ownRecords) {
					h.PAXRecords[key] = value
				}
			}
			if err := tw.WriteHeader(&h); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			var err error
			switch {
			case next.content != nil:
				select {
				case b := <-next.content:
					_, err = tw.Write(b)
				case <-ctx.Done():
					err = context.Cause(ctx)
				}
			case next.object != "":
				err = s.content(ctx, next.object, next.size, func(r io.Reader) error {
					_, err := io.Copy(tw, r)
					return err
				})
			}
			if err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return tw.Close()
	})
	return g.Wait()
}

// parse reads a list.
func parse(ctx context.Context, r io.Reader) (all files, err error) {
	err = read(ctx, r, func(h *tar.Header, _ io.Reader) error {
		one := &file{Header: h, object: h.PAXRecords[objectRecord]}
		if text := h.PAXRecords[sizeRecord]; text != "" {
			if one.size, err = strconv.ParseInt(text, 10, 64); err != nil || one.size < 0 {
				return errors.Join(err, fmt.Errorf("%s: size %q", h.Name, text))
			}
		}
		if h.Size != 0 || (one.object == "") != (one.size == 0) {
			return fmt.Errorf("%s: a list has no contents", h.Name)
		}
		return all.add(one)
	})
	return all, err
}

// writeList writes a list.
func writeList(list []*file, w io.Writer) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	tw := tar.NewWriter(z)
	for _, one := range list {
		h := *one.Header
		if one.object != "" {
			h.PAXRecords = map[string]string{objectRecord: one.object, sizeRecord: strconv.FormatInt(one.size, 10)}
			for key, value := range one.PAXRecords {
				if key != objectRecord && key != sizeRecord {
					h.PAXRecords[key] = value
				}
			}
		}
		if err := tw.WriteHeader(&h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return errors.Join(tw.Close(), z.Close())
}
