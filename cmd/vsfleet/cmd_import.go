package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/convert"
	"github.com/vsfleet/vsfleet/fleet/sshconfig"
	"github.com/vsfleet/vsfleet/fleet/view"
)

func (a *app) inventoryImport() *cobra.Command {
	var out string
	cmd := noData(&cobra.Command{
		Use:   "import ssh_config|known_hosts|ansible [SOURCE]...",
		Short: "Write a first fleet.yml from existing configuration",
		Long: `Import prints a fleet.yml with the hosts of an ssh_config (default: yours), of a
known_hosts file (default: yours), or of Ansible inventories, which --inventory can
also read directly. What cannot be expressed in a fleet.yml is listed on standard
error. --out writes to a file, which must not exist.`,
		Example: `  vsfleet inventory import ssh_config --out fleet.yml
  vsfleet inventory import known_hosts
  vsfleet inventory import ansible hosts.ini staging/`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgs:         []string{"ssh_config", "known_hosts", "ansible"},
		ValidArgsFunction: completeImport,
		RunE: func(cmd *cobra.Command, args []string) error {
			draft, err := a.draft(cmd.Context(), args[0], args[1:])
			if err != nil {
				return err
			}
			data, err := draft.YAML()
			if err != nil {
				return err
			}
			for _, left := range draft.Left {
				fmt.Fprintf(a.stderr, "left out: %s\n", view.Clean(left))
			}
			if out == "" {
				_, err = a.stdout.Write(data)
				return err
			}
			return writeNew(out, data)
		},
	})
	cmd.Flags().StringVar(&out, "out", "", "write to this new `file`")
	return cmd
}

// draft reads the sources of an import.
func (a *app) draft(ctx context.Context, kind string, sources []string) (*convert.Draft, error) {
	if kind != "ansible" && len(sources) > 1 {
		return nil, &usageError{err: fmt.Errorf("import %s takes one file", kind)}
	}
	file := ""
	if len(sources) > 0 {
		file = sources[0]
	}
	var draft *convert.Draft
	var err error
	switch kind {
	case "ssh_config":
		draft, err = convert.SSHConfig(ctx, &sshconfig.Resolver{}, file)
	case "known_hosts":
		draft, err = convert.KnownHosts(cmp.Or(file, expandHome("~/.ssh/known_hosts")))
	case "ansible":
		if len(sources) > 0 {
			a.inventories = sources
		}
		inv, err := a.inventory(ctx)
		if err != nil {
			return nil, err
		}
		if draft, err = convert.Inventory(inv, a.inventories); err != nil {
			return nil, &usageError{err: err}
		}
		return draft, nil
	default:
		err = fmt.Errorf("there is no %q to import, want ssh_config, known_hosts or ansible", kind)
	}
	if err != nil {
		return nil, &usageError{err: err}
	}
	return draft, nil
}

func expandHome(path string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(home, path[2:])
}

// writeNew writes a file that must not exist: all of it, or nothing.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return &usageError{err: err}
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// completeImport completes the kind, then files.
func completeImport(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"ssh_config", "known_hosts", "ansible"}, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}
