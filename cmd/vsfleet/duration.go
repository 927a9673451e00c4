package main

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// duration is a flag for a duration. A bare number is seconds, as with ssh and
// Ansible.
type duration time.Duration

// durationVar adds a duration flag.
func durationVar(f *pflag.FlagSet, to *time.Duration, name string, byDefault time.Duration, usage string) {
	*to = byDefault
	f.Var((*duration)(to), name, usage)
}

func (d *duration) Set(text string) error {
	if n, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(n) < math.MaxInt64/float64(time.Second) {
		*d = duration(n * float64(time.Second))
		return nil
	}
	t, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("want a time, as 30, 30s or 5m, have %q", text)
	}
	*d = duration(t)
	return nil
}

func (d *duration) String() string {
	if *d == 0 {
		return "0" // the help then shows no default
	}
	return time.Duration(*d).String()
}

func (d *duration) Type() string { return "duration" }
