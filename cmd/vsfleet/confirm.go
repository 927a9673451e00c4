package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
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
	answer, err := a.ask(ctx, q.text+" [y/N]")
	switch {
	case err != nil:
		return err
	case answer != "y" && answer != "yes":
		return &usageError{err: errors.New(q.no)}
	}
	return nil
}

// ask asks on the terminal, and returns the answer in lower case.
func (a *app) ask(ctx context.Context, text string) (string, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !a.stderr.Terminal {
		return "", &usageError{err: errors.New("there is no terminal to ask")}
	}
	fmt.Fprint(a.stderr, text, " ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n') // end of file is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		return line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// fewDeletes is how many guests apply deletes without asking, as the inventory wants
// it. More may come from a group or a pattern that covers more than was meant.
const fewDeletes = 10

// confirmChanges asks before guests are deleted that the inventory lacks, or many, and
// before hosts of protected groups are changed, or many.
func (a *app) confirmChanges(ctx context.Context, inv *inventory.Inventory, c rollout.Changes, prune bool) error {
	var what []string
	if n := len(c.Hosts); a.confirmHosts > 0 && n > a.confirmHosts {
		what = append(what, fmt.Sprintf("change %d hosts", n))
	}
	for _, g := range inv.Groups {
		if g.Protected {
			names := slices.DeleteFunc(slices.Clone(c.Hosts), func(name string) bool {
				return !slices.ContainsFunc(g.Hosts, func(h *inventory.Host) bool { return h.Name == name })
			})
			if len(names) > 0 {
				what = append(what, fmt.Sprintf("change %s of the protected group %s", view.Clean(nodeset.Fold(names)), g.Name))
			}
		}
	}
	if n := len(c.Deletes); prune && n > 0 || n > fewDeletes {
		why := "because the inventory says so (state: absent)"
		if prune {
			why = "because the inventory lacks them or says absent"
		}
		what = append(what, fmt.Sprintf("delete %s, including all data, %s (%s)", view.Count(n, "guest"), why, view.Clean(nodeset.Fold(c.Deletes))))
	}
	if len(what) == 0 {
		return nil
	}
	all := strings.Join(what, ", ")
	return a.confirm(ctx, question{
		text:       strings.ToUpper(all[:1]) + all[1:] + "?",
		no:         "nothing was changed",
		noTerminal: "it would " + all + ", and there is no terminal to ask",
		hint:       "to do it: --yes",
	})
}

// confirmAction asks before an action on guests of protected hosts, or of many hosts.
func (a *app) confirmAction(ctx context.Context, guests []inventory.Instance) error {
	var c rollout.Changes
	for _, h := range rollout.Hosts(guests) {
		c.Hosts = append(c.Hosts, h.Name)
	}
	return a.confirmChanges(ctx, a.loaded, c, false)
}
