package editor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == SweepCommand {
		os.Exit(SweepMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// script writes a program that is used as an editor.
func script(t *testing.T, text string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "editor")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{path}
}

func TestAnEditorChangesTheTextInMemory(t *testing.T) {
	note := filepath.Join(t.TempDir(), "path")
	tries := 0
	err := Edit(t.Context(), script(t, "echo $1 >"+note+"; echo more >>$1\n"), "/etc/fleet.yml", []byte("a\n"), func(edited []byte) (bool, error) {
		if tries++; string(edited) != "a\n"+strings.Repeat("more\n", tries) {
			t.Errorf("%q", edited)
		}
		return tries < 2, nil
	})
	if err != nil || tries != 2 {
		t.Errorf("%d, %v", tries, err)
	}
	path, err := os.ReadFile(note)
	if err != nil || filepath.Base(strings.TrimSpace(string(path))) != "fleet.yml" {
		t.Fatalf("%s, %v", path, err)
	}
	dir := filepath.Dir(strings.TrimSpace(string(path)))
	if !inMemory(filepath.Dir(dir)) {
		t.Errorf("%s is not in memory", dir)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

func TestAnEditorThatFailsChangesNothing(t *testing.T) {
	err := Edit(t.Context(), script(t, "exit 3\n"), "x", nil, func([]byte) (bool, error) {
		t.Error("its text was taken")
		return false, nil
	})
	if err == nil || !strings.Contains(err.Error(), "exit status 3: nothing was changed") {
		t.Error(err)
	}
}

// The text must not outlive a program that is killed.
func TestNothingIsLeftAfterAKill(t *testing.T) {
	if os.Getenv("EDIT_FOR_TEST") != "" {
		err := Edit(t.Context(), Command(), "x", []byte("secret"), func([]byte) (bool, error) { return false, nil })
		t.Fatal(err)
	}
	note := filepath.Join(t.TempDir(), "path")
	editor := script(t, "echo $PPID $$ $1 >"+note+".new; mv "+note+".new "+note+"; exec sleep 60\n")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^TestNothingIsLeftAfterAKill$")
	cmd.Env = append(os.Environ(), "EDIT_FOR_TEST=1", "VISUAL="+editor[0])
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var fields []string
	eventually(t, "the editor runs", func() bool {
		b, err := os.ReadFile(note)
		fields = strings.Fields(string(b))
		return err == nil && len(fields) == 3
	})
	if _, err := os.Stat(fields[2]); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "the directory is gone", func() bool {
		_, err := os.Stat(filepath.Dir(fields[2]))
		return errors.Is(err, os.ErrNotExist)
	})
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Kill(pid, unix.SIGKILL)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
