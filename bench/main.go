package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/lab"
)

// rows in the order they run in.
var rows = []struct {
	name string
	run  func(ctx context.Context, b *bench) error
}{
	{"start", startRow},
	{"exec", execRow},
	{"stop", stopRow},
	{"calls", callsRow},
	{"vsnode", vsnodeRow},
	{"store", storeRow},
	{"fleet", fleetRow},
	{"neighbour", neighbourRow},
	{"steps", stepsRow},
	{"push", pushRow},
	{"throttled", throttledRow},
	{"thousand", thousandRow},
	{"history", historyRow},
	{"update", updateRow},
	{"many", manyRow}, // last: the machine has a thousand guests from there on, of which every ping would be told
}

// outsideRows run after them, not on the machine of the bench's own: they make theirs.
var outsideRows = []struct {
	name string
	run  func(ctx context.Context, b *bench) error
}{
	{"move", moveRow},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == lab.InitCommand {
		os.Exit(lab.InitMain(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	vsnode := flag.String("vsnode", "bin/vsnode", "the vsnode to measure")
	vsfleet := flag.String("vsfleet", "bin/vsfleet", "the vsfleet to measure")
	factor := flag.Float64("rounds", 1, "`factor` by which to multiply the usual number of rounds")
	many := flag.Int("guests", 1000, "number of guests to put on one host")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [flags] [row…]; rows are", strings.Join(names(), ", "))
		flag.PrintDefaults()
	}
	flag.Parse()
	if dir := os.Getenv(serversVar); dir != "" {
		return serveHosts(dir)
	}
	for _, arg := range flag.Args() {
		if !slices.Contains(names(), arg) {
			return fmt.Errorf("there is no row %q: %s", arg, strings.Join(names(), ", "))
		}
	}
	chosen := func(name string) bool { return flag.NArg() == 0 || slices.Contains(flag.Args(), name) }
	inside, err := false, error(nil)
	if onMachine(chosen) {
		inside, err = enterMachine(ctx)
	}
	if err == nil && !inside {
		err = runOutside(ctx, chosen, *vsfleet, *factor)
	}
	if err != nil || !inside {
		return err
	}
	b, err := newBench(ctx, *vsnode, *vsfleet, *factor, *many)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !chosen(row.name) {
			continue
		}
		if err := row.run(ctx, b); err != nil {
			return fmt.Errorf("row %s: %w", row.name, err)
		}
	}
	return nil
}

// onMachine reports whether a row is chosen that needs the machine.
func onMachine(chosen func(string) bool) bool {
	for _, row := range rows {
		if chosen(row.name) {
			return true
		}
	}
	return false
}

// runOutside runs the rows that make machines of their own.
func runOutside(ctx context.Context, chosen func(string) bool, vsfleet string, factor float64) (err error) {
	b := &bench{factor: factor}
	if b.vsfleet, err = filepath.Abs(vsfleet); err != nil {
		return err
	}
	for _, row := range outsideRows {
		if !chosen(row.name) {
			continue
		}
		if err := row.run(ctx, b); err != nil {
			return fmt.Errorf("row %s: %w", row.name, err)
		}
	}
	return nil
}

func names() []string {
	var all []string
	for _, row := range rows {
		all = append(all, row.name)
	}
	for _, row := range outsideRows {
		all = append(all, row.name)
	}
	return all
}
