package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/check"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/serve"
	"github.com/vsfleet/vsfleet/node/stat"
)

// usageOf returns the part of the help that is about a command.
func usageOf(command string) string {
	if w, ok := wordOf(tools, command); ok {
		return w.help()
	}
	if _, ok := wordOf("", command); ok {
		return verbHelp(command)
	}
	_, part, ok := strings.Cut(usage, "\n  vsnode "+command+" ")
	if !ok {
		return usage
	}
	part, _, _ = strings.Cut(part, "\n  vsnode ")
	return "vsnode " + command + " " + strings.TrimSuffix(part, "\n") + "\n"
}

// flags parses the flags of a command that takes at least and at most so many
// arguments.
func flags(fs *flag.FlagSet, args []string, least, most int) error {
	err := parse(fs, args, fs.Name())
	switch {
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(os.Stdout, usageOf(fs.Name()))
		return exitError(0)
	case err != nil:
		return usageError(fs.Name() + ": " + err.Error())
	case fs.NArg() > most:
		return usageError(fmt.Sprintf("%s: unexpected argument %q", fs.Name(), fs.Arg(most)))
	case fs.NArg() < least:
		return usageError(fs.Name() + ": an argument is missing; vsnode help shows which")
	}
	return nil
}

// answer answers a controller on standard input and output: many requests, or one
// with bytes beside it.
func answer(ctx context.Context, how string, args []string) error {
	if err := flags(flag.NewFlagSet(how, flag.ContinueOnError), args, 0, 0); err != nil {
		return err
	}
	h, err := open()
	if err != nil {
		return err
	}
	if how == "stream" {
		return serve.Stream(ctx, os.Stdin, os.Stdout, h)
	}
	defer h.Close()
	return serve.Serve(ctx, os.Stdin, os.Stdout, h)
}

func checkHost(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "")
	if err := flags(fs, args, 0, 0); err != nil {
		return err
	}
	c, err := node.Check(ctx, &guest.Host{Paths: guest.DefaultPaths()})
	if err != nil {
		return err
	}
	if *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(c)
	} else {
		err = check.Write(os.Stdout, c)
	}
	if err != nil {
		return err
	}
	if status := check.Status(c); status != 0 {
		err := check.Missing(c)
		if err == nil {
			err = errors.New("it could not be told whether this host can run guests: see the rows marked ?")
		}
		fmt.Fprintf(os.Stderr, "vsnode: %v\n", err)
		return exitError(status)
	}
	return nil
}

func vserverStat(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("vserver-stat", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "")
	for _, name := range []string{"sort", "O"} {
		// util-vserver took it and did nothing: rows are by context.
		fs.String(name, "", "")
	}
	var use usageError
	if err := flags(fs, args, 0, 0); errors.As(err, &use) {
		fmt.Fprintln(os.Stderr, err)
		return exitError(1) // util-vserver's
	} else if err != nil {
		return err
	}
	h, err := open()
	if err != nil {
		return err
	}
	s, err := h.Stat(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(s)
	}
	return stat.Write(os.Stdout, s.Rows)
}

func image(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError("image: list, export, import, remove, gc or check?")
	}
	fs := flag.NewFlagSet("image "+args[0], flag.ContinueOnError)
	h, err := open()
	if err != nil {
		return err
	}
	switch args[0] {
	case "list":
		if err := flags(fs, args[1:], 0, 0); err != nil {
			return err
		}
		list, err := h.Images.List(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(list)
	case "export":
		if err := flags(fs, args[1:], 1, 1); err != nil {
			return err
		}
		return h.Images.Export(ctx, fs.Arg(0), os.Stdout)
	case "import":
		id := fs.String("id", "", "")
		if err := flags(fs, args[1:], 0, 0); err != nil {
			return err
		}
		img, _, err := h.Images.Import(ctx, os.Stdin, *id)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(img)
	case "remove":
		if err := flags(fs, args[1:], 1, 1); err != nil {
			return err
		}
		removed, err := h.RemoveImage(ctx, api.RemoveImage{Image: fs.Arg(0)})
		switch {
		case err != nil:
			return err
		case removed.ID == "":
			fmt.Println("it is not here")
		default:
			fmt.Println("removed", removed.ID)
		}
		return nil
	case "gc":
		var req api.Collect
		fs.BoolVar(&req.All, "all", false, "")
		fs.BoolVar(&req.Dry, "n", false, "")
		if err := flags(fs, args[1:], 0, 0); err != nil {
			return err
		}
		done, err := h.CollectImages(ctx, req)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(done)
	case "check":
		if err := flags(fs, args[1:], 0, 0); err != nil {
			return err
		}
		c, err := h.CheckStore(ctx)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(c); err != nil || len(c.Damaged) == 0 {
			return err
		}
		return exitError(1)
	}
	return usageError(fmt.Sprintf("image: unknown command %q: list, export, import, remove, gc or check?", args[0]))
}

func install(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("install", flag.ContinueOnError)
	dir := fs.String("dir", node.InstallDir, "")
	if err := flags(fs, args, 0, 0); err != nil {
		return err
	}
	done, err := node.Install(ctx, *dir)
	if err != nil {
		return err
	}
	fmt.Println("installed", done.Path, "with", strings.Join(done.Links, ", "))
	return nil
}

func uninstall(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("uninstall", flag.ContinueOnError)
	dir := fs.String("dir", node.InstallDir, "")
	if err := flags(fs, args, 0, 0); err != nil {
		return err
	}
	h, err := open()
	if err != nil {
		return err
	}
	return h.Uninstall(ctx, *dir)
}
