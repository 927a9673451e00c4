package main

import (
	"context"
	"errors"

	"github.com/vsfleet/vsfleet/fleet/prompt"
)

// passwords holds the flags for passwords.
type passwords struct {
	ask, askBecome   bool
	file, becomeFile string
	read             bool // once for all hosts
}

// readPasswords reads the passwords that flags want, before any host is asked.
func (a *app) readPasswords(ctx context.Context) (err error) {
	p := &a.passwords
	switch {
	case p.read:
		return nil
	case p.ask && p.file != "":
		return &usageError{err: errors.New("--ask-pass and --password-file: it is one or the other")}
	case p.askBecome && p.becomeFile != "":
		return &usageError{err: errors.New("--ask-become-pass and --become-password-file: it is one or the other")}
	}
	p.read = true
	a.access.Ask, a.access.Say = prompt.Ask, a.notify
	if a.access.Password, err = a.password(ctx, p.file, p.ask, "SSH password: "); err != nil {
		return err
	}
	question := "Password for sudo or doas: "
	if a.access.Password != "" {
		question = "Password for sudo or doas (empty: the SSH password): "
	}
	a.access.BecomePassword, err = a.password(ctx, p.becomeFile, p.askBecome, question)
	if p.askBecome && a.access.BecomePassword == "" {
		a.access.BecomePassword = a.access.Password
	}
	return err
}

// password returns the password of a file or of an answer; "" if neither is wanted.
func (a *app) password(ctx context.Context, file string, ask bool, question string) (text string, err error) {
	switch {
	case file != "":
		text, err = prompt.File(file)
	case ask:
		text, err = prompt.Ask(ctx, question, false)
	}
	if err != nil && ctx.Err() == nil {
		err = usage("without a terminal: --password-file, --become-password-file, or SSH_ASKPASS")(err)
	}
	return text, err
}

// notify tells the person at the terminal what to do, above the progress line.
func (a *app) notify(text string) {
	if a.shown == nil {
		message(text)
		return
	}
	_ = a.shown.Around(func() error { // it has no error of its own
		message(text)
		return nil
	})
}
