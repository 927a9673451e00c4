package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// question is asked before something that cannot be undone.
type question struct {
	text       string
	no         string // the error after a no
	noTerminal string // the error if there is no terminal
	hint       string // what to do then
}

// canAsk reports whether somebody can be asked.
func (a *app) canAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) && a.stderr.Terminal }

// confirm asks a question; any answer but yes is an error.
func (a *app) confirm(ctx context.Context, q question) error {
	if !a.canAsk() {
		return usage("%s", q.hint)(errors.New(q.noTerminal))
	}
	fmt.Fprint(a.stderr, q.text, " [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n') // end of file is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
		return &usageError{err: errors.New(q.no)}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
