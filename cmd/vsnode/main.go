// Command vsnode builds and runs guests on the host that it is on. vsfleet
// pushes it there and drives it; on the host it is also vserver and the other
// programs of Linux-VServer's, by the name it is called with (vsnode install
// makes the links; words has all of them).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	_ "github.com/vsfleet/vsfleet/internal/oneprocessor"
	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/internal/signals"
	"github.com/vsfleet/vsfleet/node"
)

// version is set by the linker.
var version = "development"

// exitError ends the program with a status; its text, if any, has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is told with the way to the help.
type usageError string

func (e usageError) Error() string { return string(e) }

const usage = `vsnode runs Linux guests on this host.

  vsnode serve                    answer a controller on standard input and output
  vsnode check [--json]           is this host able, and what is in the way
  vsnode stat                     what the host and its guests use (vserver-stat)
  vsnode list [--json]            guests, running or stopped (vserver list)
  vsnode vserver NAME COMMAND     a guest: build, start, stop, enter … (see vsnode vserver --help)
  vsnode image list               reference installations on this host
  vsnode image export ID          write one to standard output
  vsnode image import [--id ID]   read one from standard input
  vsnode image remove ID
  vsnode image gc [-n] [--all]    remove those that nothing uses, but the newest of each name
  vsnode image check              read all of them, and show what is damaged; exit status 1
  vsnode volume list              directories that outlive guests: sizes, and who has them
  vsnode volume delete NAME       asks, without --yes
  vsnode install [--dir DIR]      put vsnode, and links named as Linux-VServer's tools, into /usr/local/sbin, and
                                  have guests with a mark start when the host boots
  vsnode uninstall [--dir DIR]    take back what install did
  vsnode version
`

func main() {
	unix.Umask(0o022) // what guests are made of is read by their users, whoever's shell this is
	ctx, err := interruptible(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err == nil {
		err = run(ctx, filepath.Base(os.Args[0]), os.Args[1:])
	}
	var exit exitError
	var use usageError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		os.Exit(int(exit))
	case errors.As(err, &use):
		fmt.Fprintf(os.Stderr, "vsnode: %s\n", use)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "%s: %s\n", calledAs(os.Args[0]), printable.Lines(err.Error()))
		os.Exit(1)
	}
}

// interruptible returns a context that ends when one of the signals comes.
func interruptible(ctx context.Context, by ...unix.Signal) (context.Context, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	err := signals.Notify(func(sig unix.Signal) { cancel(errors.New(sig.String() + " signal received")) }, by...)
	return ctx, err
}

// calledAs returns the name of the program that a path stands for: vsnode, or one of
// Linux-VServer's.
func calledAs(path string) string {
	name := filepath.Base(path)
	if _, known := wordOf(tools, name); known || name == "vserver" {
		return name
	}
	return "vsnode"
}

// run does what the name that vsnode was called by says.
func run(ctx context.Context, name string, args []string) error {
	switch {
	case name == "vserver":
		return vserver(ctx, args)
	case len(args) > 0 && args[0] == "vserver":
		return vserver(ctx, args[1:])
	}
	useAllProcessors()
	if known, err := tool(ctx, name, args); known {
		return err
	}
	if len(args) == 0 {
		io.WriteString(os.Stderr, usage)
		return exitError(2)
	}
	switch cmd, rest := args[0], args[1:]; cmd {
	case "serve", "stream":
		return answer(ctx, cmd, rest)
	case "check":
		return checkHost(ctx, rest)
	case "stat":
		return vserverStat(ctx, rest)
	case "list":
		return vserver(ctx, args)
	case "image":
		return image(ctx, rest)
	case "volume":
		return volume(ctx, rest)
	case "install":
		return install(ctx, rest)
	case "uninstall":
		return uninstall(ctx, rest)
	case "unit": // by a guest's unit of systemd (node/systemd); not for people
		return unit(ctx, args[1:])
	case "guard": // by a timer (node/guard.go); not for people
		h, err := open()
		if err != nil {
			return err
		}
		return h.Guard(ctx)
	case "version":
		fmt.Println("vsnode", version)
		return nil
	case "help", "--help", "-h":
		_, err := io.WriteString(os.Stdout, usage)
		return err
	default:
		if known, err := tool(ctx, cmd, rest); known {
			return err
		}
		commands := []string{"serve", "check", "stat", "list", "vserver", "image", "volume", "install", "uninstall", "version", "help"}
		return usageError(fmt.Sprintf("unknown command %q%s; vsnode help lists them", cmd, didYouMean(cmd, commands)))
	}
}

func open() (*node.Host, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can run guests (sudo vsnode …)")
	}
	return node.Open(version)
}
