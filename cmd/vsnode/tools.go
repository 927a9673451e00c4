package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/guest"
)

// tool runs a program of Linux-VServer's by its name; known is false if there is none of
// that name.
func tool(ctx context.Context, name string, args []string) (known bool, err error) {
	w, known := wordOf(tools, name)
	switch {
	case !known:
		return false, nil
	case w.instead != "":
		return true, wrongOption(name, "not there: %s", refusal(tools, name))
	case len(args) > 0 && (args[0] == "--help" || args[0] == "-h") && !strings.HasSuffix(name, "-vservers"):
		fmt.Print(w.help())
		return true, nil
	}
	switch name {
	case "vserver-stat":
		err = vserverStat(ctx, args)
	case "vserver-info":
		err = vserverInfo(ctx, args)
	case "start-vservers", "stop-vservers":
		err = startVservers(ctx, name, args)
	case "vps":
		err = vps(ctx, args)
	case "vtop", "vpstree":
		err = replaceBy(strings.TrimPrefix(name, "v"), args)
	case "vkill":
		err = vkill(args)
	case "vuname":
		err = vuname(args)
	case "vlimit":
		err = vlimit(ctx, args)
	case "vapt-get", "vrpm", "vyum":
		err = inGuests(ctx, name, strings.TrimPrefix(name, "v"), args)
	default:
		err = fmt.Errorf("%s: no such program", name) // the cases above have all of them
	}
	return true, err
}

// replaceBy replaces this program by one of the host's, which sees the processes of
// guests as well.
func replaceBy(program string, args []string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("%s is not on this host: %w (install it)", program, err)
	}
	return unix.Exec(path, append([]string{program}, args...), os.Environ())
}

// contextWidth and columnWidth are those of vps's column.
const (
	contextWidth = 5
	columnWidth  = 20
)

// vps runs ps and inserts a column with the guest of each process.
func vps(ctx context.Context, args []string) error {
	const ownError = exitError(254)
	h, err := open()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "ps", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintf(os.Stderr, "vps: %v\n", err)
		return ownError
	}
	of, perr := h.Guests.Processes(ctx)
	if perr != nil {
		fmt.Fprintf(os.Stderr, "vps: %s\n", printable.Lines(perr.Error()))
		return ownError
	}
	if len(out) > 0 && !writeContexts(os.Stdout, string(out), of) {
		fmt.Fprintln(os.Stderr, "vps: ps does not print the PID column with these options")
		return ownError
	}
	if exit != nil {
		return exitError(exit.ExitCode())
	}
	return nil
}

// writeContexts inserts a column after that of the process number, and reports whether
// there is one.
func writeContexts(w io.Writer, table string, of map[int]guest.Life) bool {
	header, rows, _ := strings.Cut(table, "\n")
	at := strings.Index(header, "PID")
	if at < 0 {
		return false
	}
	end := at + len("PID")
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %-*s%s\n", header[:end], columnWidth, "CONTEXT", cutBlank(header[end:]))
	for line := range strings.Lines(rows) {
		line = strings.TrimSuffix(line, "\n")
		cut := min(end, len(line))
		for cut < len(line) && line[cut] != ' ' { // a number that is wider than the column
			cut++
		}
		pid, _ := strconv.Atoi(line[strings.LastIndexByte(line[:cut], ' ')+1 : cut])
		name, xid := "MAIN", 0
		if l, ok := of[pid]; ok {
			name, xid = l.Name, l.Context
		}
		column := fmt.Sprintf("%*d %s", contextWidth, xid, name)
		fmt.Fprintf(&b, "%s %-*s%s\n", line[:cut], columnWidth, column, cutBlank(line[cut:]))
	}
	_, _ = b.WriteTo(w) // nobody reads it any more
	return true
}

// cutBlank takes away the blank after a column, where another is inserted; one stays.
func cutBlank(s string) string {
	if strings.HasPrefix(s, "  ") {
		return s[1:]
	}
	return s
}

// guestBy returns the guest of a context, a name, or a name after a colon.
func guestBy(h *node.Host, ref string) (string, error) {
	ref = strings.TrimPrefix(ref, ":")
	if xid, err := strconv.Atoi(ref); err == nil {
		return h.Guests.FindName(ref, xid)
	}
	return ref, nil
}

// vkill sends a signal to processes of a guest.
func vkill(args []string) error {
	ref, sig := "", unix.SIGTERM
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		option, value, given := strings.Cut(args[0], "=")
		args = args[1:]
		if option == "--" {
			break
		}
		switch option {
		case "-c", "--xid", "-s", "--signal":
			if !given {
				if len(args) == 0 {
					return wrongOption("vkill", "option %s needs an argument", option)
				}
				value, args = args[0], args[1:]
			}
		default:
			value = option[1:] // as kill(1) takes it
			if signalOf(value) < 0 {
				return unknownOption("vkill", tools, option)
			}
		}
		if option == "-c" || option == "--xid" {
			ref = value
		} else if sig = signalOf(value); sig < 0 {
			return wrongOption("vkill", "Invalid signal specified: %q", value)
		}
	}
	if ref == "" && len(args) == 0 {
		return wrongOption("vkill", "No pid specified")
	}
	pids := []int{guest.AllProcesses}
	if len(args) > 0 {
		pids = nil
	}
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err != nil || pid < -1 {
			return wrongOption("vkill", "'%s' is not a number; a guest's name goes behind -c", printable.Lines(arg))
		}
		pids = append(pids, pid)
	}
	h, err := open()
	if err != nil {
		return err
	}
	of := map[int]guest.Life{}
	if ref == "" {
		if of, err = h.Guests.Processes(context.Background()); err != nil {
			return err
		}
	} else if ref, err = guestBy(h, ref); err != nil {
		return err
	}
	var errs error
	for _, pid := range pids {
		name := ref
		if name == "" {
			if name = of[pid].Name; name == "" {
				errs = errors.Join(errs, fmt.Errorf("vkill: process %d is not a guest's: use kill(1) for processes of the host", pid))
				continue
			}
		}
		if err := h.Guests.Signal(name, pid, sig); errors.Is(err, guest.ErrNoGuest) {
			errs = errors.Join(errs, fmt.Errorf("vkill: %w: %s", guest.ErrNoGuest, name))
		} else if err != nil {
			errs = errors.Join(errs, fmt.Errorf("vkill: %w", err))
		}
	}
	if errs != nil {
		fmt.Fprintln(os.Stderr, printable.Lines(errs.Error()))
		return exitError(1)
	}
	return nil
}

// signalOf reads a number or a name, with SIG or without; -1: it is neither.
func signalOf(s string) unix.Signal {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n)
	}
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); sig != 0 {
		return sig
	}
	return -1
}

// utsTags are in vuname's order.
var utsTags = []string{"context", "sysname", "nodename", "release", "version", "machine", "domainname"}

// vuname shows and sets what uname(2) tells a guest.
func vuname(args []string) error {
	ref, set := "", false
	var tags []string
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		option, value, given := strings.Cut(args[0], "=")
		args = args[1:]
		switch option {
		case "-s", "--set":
			set = true
			continue
		case "-g", "--get":
			continue
		case "--dir", "--missingok":
			return wrongOption("vuname", "option %s: uts/ of the configuration is read by each start", option)
		case "--xid", "-c", "-t":
		default:
			return unknownOption("vuname", tools, option)
		}
		if !given {
			if len(args) == 0 {
				return wrongOption("vuname", "option %s needs an argument", option)
			}
			value, args = args[0], args[1:]
		}
		if option == "-t" {
			tags = append(tags, value)
		} else {
			ref = value
		}
	}
	if ref == "" {
		return wrongOption("vuname", "no context: give --xid CONTEXT or NAME")
	}
	h, err := open()
	if err != nil {
		return err
	}
	if ref, err = guestBy(h, ref); err != nil {
		return err
	}
	tags = append(tags, args...)
	if set {
		return setUTS(h, ref, tags)
	}
	text, err := utsText(h, ref, tags)
	if err == nil {
		fmt.Println(text)
	}
	return err
}

// utsText returns the entries of those names, or all.
func utsText(h *node.Host, name string, tags []string) (string, error) {
	u, err := h.Guests.UTS(name)
	if err != nil {
		return "", err
	}
	if len(tags) == 0 {
		tags = utsTags
	}
	text := func(b [65]byte) string { return printable.Line(unix.ByteSliceToString(b[:])) }
	var out []string
	for _, tag := range tags {
		values := map[string]string{
			"context": h.Guests.Dir(name), "sysname": text(u.Sysname), "nodename": text(u.Nodename), "release": text(u.Release),
			"version": text(u.Version), "machine": text(u.Machine), "domainname": text(u.Domainname),
		}
		value, ok := values[strings.ToLower(tag)]
		if !ok {
			return "", fmt.Errorf("vuname: tag %q is not known%s (%s)", tag, didYouMean(tag, utsTags), strings.Join(utsTags, ", "))
		}
		out = append(out, value)
	}
	return strings.Join(out, " "), nil
}

func setUTS(h *node.Host, name string, tags []string) error {
	hostname, domain := "", ""
	for _, t := range tags {
		tag, value, ok := strings.Cut(t, "=")
		switch {
		case !ok || value == "":
			return wrongOption("vuname", "-s: want -t TAG=VALUE, not %q", t)
		case len(value) > 64:
			return wrongOption("vuname", "%s: at most 64 characters", tag)
		case strings.EqualFold(tag, "nodename"):
			hostname = value
		case strings.EqualFold(tag, "domainname"):
			domain = value
		default:
			return wrongOption("vuname", "%s is the host's kernel's and cannot be set for a guest: nodename and domainname can", tag)
		}
	}
	return h.Guests.SetUTS(name, hostname, domain)
}
