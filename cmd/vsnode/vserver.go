package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/nearest"
	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/guest"
)

// Exit statuses of util-vserver's vserver.
const (
	exitUsage   = exitError(2)
	exitStopped = exitError(3) // LSB: program is not running
	exitNoGuest = exitError(5) // LSB: program is not installed
)

// call is what the options of one vserver say.
type call struct {
	silent, verbose, defaultTTY, sync bool
	choose                            guest.Choice
	parallel                          int
}

// vserver does what Linux-VServer's program of that name does.
func vserver(ctx context.Context, args []string) error {
	workAlone()
	c, args, err := vserverOptions(args)
	if err != nil {
		return err
	}
	if args == nil {
		return nil // help or version
	}
	several := c.choose.Filters()
	if !several && len(args) > 0 && args[0] == "list" && (len(args) == 1 || strings.HasPrefix(args[1], "-")) { // of a guest of that name a verb follows
		h, err := open()
		if err != nil {
			return err
		}
		return listGuests(ctx, h, args[1:], nil)
	}
	if len(args) == 2 && slices.Contains(verbs(), args[0]) && (args[1] == "--help" || args[1] == "-h") { // no guest's: a verb follows its name
		_, err := io.WriteString(os.Stdout, verbHelp(args[0]))
		return err
	}
	if len(args) == 0 || !several && len(args) < 2 {
		fmt.Fprintln(os.Stderr, "vserver: want vserver NAME COMMAND; vserver --help lists the commands")
		return exitUsage
	}
	if several {
		args = append([]string{""}, args...)
	}
	name, command := args[0], args[1]
	if slices.Contains(verbs(), command) && wantsHelp(command, args[2:]) {
		_, err := io.WriteString(os.Stdout, verbHelp(command))
		return err
	}
	if err := knownVerb(name, command, several); err != nil {
		return err
	}
	h, err := open()
	if err != nil {
		return err
	}
	if several {
		return c.several(ctx, h, command, args[2:])
	}
	v := verb{h: h, call: c, out: os.Stdout, errs: os.Stderr, alone: true}
	if v.name, err = guestOf(h, name, command); err != nil {
		return err
	}
	if c.defaultTTY {
		if err := v.useDefaultTTY(); err != nil {
			return err
		}
	}
	err = v.do(ctx, command, args[2:])
	if errors.Is(err, flag.ErrHelp) {
		_, err = io.WriteString(os.Stdout, verbHelp(command))
	}
	if errors.Is(err, guest.ErrNoGuest) {
		return unknownGuest(h, v.name)
	}
	return err
}

// vserverOptions reads the options. The arguments are nil if a help was all that was
// asked for.
func vserverOptions(args []string) (c call, rest []string, err error) {
	c.parallel = parallelGuests
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		option, value, given := strings.Cut(args[0], "=")
		takesNumber := option == "-j"
		if option == "--mark" || option == "-m" || takesNumber {
			if !given {
				if len(args) < 2 {
					return c, nil, wrongOption("vserver", "option %s needs an argument", option)
				}
				value, args = args[1], args[1:]
			}
			if !takesNumber {
				c.choose.Marks = append(c.choose.Marks, marks(value)...)
			} else if c.parallel, err = strconv.Atoi(value); err != nil || c.parallel < 1 {
				return c, nil, wrongOption("vserver", "option -j: want a number of guests to work on at a time, not %q", value)
			}
			args = args[1:]
			continue
		}
		switch args[0] {
		case "--":
			return c, args[1:], nil
		case "--silent":
			c.silent = true
		case "-s", "--sync": // a stop always waits
			c.sync = true
		case "-v", "--verbose":
			c.verbose = true
		case "--defaulttty":
			c.defaultTTY = true
		case "--help", "-h":
			vserverHelp(os.Stdout)
			return c, nil, nil
		case "--version":
			fmt.Println("vserver (vsnode)", version)
			return c, nil, nil
		default:
			if !takeCondition(&c.choose, args[0]) {
				return c, nil, unknownOption("vserver", "", args[0])
			}
		}
		args = args[1:]
	}
	return c, append([]string{}, args...), nil
}

// verbs returns the verbs that are there.
func verbs() []string {
	return slices.DeleteFunc(namesOf(""), func(name string) bool { return strings.HasPrefix(name, "-") })
}

// knownVerb refuses verbs that are not there.
func knownVerb(name, command string, several bool) error {
	verbs := verbs()
	why := refusal("", command)
	switch {
	case why != "" && !strings.HasPrefix(command, "-"):
		fmt.Fprintf(os.Stderr, "vserver: %s: %s\n", command, why)
	case !slices.Contains(verbs, command):
		hint := didYouMean(command, verbs)
		if slices.Contains(verbs, name) {
			hint = fmt.Sprintf("; did you mean vserver %s %s?", command, name)
		}
		fmt.Fprintf(os.Stderr, "vserver: unknown command %q%s; vserver --help lists them\n", command, hint)
	case several && (command == "build" || command == "enter"):
		fmt.Fprintf(os.Stderr, "vserver: %s is for one guest: vserver NAME %s\n", command, command)
	default:
		return nil
	}
	return exitUsage
}

func wrongOption(program, format string, args ...any) error {
	fmt.Fprintf(os.Stderr, program+": "+format+"\n", args...)
	return exitError(1)
}

// unknownOption is the error for an option that is refused or not known. Of is the verb.
func unknownOption(program, of, option string) error {
	if why := refusal(of, option); why != "" {
		return wrongOption(program, "option %s: %s", option, why)
	}
	known := append(slices.DeleteFunc(namesOf(of), func(name string) bool { return !strings.HasPrefix(name, "--") }),
		"--sync", "--verbose", "--all", "--mark", "--running", "--stopped")
	return wrongOption(program, "unknown option %s%s", option, didYouMean(option, known))
}

// guestOf returns the guest that util-vserver takes an argument for: a path of a
// configuration, the context of a running guest, or a name.
func guestOf(h *node.Host, arg, command string) (string, error) {
	if strings.ContainsRune(arg, '/') {
		path, err := filepath.Abs(arg)
		if err == nil {
			path, err = filepath.EvalSymlinks(path)
		}
		dir, derr := filepath.EvalSymlinks(h.Guests.ConfigDir)
		if err != nil || derr != nil || filepath.Dir(path) != dir || command == "build" {
			fmt.Fprintf(os.Stderr, "vserver: %s: configurations lie below %s: move it there, or give the guest's name\n", arg, h.Guests.ConfigDir)
			return "", exitNoGuest
		}
		return filepath.Base(path), nil
	}
	if xid, err := strconv.Atoi(arg); err == nil && command != "build" {
		return h.Guests.FindName(arg, xid)
	}
	return arg, nil
}

// unknownGuest says so in the words that scripts look for.
func unknownGuest(h *node.Host, name string) error {
	names, _ := h.Guests.Names() // only for a hint
	near := ""
	if n := nearest.Word(name, names); n != "" {
		near = ": did you mean " + n + "?"
	}
	fmt.Fprintf(os.Stderr, `Can not find a vserver-setup at '%s/'.

Possible solutions:
* check the spelling of '%s'%s
* make the guest: 'vserver %s build --help' shows how
* 'vserver --help' has the syntax of this command
`, filepath.Join(h.Guests.ConfigDir, name), printable.Lines(name), near, printable.Lines(name))
	return exitNoGuest
}

// useDefaultTTY makes the terminal of the configuration this process's standard streams.
func (v *verb) useDefaultTTY() error {
	tty := v.h.Guests.DefaultTTY(v.name)
	f, err := os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("--defaulttty: %w (apps/init/tty names it)", err)
	}
	defer f.Close()
	for fd := range 3 {
		if err := unix.Dup2(int(f.Fd()), fd); err != nil {
			return fmt.Errorf("--defaulttty: make %s a standard stream: %w", tty, err)
		}
	}
	return nil
}

// say writes a message on standard error.
func (v verb) say(format string, args ...any) {
	if !v.silent {
		fmt.Fprintln(v.errs, printable.Lines(fmt.Sprintf(format, args...)))
	}
}

// report is say for what went as expected.
func (v verb) report(format string, args ...any) {
	if v.verbose {
		v.say(format, args...)
	}
}

func (v verb) warn(text string) { v.say("Warning: %s", text) }

// verb is one verb for one guest.
type verb struct {
	call
	h         *node.Host
	name      string
	out, errs io.Writer
	alone     bool // the standard streams are this guest's alone
}
