package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
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

func main() {
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
	if inside, err := enterMachine(ctx); err != nil || !inside {
		return err
	}
	b, err := newBench(ctx, *vsnode, *vsfleet, *factor, *many)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), row.name) {
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
	return all
}
