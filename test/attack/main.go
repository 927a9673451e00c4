// Command attack tries to get out of a guest. It runs inside one, as root. Flags
// name what there is outside; for each row of its list it reports whether the row
// was refused or reached something:
//
//	attack connect-host-127.0.0.1: refused (connection refused)
//	attack raw-socket: REACHED (socket made)
//
// It is static (CGO_ENABLED=0), so that it runs in any guest. Exit status: 0
// all refused, 1 something was reached, 2 wrong usage. A row whose flag is
// missing is "left out", which is no success: with -complete it is a failure. Run
// without a guest around it, the program does no harm.
package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// outside describes what there is outside the guest, by the flags.
type outside struct {
	mode                string         // "shared", "own" or "nat"
	own                 []netip.Addr   // the guest's
	other               netip.Addr     // another guest's address
	otherPort           int            // a port that another guest owns on the shared address
	host                netip.Addr     // the host's
	loop                int            // TCP port of a service on the host's 127.0.0.1, 127.9.9.9 and ::1
	metadata            int            // port of a service on the host that is where clouds serve metadata
	loopUDP             int            // UDP port of one that echoes, on the same
	wildcard            int            // TCP port of a service on the host's 0.0.0.0, and ::
	otherLoop           netip.AddrPort // of a service on another guest's localhost
	otherLoop6, private netip.AddrPort
	abstract            string // name of an abstract Unix socket of the host, without the first 0
	pid                 int    // of a process of the host, as the host numbers it
	file                string // on the host
	secret              string // what is in it
	locked              string // a directory that is mounted read-only
	groups              string // of mounts that propagate among themselves on the host, as " 1 2 "
}

// sharesNetwork reports whether the guest is in the host's network namespace.
func (o *outside) sharesNetwork() bool { return o.mode != "nat" }

// row is one attack. try returns how it was refused, or what it reached.
type row struct {
	name string
	// needs names the flag without which the row cannot be tried; empty: none.
	needs string
	try   func(o *outside) (reached bool, detail string)
}

func main() {
	args := os.Args[1:]
	switch {
	case len(args) == 1 && args[0] == "--nothing-inside":
		os.Exit(0)
	case len(args) == 1 && args[0] == "--raw-inside":
		os.Exit(rawInside())
	case len(args) == 2 && args[0] == "--type-inside":
		os.Exit(typeInside(args[1]))
	}
	os.Exit(run(args))
}

func run(args []string) int {
	var o outside
	var own, other, host string
	fs := flag.NewFlagSet("attack", flag.ContinueOnError)
	fs.StringVar(&o.mode, "mode", "", "network mode of the guest: shared, own or nat")
	fs.StringVar(&own, "own", "", "the guest's addresses, separated by commas")
	fs.StringVar(&other, "other", "", "address of another guest, or any that is not this one's")
	fs.IntVar(&o.otherPort, "other-port", 0, "port that another guest owns on the shared address")
	fs.StringVar(&host, "host", "", "address of the host (left out where it is the guest's too)")
	fs.IntVar(&o.loop, "loop", 0, "TCP port of a service on the host's 127.0.0.1, 127.9.9.9 and ::1")
	fs.IntVar(&o.loopUDP, "loop-udp", 0, "UDP port of a service there that echoes")
	fs.IntVar(&o.metadata, "metadata", 0, "TCP and UDP port of a service that the host has at the addresses of clouds' metadata services")
	fs.IntVar(&o.wildcard, "wildcard", 0, "TCP port of a service on all addresses of the host")
	service := func(to *netip.AddrPort, name, usage string) {
		fs.Func(name, "ADDRESS:PORT of a service on "+usage, func(text string) (err error) {
			*to, err = netip.ParseAddrPort(text)
			return err
		})
	}
	service(&o.otherLoop, "other-loop", "another guest's localhost, as the host sees it")
	service(&o.otherLoop6, "other-loop6", "another guest's ::1, as the host sees it")
	service(&o.private, "private", "the private address of a guest in mode nat, which is not forwarded")
	fs.StringVar(&o.abstract, "abstract", "", "name of an abstract Unix socket of the host")
	fs.IntVar(&o.pid, "pid", 0, "process of the host, of a number that no process of the guest has")
	fs.StringVar(&o.file, "file", "", "absolute path of a file of the host")
	fs.StringVar(&o.secret, "secret", "", "what is in that file")
	fs.StringVar(&o.locked, "locked", "", "directory of the host that is mounted read-only, nodev")
	fs.Func("host-groups", "peer groups of the host's mounts, separated by commas", func(text string) error {
		o.groups = " " + strings.ReplaceAll(text, ",", " ") + " "
		return nil
	})
	complete := fs.Bool("complete", false, "fail if a row is left out")
	list := fs.Bool("list", false, "name the rows")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "attack:", err)
		return 2
	}
	var err error
	for _, text := range strings.FieldsFunc(own, func(r rune) bool { return r == ',' }) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fail(err)
		}
		o.own = append(o.own, a)
	}
	for text, to := range map[string]*netip.Addr{other: &o.other, host: &o.host} {
		if text != "" {
			if *to, err = netip.ParseAddr(text); err != nil {
				return fail(err)
			}
		}
	}
	if o.mode != "shared" && o.mode != "own" && o.mode != "nat" {
		return fail(fmt.Errorf("mode %q: want shared, own or nat", o.mode))
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return o.report(given, *complete, *list)
}

func (o *outside) report(given map[string]bool, complete, list bool) int {
	code := 0
	for _, rows := range [][]row{networkRows(o), socketRows(o), processRows(o), fileRows(o), mountRows(o), kernelRows(o)} {
		for _, r := range rows {
			switch {
			case list:
				fmt.Println(r.name)
				continue
			case r.needs != "" && !given[r.needs]:
				fmt.Printf("attack %s: left out (needs --%s)\n", r.name, r.needs)
				if complete {
					code = 1
				}
				continue
			}
			reached, detail := r.attempt(o)
			word := "refused"
			if reached {
				word, code = "REACHED", 1
			}
			fmt.Printf("attack %s: %s (%s)\n", r.name, word, detail)
		}
	}
	return code
}

// attempt tries the row with all signals blocked: a connect that is interrupted, and
// that a socket with a timeout does not resume (signal(7)), would look like a
// refusal.
func (r row) attempt(o *outside) (reached bool, detail string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return true, "cannot block signals: " + err.Error()
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	return r.try(o)
}

// resultOf returns the result of an attack: refused if there is an error, otherwise
// reached, as done describes.
func resultOf(err error, done string) (bool, string) {
	if err != nil {
		return false, err.Error()
	}
	return true, done
}
