package linux

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceFile(t *testing.T) {
	for _, row := range []struct {
		name   string
		before func(path string) error
	}{
		{"a file that was not there", func(string) error { return nil }},
		{"a file that was there", func(path string) error { return os.WriteFile(path, []byte("old, and longer"), 0o644) }},
		{"what a killed call left", func(path string) error { return os.WriteFile(path+ReplaceSuffix, []byte("half of something"), 0o644) }},
		{"a link that somebody put in the way", func(path string) error { return os.Symlink("victim", path+ReplaceSuffix) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			path, victim := filepath.Join(dir, "file"), filepath.Join(dir, "victim")
			if err := errors.Join(os.WriteFile(victim, []byte("kept"), 0o600), row.before(path)); err != nil {
				t.Fatal(err)
			}
			if err := ReplaceFile(path, []byte("new"), 0o640); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != "new" {
				t.Errorf("it holds %q, %v", got, err)
			}
			if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
				t.Errorf("its mode: %v, %v", st.Mode(), err)
			}
			if got, err := os.ReadFile(victim); err != nil || string(got) != "kept" {
				t.Errorf("another file holds %q, %v", got, err)
			}
			if _, err := os.Lstat(path + ReplaceSuffix); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something is left: %v", err)
			}
		})
	}
}

func TestReplaceFileThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	if err := ReplaceFileSync(path, 0o600, func(*os.File) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("it holds %q, %v", got, err)
	}
	if _, err := os.Lstat(path + ReplaceSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}
