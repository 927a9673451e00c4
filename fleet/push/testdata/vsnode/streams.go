package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// ExportImage writes the ID repeatedly, or fails.
func (host) ExportImage(ctx context.Context, req api.ExportImage, out io.Writer) error {
	for range 10_000 {
		if _, err := io.WriteString(out, req.ID); err != nil {
			return err
		}
	}
	if req.ID == "half" {
		return errors.New("export: input/output\x1b[2J error")
	}
	return nil
}

// ImportImage reads bytes that should be the ID. If reading fails, it writes the error to
// the file that the ID names.
func (host) ImportImage(ctx context.Context, req api.ImportImage, in io.Reader) error {
	b, err := io.ReadAll(in)
	if err != nil {
		return errors.Join(err, os.WriteFile(req.ID, []byte(err.Error()), 0o600))
	}
	if string(b) != req.ID {
		return errors.New("it is another image")
	}
	return nil
}

// MakeImage sends the architecture of the spec's name as an event, and reads to the end.
func (host) MakeImage(ctx context.Context, req api.MakeImage, in io.Reader, errs io.Writer) (api.StepResult, error) {
	if _, err := io.WriteString(errs, req.Spec.Name); err != nil {
		return api.StepResult{}, err
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return api.StepResult{}, err
	}
	return api.StepResult{Outcome: api.Changed, Image: &api.Image{ID: string(b), Spec: req.Spec, Source: req.Source}}, nil
}

func (host) Log(ctx context.Context, req api.Log, out, errs io.Writer) (api.Exit, error) {
	_, err := io.WriteString(out, strings.Repeat(req.Guest+"\n", req.Lines))
	if req.Follow {
		<-ctx.Done()
	}
	return api.Exit{}, err
}

// Exec runs a program of the host's; "echo" prints each argument with its end marked.
func (host) Exec(ctx context.Context, req api.Exec, in io.Reader, out, errs io.Writer, sizes <-chan api.Size) (api.Exit, error) {
	var argv []string
	for _, word := range req.Argv {
		argv = append(argv, string(word))
	}
	switch argv[0] {
	case "echo":
		_, err := io.WriteString(out, strings.Join(argv[1:], "|"))
		return api.Exit{}, err
	case "lie":
		return api.Exit{Status: -1}, nil
	case "die":
		os.Exit(3)
	}
	c := exec.Command(argv[0], argv[1:]...)
	stop := context.AfterFunc(ctx, func() { c.Process.Signal(unix.SIGHUP) })
	defer stop()
	if t := req.Terminal; t != nil {
		return onTerminal(c, *t, in, out, sizes)
	}
	c.Stdout, c.Stderr = out, errs
	stdin, err := c.StdinPipe()
	if err != nil {
		return api.Exit{}, err
	}
	if err := c.Start(); err != nil {
		return api.Exit{Status: 127, NotRun: err.Error() + "\x1b[2J"}, nil
	}
	go func() {
		if _, err := io.Copy(stdin, in); err == nil {
			stdin.Close()
		}
	}()
	return exit(c)
}

func onTerminal(c *exec.Cmd, t api.Terminal, in io.Reader, out io.Writer, sizes <-chan api.Size) (api.Exit, error) {
	c.Env = append(os.Environ(), "TERM="+t.Type)
	ours, err := pty.StartWithSize(c, &pty.Winsize{Rows: t.Size.Rows, Cols: t.Size.Columns})
	if err != nil {
		return api.Exit{}, err
	}
	go io.Copy(ours, in)
	go func() {
		for size := range sizes {
			pty.Setsize(ours, &pty.Winsize{Rows: size.Rows, Cols: size.Columns})
		}
	}()
	shown := make(chan struct{})
	go func() {
		io.Copy(out, ours)
		close(shown)
	}()
	e, err := exit(c)
	select {
	case <-shown:
	case <-time.After(time.Second):
	}
	return e, err
}

func exit(c *exec.Cmd) (api.Exit, error) {
	var status *exec.ExitError
	err := c.Wait()
	if errors.As(err, &status) {
		return api.Exit{Status: max(status.ExitCode(), 0)}, nil
	}
	return api.Exit{}, err
}
