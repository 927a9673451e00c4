package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

func (a *app) inventoryEncrypt() *cobra.Command {
	var recipients []string
	var name string
	var whole bool
	cmd := noData(&cobra.Command{
		Use:   "encrypt",
		Short: "Encrypt a value for the inventory",
		Long: `Encrypt reads a value from standard input, or asks for it on the terminal, and prints it
encrypted with age, as YAML for an inventory. The newline of a single line is removed;
several lines keep theirs. The value cannot be an argument, which other users could read
in the list of processes.

The value is encrypted for the public keys in .age-recipients, beside one of the inventories,
in the working directory, or in a directory above, or for those of -r: age1…, ssh-ed25519 …, ssh-rsa …, or a file
of such lines.`,
		Example: `  vsfleet inventory encrypt --name db_password >> group_vars/web.yml
  pass show db | vsfleet inventory encrypt
  vsfleet inventory encrypt --file < site.key > site.key.age
  vsfleet inventory encrypt -r ~/.ssh/id_ed25519.pub`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, used, err := fleet.Recipients(recipients, a.inventoryFiles()...)
			if err != nil {
				return &usageError{err: err}
			}
			plain, err := a.readValue(cmd.Context(), whole)
			if err != nil {
				return err
			}
			sealed, err := secret.Seal(plain, to)
			if err != nil {
				return &usageError{err: err}
			}
			text := string(sealed)
			if !whole {
				text = secret.Block(text, 2) + "\n"
				if name != "" {
					text = name + ": " + text
				}
			}
			if used != "" {
				a.say("encrypted for the keys in " + view.Clean(used))
			}
			_, err = io.WriteString(a.stdout, text)
			return err
		},
	})
	cmd.Flags().StringArrayVarP(&recipients, "recipient", "r", nil, "`key` to encrypt for, or a file of keys (default: .age-recipients beside an inventory, here, or above)")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the variable, to print before the value")
	cmd.Flags().BoolVar(&whole, "file", false, "print the content of a file NAME.age instead of YAML")
	cmd.MarkFlagsMutuallyExclusive("name", "file")
	return cmd
}

// inventoryFiles returns the files beside which .age-recipients may be.
func (a *app) inventoryFiles() []string {
	if len(a.inventories) > 0 {
		return a.inventories
	}
	return []string{defaultInventory}
}

// readValue reads what is to be encrypted; a whole file as it is.
func (a *app) readValue(ctx context.Context, whole bool) ([]byte, error) {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		word, err := a.secretWord(ctx, "value (not shown)")
		if err == nil && len(word) == 0 {
			err = &usageError{err: errors.New("nothing was typed")}
		}
		return word, err
	}
	text, err := io.ReadAll(io.LimitReader(os.Stdin, secret.MaxBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) == 0:
		return nil, &usageError{err: errors.New("standard input is empty: there is nothing to encrypt")}
	case !whole && bytes.Count(text, []byte("\n")) == 1:
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	return text, nil
}

func (a *app) inventoryEdit() *cobra.Command {
	var recipients []string
	var rekey bool
	cmd := noData(&cobra.Command{
		Use:   "edit FILE",
		Short: "Edit a file with its values decrypted",
		Long: `Edit opens a file of an inventory in $VISUAL or $EDITOR with its values decrypted, and
encrypts them again when the editor ends. Values that were not changed stay as they were.
Every value with the tag !age is encrypted, including new ones:

  db_password: !age the new password

The decrypted text is in memory only, and is removed when vsfleet ends, even if it is
killed. A file that is encrypted as a whole (NAME.age) is edited as a whole.`,
		Example: `  vsfleet inventory edit fleet.yml
  vsfleet inventory edit site.key.age
  vsfleet inventory edit --rekey fleet.yml     after .age-recipients has changed`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, keys := cmd.Context(), &a.access.Keys
			if rekey {
				used, err := fleet.RekeySecrets(ctx, args[0], keys, recipients)
				if err != nil {
					return secretError(err)
				}
				if used != "" {
					used = " for the keys in " + view.Clean(used)
				}
				a.say(args[0] + ": encrypted again" + used + "; whoever could read it before may still have the values")
				return nil
			}
			changed, err := fleet.EditSecrets(ctx, args[0], keys, recipients, func(err error) bool {
				return a.confirm(ctx, question{text: view.Clean(err.Error()) + "\nEdit it again?", no: "no"}) == nil
			})
			if err != nil {
				return secretError(err)
			}
			if changed {
				a.say(args[0] + ": written")
			} else {
				a.say(args[0] + ": not changed")
			}
			return nil
		},
	})
	cmd.Flags().StringArrayVarP(&recipients, "recipient", "r", nil, "`key` to encrypt for, or a file of keys (default: .age-recipients beside FILE, here, or above)")
	cmd.Flags().BoolVar(&rekey, "rekey", false, "encrypt all values again for the current recipients, without an editor")
	return cmd
}

func (a *app) say(text string) {
	if !a.quiet {
		fmt.Fprintln(a.stderr, text)
	}
}

// secretError makes an error of a file or a key one of usage, as that of an inventory is.
func secretError(err error) error {
	if strings.HasPrefix(err.Error(), "editor ") {
		return err
	}
	return &usageError{err: err}
}
