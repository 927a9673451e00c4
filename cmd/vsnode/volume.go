package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
)

func volume(ctx context.Context, args []string) error {
	const which = "list or delete?"
	if len(args) == 0 {
		return usageError("volume: " + which)
	}
	fs := flag.NewFlagSet("volume "+args[0], flag.ContinueOnError)
	h, err := open()
	if err != nil {
		return err
	}
	switch args[0] {
	case "list":
		if err := flags(fs, args[1:], 0, 0); err != nil {
			return err
		}
		list, err := h.Guests.Volumes(ctx)
		if err != nil {
			return err
		}
		const row = "%-30s %12v  %s\n"
		fmt.Printf(row, "VOLUME", "KIB", "GUESTS")
		for _, v := range list {
			fmt.Printf(row, v.Name, v.Bytes>>10, cmp.Or(strings.Join(v.Guests, ", "), "none"))
		}
		return nil
	case "delete":
		yes := fs.Bool("yes", false, "")
		args = args[1:]
		if len(args) == 2 && args[1] == "--yes" {
			slices.Reverse(args)
		}
		if err := flags(fs, args, 1, 1); err != nil {
			return err
		}
		if !*yes {
			if err := h.Guests.HasVolume(fs.Arg(0)); err != nil {
				return err
			}
			if err := confirm("Are you sure you want to delete the volume %s (y/N) ", fs.Arg(0)); err != nil {
				return err
			}
		}
		if err := h.Guests.DeleteVolume(ctx, fs.Arg(0)); err != nil {
			return err
		}
		fmt.Println("removed volume", fs.Arg(0))
		return nil
	}
	return usageError(fmt.Sprintf("volume: unknown command %q: %s", args[0], which))
}
