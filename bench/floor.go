package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vsfleet/vsfleet/node/guest"
)

// floorContext is the context of the floor's guest: one that bench's guests, which get
// the first free ones, do not reach.
const floorContext = 32000

// A floor is the C program in bench/floor: a start by the system calls alone, asked
// over a pipe as a vsnode serve is.
type floor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startFloor runs the C program, which takes the network context of a running guest as
// its pattern.
func (b *bench) startFloor(ctx context.Context, program ...string) (_ *floor, stop func() error, err error) {
	const sample = "floor-sample"
	if err := b.guest(ctx, sample, "/bin/sleep", "1000000"); err != nil {
		return nil, nil, err
	}
	stop = func() error { // rows of one run have one each
		return b.host.Guests.Delete(context.WithoutCancel(ctx), sample)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	if err := b.host.Guests.Start(ctx, sample, guest.Options{}); err != nil {
		return nil, nil, err
	}
	const dir = "/var/lib/floor"
	for _, d := range []string{dir + "/root", dir + "/work"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, nil, err
		}
	}
	cmd := exec.CommandContext(ctx, b.floor, append([]string{
		string(b.cgroup(sample)), filepath.Join(b.cgroups, "floor"), b.tree, dir, strconv.Itoa(floorContext),
	}, program...)...)
	cmd.Stderr = os.Stderr
	f := &floor{cmd: cmd}
	if f.in, err = cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	f.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("%w; scripts/bench makes it", err)
	}
	guestStop := stop
	stop = func() error { return errors.Join(f.in.Close(), cmd.Wait(), guestStop()) }
	return f, stop, nil
}

func (f *floor) once(context.Context) (time.Duration, error) {
	return timed(func() error { return f.ask("") })
}

// hold starts a guest that stays until stop is called.
func (f *floor) hold() error { return f.ask("hold") }

func (f *floor) ask(line string) error {
	if _, err := f.in.Write([]byte(line + "\n")); err != nil {
		return err
	}
	_, err := f.out.ReadString('\n')
	return err
}
