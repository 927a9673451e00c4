package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Standard input goes to a command that runs in one place, as with ssh, unless it belongs
// to the surrounding shell. In
//
//	while read h; do vsfleet run -l $h -- uptime; done < list
//
// it is the list, which ssh would consume. A file that was read from before belongs to the
// shell, and so does a pipe that is the standard input of a shell among the parents.
// --stdin overrides this.

func addStdinFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("stdin", false, "pass standard input to the command, in every place, even if the surrounding shell may read it (--stdin=false: never)")
}

// stdin returns the standard input of a command that runs in one place; nil: none.
func (a *app) stdin(cmd *cobra.Command) io.Reader {
	if f := cmd.Flags().Lookup("stdin"); f != nil && f.Changed {
		if f.Value.String() == "true" {
			return os.Stdin
		}
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(0, &st); err != nil {
		return nil // closed
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if at, err := unix.Seek(0, 0, io.SeekCurrent); err == nil && at > 0 {
			return nil
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		if shellAbove(&st) {
			if !a.quiet {
				fmt.Fprintln(a.stderr, "standard input is left to the shell (--stdin passes it on, --stdin=false omits this message)")
			}
			return nil
		}
	}
	return os.Stdin
}

var shells = map[string]bool{
	"sh": true, "bash": true, "dash": true, "ash": true, "busybox": true, "zsh": true, "ksh": true, "mksh": true, "fish": true, "tcsh": true, "csh": true,
}

// shellAbove reports whether a shell among the parents has this file as its standard
// input, and so has every process in between.
func shellAbove(own *unix.Stat_t) bool {
	for pid := os.Getppid(); pid > 1; {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/0", pid), &st); err != nil || st.Dev != own.Dev || st.Ino != own.Ino {
			return false
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // PID (COMM) STATE PPID …
		if err != nil {
			return false
		}
		text := string(b)
		open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		if open < 0 || end < open {
			return false
		}
		if shells[text[open+1:end]] {
			return true
		}
		fields := strings.Fields(text[end+1:])
		if len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}
