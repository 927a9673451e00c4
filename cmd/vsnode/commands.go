package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/check"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/images"
	"github.com/vsfleet/vsfleet/node/serve"
	"github.com/vsfleet/vsfleet/node/stat"
)

// flags parses the flags of a command that takes at least and at most so many
// arguments.
func flags(fs *flag.FlagSet, args []string, least, most int) error {
	err := parse(fs, args, nil)
	switch {
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(os.Stdout, usage)
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

func serveController(ctx context.Context, args []string) error {
	if err := flags(flag.NewFlagSet("serve", flag.ContinueOnError), args, 0, 0); err != nil {
		return err
	}
	h, err := open()
	if err != nil {
		return err
	}
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
		return usageError("image: list, export, import or remove?")
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
		img, err := h.Images.Get(ctx, fs.Arg(0))
		if errors.Is(err, images.ErrNotFound) {
			fmt.Println("it is not here")
			return nil
		}
		if err == nil {
			err = h.RemoveImage(ctx, img.ID)
		}
		if err == nil {
			fmt.Println("removed", img.ID)
		}
		return err
	}
	return usageError(fmt.Sprintf("image: unknown command %q: list, export, import or remove?", args[0]))
}

// install copies this binary to where an administrator's PATH finds it, with
// the names of Linux-VServer's tools beside it. Only root may read or run it: see
// context.Start.
func install(args []string) error {
	fs := flag.NewFlagSet("install", flag.ContinueOnError)
	dir := fs.String("dir", "/usr/local/sbin", "")
	if err := flags(fs, args, 0, 0); err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	target := filepath.Join(*dir, "vsnode")
	beside, err := os.CreateTemp(*dir, ".vsnode-")
	if err != nil {
		return err
	}
	defer os.Remove(beside.Name())
	_, err = io.Copy(beside, self)
	if err = errors.Join(err, beside.Chmod(0o700), beside.Sync(), beside.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside.Name(), target); err != nil {
		return err
	}
	for _, name := range []string{"vserver", "vserver-stat"} {
		link := filepath.Join(*dir, name)
		if old, err := os.Lstat(link); err == nil && old.Mode()&os.ModeSymlink == 0 {
			return fmt.Errorf("%s is there and no link: it may be util-vserver's; move it away", link)
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Symlink("vsnode", link); err != nil {
			return err
		}
	}
	fmt.Println("installed", target, "with vserver and vserver-stat")
	return nil
}
