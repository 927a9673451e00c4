package fleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/vsfleet/vsfleet/internal/editor"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// Recipients returns the recipients to encrypt values of a file for: the named ones, or
// else those of .age-recipients beside the file or in a directory above.
func Recipients(named []string, file string) ([]age.Recipient, error) {
	var list []age.Recipient
	for _, name := range named {
		r, err := secret.ParseRecipient(name)
		if err != nil {
			data, unreadable := os.ReadFile(name)
			if unreadable != nil {
				return nil, err
			}
			more, err := secret.ParseRecipients(name, data)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
			continue
		}
		list = append(list, r)
	}
	if len(named) > 0 {
		return list, nil
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	for at := dir; ; at = filepath.Dir(at) {
		path := filepath.Join(at, secret.RecipientsFile)
		data, err := os.ReadFile(path)
		switch {
		case err == nil:
			return secret.ParseRecipients(path, data)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case at == filepath.Dir(at):
			return nil, fmt.Errorf("there is no %s in %s, with the public keys to encrypt for, one per line: cat ~/.ssh/id_ed25519.pub >> %s",
				secret.RecipientsFile, dir, filepath.Join(dir, secret.RecipientsFile))
		}
	}
}

// EditSecrets runs an editor on a file of an inventory with its values decrypted, then
// encrypts them and writes the file. It reports whether the file was changed. If the
// edited text cannot be read, confused decides whether to edit it again.
func EditSecrets(ctx context.Context, file string, keys *secret.Keys, recipients []string, confused func(error) (again bool)) (bool, error) {
	d, err := openSecrets(ctx, file, keys)
	if err != nil {
		return false, err
	}
	changed := false
	err = editor.Edit(ctx, editor.Command(), file, []byte(d.Plain()), func(edited []byte) (bool, error) {
		if string(edited) == d.Plain() && !d.HasPlain() {
			return false, nil
		}
		// Recipients are needed only if a value has to be encrypted.
		to, missing := Recipients(recipients, file)
		sealed, err := d.Seal(string(edited), to, false)
		if errors.Is(err, secret.ErrNobody) && missing != nil {
			err = missing
		}
		if err != nil {
			return confused(err), err
		}
		changed = true
		return false, writeLike(file, d.Text(), sealed)
	})
	return changed, err
}

// RekeySecrets encrypts the values of a file again, for the current recipients.
func RekeySecrets(ctx context.Context, file string, keys *secret.Keys, recipients []string) error {
	to, err := Recipients(recipients, file)
	if err != nil {
		return err
	}
	d, err := openSecrets(ctx, file, keys)
	if err != nil {
		return err
	}
	sealed, err := d.Seal(d.Plain(), to, true)
	if err != nil {
		return err
	}
	return writeLike(file, d.Text(), sealed)
}

func openSecrets(ctx context.Context, file string, keys *secret.Keys) (*secret.Document, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return secret.Open(ctx, file, data, keys)
}

// writeLike replaces a file, provided that its content is still before. The permissions
// are kept.
func writeLike(file, before string, data []byte) error {
	path, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	now, err := os.ReadFile(path)
	if err == nil && string(now) != before {
		err = fmt.Errorf("%s was changed by somebody else in the meantime: nothing was written", file)
	}
	if err != nil {
		return err
	}
	return linux.ReplaceFileSync(path, st.Mode().Perm(), func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}
