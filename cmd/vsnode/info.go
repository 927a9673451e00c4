package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
)

// infoTags are the tags of util-vserver's vserver-info.
var infoTags = []string{"CONTEXT", "ID", "RUNNING", "VDIR", "NAME", "CFGDIR", "APPDIR", "INITPID", "INITPID_PID", "XID", "APIVER",
	"UTS", "SYSINFO", "FEATURE", "PXID", "CANONIFY", "VERIFYCAP", "VERIFYPROC", "XIDTYPE", "NID", "TAG"}

// errNoValue ends vserver-info with status 1 and no text, as scripts expect.
var errNoValue = exitError(1)

// vserverInfo prints one fact of a guest, a context or a process.
func vserverInfo(ctx context.Context, args []string) error {
	quiet := false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		switch args[0] {
		case "-q":
			quiet = true
		case "-l":
			fmt.Println("Valid tags are: " + strings.Join(infoTags, ", "))
			return nil
		default:
			return unknownOption("vserver-info", tools, args[0])
		}
		args = args[1:]
	}
	if len(args) < 2 {
		return sysinfo()
	}
	h, err := open()
	if err != nil {
		return err
	}
	value, err := info(ctx, h, args[0], args[1], args[2:])
	switch exit := exitError(0); {
	case err == nil:
		fmt.Println(printable.Line(value))
		return nil
	case errors.As(err, &exit):
		return err
	case !quiet:
		fmt.Fprintf(os.Stderr, "vserver-info: %s\n", printable.Lines(err.Error()))
	}
	return exitError(1)
}

func sysinfo() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	fmt.Printf("Versions:\n%25s: %s\n%25s: none; namespaces, cgroup v2, BPF\n%25s: %s\n", "Kernel", unix.ByteSliceToString(u.Release[:]), "VS-API", "vsnode", version)
	return nil
}

// info returns the value of a tag.
func info(ctx context.Context, h *node.Host, of, tag string, rest []string) (string, error) {
	first := append(rest, "")[0]
	switch tag {
	case "SYSINFO":
		return "", errors.Join(sysinfo(), exitError(0))
	case "CANONIFY":
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
				return r
			}
			return -1
		}, of), nil
	case "XIDTYPE":
		return contextType(of, rest)
	case "VERIFYCAP", "VERIFYPROC": // the kernel has both
		return "", exitError(0)
	case "APIVER", "PXID", "FEATURE", "TAG": // of a patched kernel
		return "", errNoValue
	case "XID", "NID", "INITPID_PID":
		pid, err := strconv.Atoi(of)
		if err != nil {
			return "", fmt.Errorf("%s wants the number of a process, not %q", tag, of)
		}
		all, err := h.Guests.Processes(ctx)
		if err != nil {
			return "", err
		}
		l, in := all[pid]
		switch {
		case tag != "INITPID_PID":
			return strconv.Itoa(l.Context), nil // 0: the host's
		case !in:
			return "", errNoValue
		}
		return info(ctx, h, l.Name, "INITPID", nil)
	}
	if !slices.Contains(infoTags, tag) {
		return "", fmt.Errorf("tag %q is not known%s (vserver-info -l lists them)", tag, didYouMean(tag, infoTags))
	}
	name, err := guestBy(h, of)
	if err != nil {
		return "", err
	}
	st, err := h.Guests.State(name)
	if err != nil {
		return "", err
	}
	running := st.Status == api.Running
	dir := h.Guests.Dir(name)
	switch tag {
	case "CONTEXT":
		if st.Context == 0 {
			return "", errNoValue
		}
		return strconv.Itoa(st.Context), nil
	case "ID", "NAME":
		return name, nil
	case "VDIR":
		return h.Guests.Root(name)
	case "CFGDIR":
		return dir, nil
	case "APPDIR":
		return strings.TrimSuffix(dir+"/apps/"+first, "/"), nil
	}
	switch {
	case !running:
		return "", errNoValue
	case tag == "RUNNING":
		return "1", nil
	case tag == "INITPID":
		return strconv.Itoa(st.InitPID), nil
	}
	return utsText(h, name, rest)
}

// contextType returns what a context's number means; with types, only if it is one of
// them.
func contextType(of string, types []string) (string, error) {
	n, err := strconv.Atoi(of)
	kind := "static"
	switch {
	case err != nil || n < 0 || n > api.MaxContext:
		kind = "invalid"
	case n == 0:
		kind = "main"
	case n < api.MinContext:
		kind = "watch"
	}
	if len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, kind) }) {
		return "", errNoValue
	}
	return kind, nil
}
