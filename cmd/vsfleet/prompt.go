package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet/view"
)

var errNoTerminal = errors.New("there is no terminal to ask for it")

// secretWord asks on the terminal for something that is not shown while it is typed.
func (a *app) secretWord(ctx context.Context, prompt string) (word []byte, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	defer tty.Close()
	ask := func() error {
		word, err = typed(ctx, tty, prompt)
		return err
	}
	if a.shown == nil {
		err = ask()
		return word, err
	}
	err = a.shown.Around(ask)
	return word, err
}

// typed reads a line from a terminal without echo. If ctx ends first, the terminal is
// put back as it was.
func typed(ctx context.Context, tty *os.File, prompt string) ([]byte, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(tty, view.Clean(prompt), ": ")
	defer fmt.Fprintln(tty)
	type line struct {
		word []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		word, err := term.ReadPassword(fd)
		read <- line{word, err}
	}()
	select {
	case l := <-read:
		return l.word, l.err
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}

// passphrase asks for the passphrase of a key; nil if there is no terminal.
func (a *app) passphrase() func(context.Context, string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	tty.Close()
	return func(ctx context.Context, file string) ([]byte, error) {
		return a.secretWord(ctx, "passphrase of "+file)
	}
}
