package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/vsfleet/vsfleet/node/stat"
)

// limits prints what the guest uses of its limits.
func (v verb) limits(ctx context.Context) error {
	usage, err := v.h.Usage(ctx)
	if err != nil {
		return err
	}
	for _, g := range usage.Guests {
		if g.Name != v.name {
			continue
		}
		const line = "%-13s %9s %9s %9s %9s %9s\n"
		fmt.Fprintf(v.out, line, "RESOURCE", "CURRENT", "PEAK", "SOFT", "HARD", "HITS")
		for _, c := range g.Counters {
			number := func(n *int64) string {
				switch {
				case n == nil:
					return "-"
				case c.Bytes:
					return stat.FormatBytes(uint64(max(*n, 0)))
				case c.Resource == "cpu": // thousandths
					return strconv.FormatFloat(float64(*n)/1000, 'g', -1, 64)
				}
				return strconv.FormatInt(*n, 10)
			}
			hits := "-"
			if c.Hits != nil {
				hits = strconv.FormatInt(*c.Hits, 10)
			}
			fmt.Fprintf(v.out, line, c.Resource, number(c.Current), number(c.Peak), number(c.Soft), number(c.Hard), hits)
		}
		return nil
	}
	if _, err := v.h.Guests.Running(v.name); err != nil {
		return err
	}
	fmt.Fprintf(v.errs, "vserver: guest %s is not running: nothing is counted\n", v.name)
	return exitStopped
}
