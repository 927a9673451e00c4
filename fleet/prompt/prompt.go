// Package prompt asks the person at this machine for a secret, as ssh does: on the terminal
// of the process, or by the program of SSH_ASKPASS. Standard input is left to the data of a
// command. It also reads secrets from files.
//
// A terminal whose echo was switched off is put back when the context ends. A process that
// is killed leaves it without echo, as ssh does (reset, or stty echo). Secrets are never put
// into arguments or the environment of a program.
package prompt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/term"
)

// Ask asks a question and returns the answer, without the end of its line.
func Ask(ctx context.Context, question string, echo bool) (string, error) {
	require := os.Getenv("SSH_ASKPASS_REQUIRE")
	program := os.Getenv("SSH_ASKPASS")
	display := os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
	if program != "" && (require == "force" || require == "prefer" && display) {
		return byProgram(ctx, program, question)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	switch {
	case err == nil:
		defer tty.Close()
		return onTerminal(ctx, tty, question, echo)
	case program != "" && display && require != "never":
		return byProgram(ctx, program, question)
	}
	return "", errors.New("there is no terminal to ask, and no SSH_ASKPASS")
}

// byProgram runs a program with the question as its argument; it prints the answer.
func byProgram(ctx context.Context, program, question string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, question)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("%sSSH_ASKPASS %s: %w", question, program, err)
	}
	answer, _, _ := strings.Cut(out.String(), "\n")
	return strings.TrimSuffix(answer, "\r"), nil
}

func onTerminal(ctx context.Context, tty *os.File, question string, echo bool) (string, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("%s%w", question, err)
	}
	if _, err := io.WriteString(tty, question); err != nil {
		return "", err
	}
	type result struct {
		text string
		err  error
	}
	answer := make(chan result, 1)
	go func() {
		if echo {
			line, err := bufio.NewReader(tty).ReadString('\n')
			answer <- result{strings.TrimRight(line, "\r\n"), err}
			return
		}
		b, err := term.ReadPassword(fd)
		answer <- result{string(b), err}
	}()
	select {
	case r := <-answer:
		if !echo {
			_, _ = io.WriteString(tty, "\n") // the one that was typed was not shown
		}
		if errors.Is(r.err, io.EOF) {
			return "", fmt.Errorf("%snothing was typed", question)
		}
		return r.text, r.err
	case <-ctx.Done():
		_ = term.Restore(fd, before) // the process is about to end
		return "", context.Cause(ctx)
	}
}

// maxSecret bounds a file with a secret.
const maxSecret = 4096

// File reads a secret from the first line of a file. If it is a file on a disk, nobody
// else may read it.
func File(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode()&0o044 != 0 {
		return "", fmt.Errorf("read password: others can read %s: chmod 600 %s", path, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	switch {
	case line == "":
		return "", fmt.Errorf("read password: the first line of %s is empty", path)
	case len(b) > maxSecret, strings.ContainsRune(line, 0):
		return "", fmt.Errorf("read password: %s holds no password in its first line", path)
	}
	return line, nil
}
