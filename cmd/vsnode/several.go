package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vsfleet/vsfleet/internal/depends"
	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/guest"
)

// parallelGuests is the number of guests that are worked on at a time.
const parallelGuests = 8

// takeCondition reads an option that chooses guests, and reports whether it is one.
func takeCondition(c *guest.Choice, option string) bool {
	switch option {
	case "--all":
		c.All = true
	case "--running":
		c.Running = true
	case "--stopped":
		c.Stopped = true
	case "--marked":
		c.Marked = true
	case "--unmarked":
		c.Unmarked = true
	default:
		return false
	}
	return true
}

// marks reads a list of marks, separated by commas or blanks.
func marks(list string) []string { return strings.Fields(strings.ReplaceAll(list, ",", " ")) }

// several does a verb for all chosen guests: in the order in which they depend on each
// other where the verb starts or stops them, and in that of their names where it shows
// them.
func (c call) several(ctx context.Context, h *node.Host, command string, args []string) error {
	useAllProcessors()
	names, err := h.Guests.Choose(c.choose)
	if err != nil {
		return err
	}
	graph := depends.Graph{}
	switch command {
	case "start", "restart", "condrestart", "stop", "delete":
		if graph, err = h.Guests.Dependencies(); err != nil {
			return err
		}
	}
	switch command {
	case "start":
		names = graph.All(names)
	case "stop", "delete":
		graph = stops(graph, names)
	case "status", "limits", "running":
		c.parallel = 1
	}
	if command == "list" {
		return listGuests(ctx, h, args, func(name string) bool { return slices.Contains(names, name) })
	}
	if len(names) == 0 {
		fmt.Fprintf(os.Stderr, "%s: no guest is chosen\n", calledAs(os.Args[0]))
		return nil
	}
	if command == "hashify" {
		return hashify(ctx, h, names, args, os.Stdout)
	}
	if command == "delete" {
		args = c.takeYes(args)
	}
	if command == "delete" && !c.silent {
		if err := confirm("Are you sure you want to delete the vservers %s (y/N) ", strings.Join(names, ", ")); err != nil {
			return err
		}
	}
	var lines sync.Mutex
	width := 0
	for _, name := range names {
		width = max(width, len(name))
	}
	errs, err := graph.Walk(ctx, names, c.parallel, func(name string) error {
		out := &prefixed{mu: &lines, to: os.Stdout, prefix: fmt.Sprintf("%-*s ", width+1, name+":")}
		errs := &prefixed{mu: &lines, to: os.Stderr, prefix: out.prefix}
		defer out.end()
		defer errs.end()
		v := verb{h: h, call: c, name: name, out: out, errs: errs}
		return v.do(ctx, command, slices.Clone(args))
	})
	if err != nil {
		return err
	}
	return statusOf(names, errs)
}

// stops returns the order of stops. Guests that depend on each other in a circle stop in
// any: when the host goes down they must not go on running.
func stops(graph depends.Graph, names []string) depends.Graph {
	graph = graph.Reverse()
	_, err := graph.Order(names)
	if circle := (depends.CycleError)(nil); errors.As(err, &circle) {
		slices.Reverse(circle) // of stops
		fmt.Fprintf(os.Stderr, "%s: Warning: they stop in any order: %v\n", calledAs(os.Args[0]), circle)
		return depends.Graph{}
	}
	return graph
}

// statusOf says what failed, and makes the exit status.
func statusOf(names []string, errs map[string]error) error {
	failed := 0
	for _, name := range names {
		err := errs[name]
		if err == nil {
			continue
		}
		failed++
		if exit := exitError(0); !errors.As(err, &exit) {
			fmt.Fprintf(os.Stderr, "%s: %s\n", name, printable.Lines(err.Error()))
		}
	}
	switch failed {
	case 0:
		return nil
	case len(names):
		return exitError(1)
	}
	return exitError(2)
}

// prefixed writes whole lines, each after a guest's name.
type prefixed struct {
	mu     *sync.Mutex
	to     io.Writer
	prefix string
	part   []byte
}

// longLine is where a line is cut that does not end.
const longLine = 64 << 10

func (w *prefixed) Write(b []byte) (int, error) {
	w.part = append(w.part, b...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 {
			if len(w.part) > longLine {
				w.end()
			}
			return len(b), nil
		}
		w.line(w.part[:i])
		w.part = w.part[i+1:]
	}
}

func (w *prefixed) line(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintln(w.to, w.prefix+printable.Lines(strings.TrimSuffix(string(b), "\r")))
}

// end writes a last line that has no end.
func (w *prefixed) end() {
	if len(w.part) > 0 {
		w.line(w.part)
		w.part = nil
	}
}

// startVservers is util-vserver's start-vservers, and stop-vservers.
func startVservers(ctx context.Context, program string, args []string) error {
	c := call{parallel: parallelGuests}
	command, _, _ := strings.Cut(program, "-")
	var names []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			names, args = append(names, args...), nil
		case arg == "--help", arg == "-h":
			w, _ := wordOf(tools, "start-vservers")
			this, _ := wordOf(tools, program)
			fmt.Printf("%s %s\n\n%s.\nExit status: 0 all are as asked for, 1 none, 2 some.\n", program, w.args, strings.ToUpper(this.what[:1])+this.what[1:])
			return nil
		case arg == "--start", arg == "--stop":
			command = arg[2:]
		case arg == "-m", arg == "-j", arg == "-c", arg == "--mark":
			if len(args) == 0 {
				return wrongOption(program, "option %s needs an argument", arg)
			}
			value := args[0]
			args = args[1:]
			n, err := strconv.Atoi(value)
			switch {
			case arg == "-c":
				return wrongOption(program, "option -c: configurations lie below /etc/vservers")
			case arg == "-j" && (err != nil || n < 1):
				return wrongOption(program, "option -j: want a number of guests to work on at a time, not %q", value)
			case arg == "-j":
				c.parallel = n
			default:
				c.choose.Marks = append(c.choose.Marks, marks(value)...)
			}
		case strings.HasPrefix(arg, "-"):
			if !takeCondition(&c.choose, arg) {
				return unknownOption(program, tools, arg)
			}
		default:
			names = append(names, arg)
		}
	}
	h, err := open()
	if err != nil {
		return err
	}
	chosen := []string{}
	if c.choose.Filters() {
		if chosen, err = h.Guests.Choose(c.choose); err != nil {
			return err
		}
	}
	missing := false
	for _, name := range names {
		if _, err := h.Guests.Running(name); errors.Is(err, guest.ErrNoGuest) {
			fmt.Fprintf(os.Stderr, "%s: Vserver '%s' does not exist; skipping it...\n", program, printable.Lines(name))
			missing = true
			continue
		}
		chosen = append(chosen, name)
	}
	if missing && len(chosen) == 0 {
		return exitError(1)
	}
	c.choose = guest.Choice{Names: chosen}
	if err := c.several(ctx, h, command, nil); err != nil || !missing {
		return err
	}
	return exitError(2)
}

// inGuests runs a program in several guests, as vapt-get does: NAME… or conditions, then
// "--" and the program's arguments.
func inGuests(ctx context.Context, tool, program string, args []string) error {
	var choose guest.Choice
	for i, arg := range args {
		switch {
		case arg == "--":
			rest := args[i+1:]
			c := call{choose: choose, parallel: 1} // package managers ask, and fill the disk
			if len(choose.Names) == 0 && !choose.Filters() {
				return wrongOption(tool, "no guest is named: %s NAME… -- ARGUMENTS", tool)
			}
			h, err := open()
			if err != nil {
				return err
			}
			if len(choose.Names) == 1 {
				v := verb{h: h, call: c, out: os.Stdout, errs: os.Stderr, alone: true}
				if v.name, err = guestOf(h, choose.Names[0], "exec"); err != nil {
					return err
				}
				err = v.run(ctx, guest.Program{Argv: append([]string{program}, rest...)})
				if errors.Is(err, guest.ErrNoGuest) {
					return unknownGuest(h, v.name)
				}
				return err
			}
			return c.several(ctx, h, "exec", append([]string{"--", program}, rest...))
		case strings.HasPrefix(arg, "-"):
			if !takeCondition(&choose, arg) {
				return unknownOption(tool, tools, arg)
			}
		default:
			choose.Names = append(choose.Names, arg)
		}
	}
	return wrongOption(tool, "want %s NAME…|--all -- ARGUMENTS", tool)
}
