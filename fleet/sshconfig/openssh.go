package sshconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stdin is the file that ssh reads: a memfd in place of its standard input, as ssh closes
// all other descriptors, and reads a file twice for "Match final".
const stdin = "/proc/self/fd/0"

// askTimeout bounds one call of ssh -G, whose "Match exec" may hang.
const askTimeout = 30 * time.Second

// ssh returns the path of OpenSSH's client, "" if there is none.
func (r *Resolver) ssh() string {
	r.mu.Lock()
	if r.program == nil {
		r.program = sync.OnceValue(func() string {
			switch r.Program {
			case "none":
				return ""
			case "":
				path, err := exec.LookPath("ssh")
				if err != nil {
					return ""
				}
				return path
			}
			return r.Program
		})
	}
	program := r.program
	r.mu.Unlock()
	return program()
}

// baseline returns what ssh prints without any configuration.
func (r *Resolver) baseline(ctx context.Context, program string) (map[string][]string, error) {
	r.mu.Lock()
	if r.defaults == nil {
		r.defaults = sync.OnceValues(func() (map[string][]string, error) {
			return ask(ctx, program, "", Query{Host: "localhost"})
		})
	}
	defaults := r.defaults
	r.mu.Unlock()
	return defaults()
}

// ask runs ssh -G with a configuration.
func ask(ctx context.Context, program, text string, q Query) (map[string][]string, error) {
	fd, err := unix.MemfdCreate("ssh_config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), stdin)
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		return nil, err
	}
	args := []string{"-G", "-F", stdin}
	if q.User != "" {
		args = append(args, "-l", q.User)
	}
	if q.Port != 0 {
		args = append(args, "-p", strconv.Itoa(q.Port))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %s: does a Match exec hang?", askTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(args, "--", q.Host)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = file, &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if text := strings.TrimSpace(errs.String()); text != "" {
			lines := slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool { return strings.Contains(s, "Pseudo-terminal") })
			return nil, errors.New(strings.Join(lines, "; "))
		}
		return nil, err
	}
	return parseAnswer(out.String()), nil
}

// parseAnswer reads the output of ssh -G.
func parseAnswer(text string) map[string][]string {
	answer := map[string][]string{}
	for l := range strings.Lines(text) {
		keyword, value, _ := strings.Cut(strings.TrimSuffix(l, "\n"), " ")
		if keyword = strings.ToLower(keyword); keyword == "" {
			continue
		}
		switch {
		case slices.Contains(listed, keyword):
			answer[keyword] = append(answer[keyword], strings.Fields(value)...)
		default:
			answer[keyword] = append(answer[keyword], value)
		}
	}
	return answer
}
