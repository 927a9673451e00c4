package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// Sink receives the output of a command in one place.
type Sink struct {
	Out, Errs io.Writer
	Close     func() error
}

// Into returns a Runner that also writes the output of each command to a sink of its
// place.
func (run Runner) Into(open func(Command) (Sink, error)) Runner {
	return func(ctx context.Context, c Command, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
		sink, err := open(c)
		if err != nil {
			return 0, &localError{err}
		}
		exit, err = run(ctx, c, stdin, io.MultiWriter(stdout, sink.Out), io.MultiWriter(stderr, sink.Errs))
		if closing := sink.Close(); closing != nil {
			err = errors.Join(err, &localError{closing})
		}
		return exit, err
	}
}

// localError is a failure of this machine, not of the host.
type localError struct{ error }

func (e *localError) Unwrap() error     { return e.error }
func (e *localError) ErrorKind() string { return string(outcome.KindLocal) }

// With returns a Runner that gives the same input to the command in each place.
func (run Runner) With(input *Input) Runner {
	return func(ctx context.Context, c Command, _ io.Reader, stdout, stderr io.Writer) (int, error) {
		return run(ctx, c, io.NewSectionReader(input.file, 0, input.size), stdout, stderr)
	}
}

// Input is an input that can be read several times. It is stored in an unnamed file.
type Input struct {
	file *os.File
	size int64
}

// ReadInput reads an input to its end.
func ReadInput(ctx context.Context, r io.Reader) (*Input, error) {
	file, err := os.CreateTemp("", "vsfleet-stdin-")
	if err != nil {
		return nil, fmt.Errorf("keep standard input for several places: %w", err)
	}
	in := &Input{file: file}
	if err = os.Remove(file.Name()); err == nil {
		in.size, err = copyUntil(ctx, file, r)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("keep standard input for several places: %w", err)
	}
	return in, nil
}

// Close deletes the input.
func (in *Input) Close() error { return in.file.Close() }

// copyUntil is like io.Copy, but returns when ctx ends: reading a terminal or a pipe
// may block forever.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	type result struct {
		n   int64
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := io.Copy(w, r)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Directory returns a function for [Runner.Into] that writes output to files in a
// directory: HOST or HOST/GUEST, and HOST.stderr if it is not empty.
func Directory(dir string) func(Command) (Sink, error) {
	return func(c Command) (Sink, error) {
		name := c.Place()
		if !filepath.IsLocal(name) || strings.Contains(c.Host.Name, "/") {
			return Sink{}, fmt.Errorf("--outdir: %q cannot be the name of a file", name)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return Sink{}, err
		}
		if err := os.Remove(path + stderrSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Sink{}, err
		}
		out, err := os.Create(path)
		if err != nil {
			return Sink{}, err
		}
		errs := &lateFile{path: path + stderrSuffix}
		return Sink{Out: out, Errs: errs, Close: func() error { return errors.Join(out.Close(), errs.close()) }}, nil
	}
}

const stderrSuffix = ".stderr"

// lateFile is a file that is created at the first write.
type lateFile struct {
	path string
	file *os.File
}

func (f *lateFile) Write(b []byte) (n int, err error) {
	if f.file == nil && len(b) > 0 {
		if f.file, err = os.Create(f.path); err != nil {
			return 0, err
		}
	}
	if f.file == nil {
		return 0, nil
	}
	return f.file.Write(b)
}

func (f *lateFile) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
