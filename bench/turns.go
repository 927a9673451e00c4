package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// A subject is one way to do what a row is about.
type subject struct {
	name string
	// once does it, and returns how long that took without preparations and
	// cleaning up.
	once func(ctx context.Context) (time.Duration, error)
}

// times of a subject, sorted.
type times []time.Duration

func (t times) median() time.Duration { return t[len(t)/2] }

// quarter is the lower quartile: less than the median depends on what else the machine
// does.
func (t times) quarter() time.Duration { return t[len(t)/4] }

func (t times) String() string {
	return fmt.Sprintf("%10s %10s   %s … %s", threeDigits(t.median()), threeDigits(t.quarter()), threeDigits(t[0]), threeDigits(t[len(t)-1]))
}

// threeDigits formats a duration with three digits.
func threeDigits(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}

// warm is the number of rounds before times count.
const warm = 2

// turns lets the subjects take turns, each round beginning with another one,
// so that whatever else the machine does affects all of them.
func turns(ctx context.Context, rounds int, subjects []subject) ([]times, error) {
	all := make([]times, len(subjects))
	for round := -warm; round < rounds; round++ {
		for i := range subjects {
			k := (i + round + warm) % len(subjects)
			d, err := subjects[k].once(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", subjects[k].name, err)
			}
			if round >= 0 {
				all[k] = append(all[k], d)
			}
		}
	}
	for _, t := range all {
		slices.Sort(t)
	}
	return all, nil
}

// A pair is compared: ours and a peer's, by their places among the subjects.
type pair struct {
	ours, peer int
	target     float64 // the ratio aimed at; 0: none
}

// row measures and prints one row.
func row(ctx context.Context, title string, rounds int, subjects []subject, pairs []pair) error {
	all, err := turns(ctx, rounds, subjects)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s\n  %-44s %10s %10s   range of %d\n", title, "", "median", "quartile", rounds)
	for i, s := range subjects {
		fmt.Printf("  %-44s %s\n", s.name, all[i])
	}
	for _, p := range pairs {
		ratio := float64(all[p.ours].median()) / float64(all[p.peer].median())
		quarters := float64(all[p.ours].quarter()) / float64(all[p.peer].quarter())
		fmt.Printf("  %s : %s = %.2f, quartiles %.2f%s\n", subjects[p.ours].name, subjects[p.peer].name, ratio, quarters, verdict(ratio, p.target))
	}
	return nil
}

func verdict(ratio, target float64) string {
	switch {
	case target == 0:
		return ""
	case ratio <= target:
		return fmt.Sprintf("   (target %.3g: met)", target)
	case ratio <= 2*target:
		return fmt.Sprintf("   (target %.3g: within twice)", target)
	}
	return fmt.Sprintf("   (target %.3g: missed)", target)
}

// command is a subject that runs a program.
func command(name, path string, args ...string) subject {
	return subject{name, func(ctx context.Context) (time.Duration, error) {
		return timed(func() error { return runQuietly(ctx, path, args...) })
	}}
}

// runQuietly runs a program. If it fails, its output becomes the error.
func runQuietly(ctx context.Context, path string, args ...string) error {
	err := exec.CommandContext(ctx, path, args...).Run()
	if err == nil {
		return nil
	}
	// Once more for the reason: a pipe for it would have been measured too.
	out, again := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return fmt.Errorf("%s %q: %w; run again: %w: %s", path, args, err, errors.Join(again), out)
}

func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}
