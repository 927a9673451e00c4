package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/internal/signals"
	"github.com/vsfleet/vsfleet/node/guest"
)

// exec runs a command in the guest, or a shell for the verb enter.
func (v verb) exec(ctx context.Context, command string, args []string) error {
	p, err := programOptions(command, args)
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	if err != nil {
		return v.wrong("%s: %v", command, err)
	}
	switch {
	case p.Tty == guest.AlwaysTerminal && !v.alone:
		return v.wrong("exec -t is for one guest: vserver %s exec -t", v.name)
	case command == "exec" && len(p.Argv) == 0:
		return v.wrong("exec wants a command")
	case command == "enter" && len(p.Argv) > 0:
		return v.wrong("enter takes no command: vserver %s exec %s", v.name, strings.Join(p.Argv, " "))
	}
	return v.run(ctx, p)
}

// programOptions reads the options of exec and enter, and the command behind them.
func programOptions(command string, args []string) (p guest.Program, err error) {
	var env list
	var terminal, pipes bool
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	for option, to := range map[string]*string{"u": &p.Account, "w": &p.Dir} {
		fs.Func(option, "", func(s string) error {
			if *to = s; s == "" { // an empty variable of a script must not mean root
				return errors.New("its argument is empty")
			}
			return nil
		})
	}
	fs.Var(&env, "e", "")
	fs.BoolVar(&terminal, "t", false, "")
	fs.BoolVar(&pipes, "T", false, "")
	if err := parse(fs, args, command); err != nil {
		return p, err
	}
	switch {
	case terminal && pipes:
		return p, errors.New("options -t and -T cannot be used together")
	case terminal:
		p.Tty = guest.AlwaysTerminal
	case pipes:
		p.Tty = guest.NoTerminal
	}
	p.Argv, p.Env = fs.Args(), env
	return p, p.Check()
}

func (v verb) suexec(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return v.wrong("suexec wants a user and a command")
	}
	if on, err := v.h.Guests.Running(v.name); err != nil || !on {
		return errors.Join(err, errors.New("'vserver ... suexec' is supported for running vservers only; aborting"))
	}
	user, err := v.h.Guests.User(v.name, args[0])
	if err != nil {
		return err
	}
	return v.run(ctx, guest.Program{User: user, Argv: args[1:]})
}

func (v verb) run(ctx context.Context, p guest.Program) error {
	return v.ended(v.runProgram(ctx, p))
}

// runProgram runs a program with the standard streams, or for one of several guests with
// pipes. Signals that people and programs send to vserver are passed on to it.
func (v verb) runProgram(ctx context.Context, p guest.Program) (int, error) {
	if !v.alone {
		return v.h.Guests.RunOver(ctx, v.name, p, guest.Streams{In: strings.NewReader(""), Out: v.out, Errs: v.errs})
	}
	received := make(chan os.Signal, 8)
	pass := func(sig unix.Signal) {
		select {
		case received <- sig:
		default:
		}
	}
	if err := signals.Notify(pass, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2); err != nil {
		return 0, err
	}
	p.Signals = received
	return v.h.Guests.Run(ctx, v.name, p)
}

// ended is the error for how a program ended.
func (v verb) ended(code int, err error) error {
	if errors.Is(err, guest.ErrNoGuest) {
		return err
	}
	if err != nil {
		fmt.Fprintf(v.errs, "vserver: %s\n", printable.Lines(err.Error()))
		return exitError(guest.NotRunStatus(err))
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}
