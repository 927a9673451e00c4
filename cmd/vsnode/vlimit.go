package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/vsyntax"
	"github.com/vsfleet/vsfleet/node/guest"
)

// limitSetting is a file of a cgroup, and what to write to it.
type limitSetting struct{ file, value string }

// vlimit shows what a running guest uses of its limits, or sets them.
func vlimit(ctx context.Context, args []string) error {
	ref, set, err := limitOptions(args)
	if err != nil {
		return err
	}
	h, err := open()
	if err != nil {
		return err
	}
	if ref, err = guestBy(h, ref); err != nil {
		return err
	}
	if _, err := h.Guests.Running(ref); errors.Is(err, guest.ErrNoGuest) {
		return unknownGuest(h, ref)
	}
	for _, s := range set {
		if err := h.Guests.SetLimit(ctx, ref, s.file, s.value); err != nil {
			return err
		}
	}
	if len(set) > 0 {
		return nil
	}
	return verb{h: h, name: ref, out: os.Stdout, errs: os.Stderr}.limits(ctx)
}

// limitOptions reads vlimit's options: -S makes the limits behind it soft, -H hard, which
// they are without either.
func limitOptions(args []string) (ref string, set []limitSetting, err error) {
	soft := false
	for len(args) > 0 {
		option, value, given := strings.Cut(args[0], "=")
		args = args[1:]
		switch option {
		case "-a", "-d", "--all":
			continue
		case "-S":
			soft = true
			continue
		case "-H":
			soft = false
			continue
		case "-M":
			return "", nil, wrongOption("vlimit", "option -M: no limit has a minimum: cgroup/memory.min of the configuration keeps memory for a guest")
		}
		name, isLong := strings.CutPrefix(option, "--")
		files, known := guest.LimitFiles[name]
		if option != "-c" && option != "--xid" && !(isLong && known) {
			if isLong {
				return "", nil, wrongOption("vlimit", "option %s: a running guest as a whole has limits of nproc, rss and swap; ulimits/ of the configuration is for each process", option)
			}
			return "", nil, unknownOption("vlimit", tools, option)
		}
		if !given {
			if len(args) == 0 {
				return "", nil, wrongOption("vlimit", "option %s needs an argument", option)
			}
			value, args = args[0], args[1:]
		}
		if !known {
			ref = value
			continue
		}
		file := files.Hard
		if soft {
			file = files.Soft
		}
		text, err := limitText(name, value)
		switch {
		case err != nil:
			return "", nil, wrongOption("vlimit", "option %s: %v", option, err)
		case file == "":
			return "", nil, wrongOption("vlimit", "option %s: it has no soft limit", option)
		}
		set = append(set, limitSetting{file, text})
	}
	if ref == "" {
		return "", nil, wrongOption("vlimit", "no context: give -c CONTEXT or NAME")
	}
	return ref, set, nil
}

// limitText is a value in the cgroup's form: rss and swap are in pages, as in rlimits/.
func limitText(name, value string) (string, error) {
	n, err := vsyntax.Limit(value)
	if err != nil {
		return "", err
	}
	if n == vsyntax.Infinity {
		return "max", nil
	}
	if name != "nproc" {
		page := uint64(os.Getpagesize())
		if n > 1<<62/page {
			return "", fmt.Errorf("%s is too large", value)
		}
		n *= page
	}
	return strconv.FormatUint(n, 10), nil
}
