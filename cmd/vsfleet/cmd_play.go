package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/play"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/playbooks"
)

// playOptions are the flags of play.
type playOptions struct {
	vars, tags, skip []string
	startAt, show    string
	check, diff, yes bool
	list, listHosts  bool
	schema, oneByOne bool
}

func (a *app) playCommand() *cobra.Command {
	var o playOptions
	var strategy *strategyFlags
	cmd := &cobra.Command{
		Use:   "play PLAYBOOK",
		Short: "Carry out a playbook: ordered steps on hosts",
		Long: `Play carries out the plays of a playbook one after the other, each on its own hosts and
in its own batches. PLAYBOOK is a file, or the name of a playbook that comes with
vsfleet: see vsfleet play --list.

A playbook is validated as a whole before any host is asked. A host that fails is left out
from then on; the others go on, unless the strategy of the play stops them.

After the first Ctrl-C no further steps are started. A command under way has
20 seconds to end by itself.`,
		Example: `  vsfleet play --list                        playbooks that come with vsfleet
  vsfleet play --show provision              one of them, to read or to copy
  vsfleet play provision -l web01 -C -D      what it would change
  vsfleet play site.yml -e release=2.4 -t web
  vsfleet play site.yml --list               its steps, with tags and hosts
  vsfleet play site.yml --start-at 'restart nginx' --step`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, s := range playbooks.AllShipped() {
				names = append(names, s.Name+"\t"+s.About)
			}
			return names, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.play(cmd.Context(), args, o, strategy) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.vars, "extra-vars", "e", nil, "set a variable of the playbook, overriding all others: `NAME=VALUE`")
	f.StringSliceVarP(&o.tags, "tags", "t", nil, "only take steps with one of these `tags`")
	f.StringSliceVar(&o.skip, "skip-tags", nil, "leave out steps with one of these `tags`")
	f.StringVar(&o.startAt, "start-at", "", "begin with the step of this `name`")
	f.StringVar(&o.startAt, "start-at-task", "", "alias of --start-at, as in Ansible")
	f.BoolVar(&o.oneByOne, "step", false, "ask before each step")
	checkFlag(f, &o.check, "show what would change, and change nothing")
	f.BoolVarP(&o.diff, "diff", "D", false, "show what was changed, with the lines of files")
	f.BoolVarP(&o.yes, "yes", "y", false, "answer the playbook's questions with yes")
	f.BoolVar(&o.list, "list", false, "list the steps of PLAYBOOK; without it, the playbooks that come with vsfleet")
	f.BoolVar(&o.list, "list-tasks", false, "alias of --list, as in Ansible")
	f.BoolVar(&o.listHosts, "list-hosts", false, "list the hosts of PLAYBOOK")
	f.StringVar(&o.show, "show", "", "print the playbook of this `name` that comes with vsfleet")
	f.BoolVar(&o.schema, "schema", false, "print the JSON Schema of playbooks, for editors")
	must(f.MarkHidden("start-at-task"))
	must(f.MarkHidden("list-tasks"))
	a.changesGuests(cmd)
	strategy = a.strategy(cmd)
	strategy.opts.OwnBatches = true
	return cmd
}

func (a *app) play(ctx context.Context, args []string, o playOptions, strategy *strategyFlags) error {
	switch {
	case o.schema:
		_, err := a.stdout.Write(playbooks.Schema())
		return err
	case o.show != "":
		shipped, err := playbooks.FindShipped(o.show)
		if err == nil {
			_, err = a.stdout.Write([]byte(shipped.Text))
		}
		return err
	case len(args) == 0 && o.list:
		return show(a, report.PlaybookRecords(playbooks.AllShipped()), view.PlaybookTable)
	case len(args) == 0:
		return usage("vsfleet play --list shows those that come with vsfleet")(errors.New("no playbook is given"))
	}
	if o.oneByOne && !o.list && !o.listHosts && !a.canAsk() {
		return usage("leave out --step, or run it on a terminal")(errors.New("--step asks before each step, and there is no terminal to ask"))
	}
	inv, among, err := a.selectHosts(ctx)
	if err != nil {
		return err
	}
	book, err := fleet.LoadPlaybook(args[0], inv, o.vars)
	if err == nil {
		book, err = book.Select(playbooks.Selection{Tags: o.tags, Skip: o.skip, StartAt: o.startAt})
	}
	if err != nil {
		return err
	}
	hosts, err := play.Hosts(book, inv, among)
	if err != nil {
		return &usageError{err: err}
	}
	if o.list || o.listHosts {
		return a.listPlay(book, inv, among, hosts, o)
	}
	if err := a.verify(ctx, hosts); err != nil {
		return err
	}
	if !o.check && !o.yes {
		if err := a.confirmChanges(ctx, inv, rollout.Changes{Hosts: names(hosts)}, false); err != nil {
			return err
		}
	}
	return a.perform(ctx, book, inv, among, len(hosts), o, strategy)
}

// listPlay lists the steps or the hosts of a playbook.
func (a *app) listPlay(book *playbooks.Book, inv *inventory.Inventory, among, hosts []*inventory.Host, o playOptions) error {
	of := func(p *playbooks.Play) []string {
		list, _ := play.Hosts(&playbooks.Book{Plays: []*playbooks.Play{p}}, inv, among) // none: the play is left out
		return names(list)
	}
	if o.listHosts {
		return show(a, report.PlayHostRecords(names(hosts), book, of), view.PlayHostTable)
	}
	return show(a, report.PlayStepRecords(book, of), view.PlayStepTable)
}

func names(hosts []*inventory.Host) []string {
	list := make([]string, len(hosts))
	for i, h := range hosts {
		list[i] = h.Name
	}
	return list
}

// perform carries out a playbook and reports the result.
func (a *app) perform(ctx context.Context, book *playbooks.Book, inv *inventory.Inventory, among []*inventory.Host, hosts int, o playOptions, strategy *strategyFlags) error {
	progress := a.progress(hosts)
	if o.check {
		progress = a.asking(hosts)
	}
	player := a.access.Player(inv, among, a.forks, progress.Watch)
	player.Fleet.Diff, player.Check = o.diff, o.check
	var err error
	if player.Fleet.Strategy, err = strategy.of(a, among, progress); err != nil {
		progress.Close()
		return err
	}
	player.Ask = func(ctx context.Context, text string) error { return a.playQuestion(ctx, progress, text, o.yes) }
	if o.oneByOne {
		player.Step = a.stepQuestion(progress)
	}
	run, err := player.Play(ctx, book)
	progress.Close()
	if err != nil {
		return err
	}
	if o.check || o.diff || a.output != view.AsTable {
		if err := view.Played(a.stdout, a.output, run); err != nil {
			return err
		}
	}
	if !o.check {
		return a.recap(ctx, run)
	}
	if !a.quiet {
		view.Notes(a.stderr, run.Hosts)
	}
	return a.exit(ctx, run.Hosts)
}

func (a *app) playQuestion(ctx context.Context, p *view.Progress, text string, yes bool) error {
	if yes {
		return nil
	}
	return p.Around(func() error {
		return a.confirm(ctx, question{
			text: view.Clean(text), no: "the answer was no: " + text,
			noTerminal: "there is no terminal to ask: " + text, hint: "to answer yes: --yes",
		})
	})
}

// stepQuestion asks before each step. The answer c is yes for all that follow, q ends
// the run.
func (a *app) stepQuestion(p *view.Progress) func(context.Context, string, []string) (bool, error) {
	all := false
	return func(ctx context.Context, title string, hosts []string) (yes bool, err error) {
		if all {
			return true, nil
		}
		err = p.Around(func() error {
			answer, err := a.ask(ctx, fmt.Sprintf("Take step %q on %s? y: yes, n: skip it, c: yes, and all that follow, q: end the run [y/N/c/q]",
				view.Clean(title), view.Clean(nodeset.Fold(hosts))))
			switch answer {
			case "y", "yes":
				yes = true
			case "c", "continue":
				yes, all = true, true
			case "q", "quit":
				return fmt.Errorf("ended before step %q: the answer was q", title)
			}
			return err
		})
		return yes, err
	}
}
