package linux

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadAndWriteFiles(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct {
		name    string
		content []byte
	}{
		{"nothing", nil},
		{"a line", []byte("24\n")},
		{"as much as is read at once", bytes.Repeat([]byte("x"), 512)},
		{"more", bytes.Repeat([]byte("0123456789"), 10_000)},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(dir, row.name)
			if err := os.WriteFile(path, []byte("what was there before, and is longer than a line"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := WriteFile(path, row.content, 0o640); err != nil {
				t.Fatal(err)
			}
			for who, read := range map[string]func(string) ([]byte, error){"os": os.ReadFile, "linux": ReadFile} {
				if b, err := read(path); err != nil || !bytes.Equal(b, row.content) {
					t.Errorf("%s reads %d bytes, %v; want %d", who, len(b), err, len(row.content))
				}
			}
		})
	}
	if _, err := ReadFile(filepath.Join(dir, "nosuch")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := ReadFile(dir); err == nil || !errors.As(err, new(*fs.PathError)) {
		t.Errorf("a directory: %v", err)
	}
	if err := WriteFile(dir, nil, 0o600); err == nil {
		t.Error("a directory was written to")
	}
	if b, err := ReadFile("/proc/self/status"); err != nil || !bytes.HasPrefix(b, []byte("Name:")) {
		t.Errorf("a file of procfs: %.20q, %v", b, err)
	}
	f, err := Open(filepath.Join(dir, "new"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("a new file: %v, %v", info, err)
	}
}
