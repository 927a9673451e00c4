package fleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/vsfleet/vsfleet/internal/editor"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// Recipients returns the recipients to encrypt values for: the named ones, or else those of
// .age-recipients, which is looked for beside each of the files and above it, then in the
// working directory and above. used is the path of that file.
func Recipients(named []string, files ...string) (list []age.Recipient, used string, err error) {
	if len(named) > 0 {
		list, err = namedRecipients(named)
		return list, "", err
	}
	var dirs []string
	for _, file := range append(slices.Clone(files), "./"+secret.RecipientsFile) {
		if st, err := os.Stat(file); err != nil || !st.IsDir() {
			file = filepath.Dir(file)
		}
		dir, err := filepath.Abs(file)
		if err != nil {
			return nil, "", err
		}
		if slices.Contains(dirs, dir) {
			continue
		}
		dirs = append(dirs, dir)
		for at := dir; ; at = filepath.Dir(at) {
			path := filepath.Join(at, secret.RecipientsFile)
			data, err := os.ReadFile(path)
			if err == nil {
				list, err = secret.ParseRecipients(path, data)
				return list, path, err
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, "", err
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return nil, "", fmt.Errorf("there is no %s in %s, with the public keys to encrypt for, one per line: cat ~/.ssh/id_ed25519.pub >> %s",
		secret.RecipientsFile, strings.Join(dirs, " or "), filepath.Join(dirs[0], secret.RecipientsFile))
}

// namedRecipients returns recipients that are keys, or in files of keys.
func namedRecipients(named []string) ([]age.Recipient, error) {
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
	return list, nil
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
		to, _, missing := Recipients(recipients, file)
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

// RekeySecrets encrypts the values of a file again, for the current recipients. used is
// the file that names them, if one does.
func RekeySecrets(ctx context.Context, file string, keys *secret.Keys, recipients []string) (used string, err error) {
	to, used, err := Recipients(recipients, file)
	if err != nil {
		return used, err
	}
	d, err := openSecrets(ctx, file, keys)
	if err != nil {
		return used, err
	}
	sealed, err := d.Seal(d.Plain(), to, true)
	if err != nil {
		return used, err
	}
	return used, writeLike(file, d.Text(), sealed)
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
