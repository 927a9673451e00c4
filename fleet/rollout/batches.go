package rollout

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
)

// group is a batch of a run.
type group struct {
	report.Batch
	hosts []*host
}

// rollOut takes the hosts of a run along a road, in batches as the strategy says. The
// error is that of confirm.
func (r *run) rollOut(ctx context.Context, road []state) error {
	strategy := r.Strategy
	if r.reason == "" {
		return r.take(ctx, r.hosts, road)
	}
	r.rule = newRule(r)
	if len(strategy.Serial)+len(strategy.Canary) > 0 && r.survey != nil {
		r.surveying = true
		err := r.take(ctx, r.hosts, r.survey)
		r.surveying, r.surveyed = false, true
		if err != nil {
			return err
		}
	}
	groups := r.cut()
	r.rule.judgeCanaries(r.hosts)
	for i, g := range groups {
		if i == 0 && !g.Canary {
			r.withoutCanary(ctx, g)
		} else if i > 0 {
			r.between(ctx, g)
		}
		if r.ends(ctx) {
			break
		}
		if err := r.takeGroup(ctx, g, road, len(groups) > 1); err != nil {
			return err
		}
	}
	return r.retry(ctx, road, len(groups) > 1, func() []*host { return r.hosts })
}

// ends reports whether no more hosts are begun.
func (r *run) ends(ctx context.Context) bool { return ctx.Err() != nil || r.rule.stopped() != nil }

// cut cuts the hosts that have not ended into batches.
func (r *run) cut() []group {
	var canaries, rest []*host
	for _, h := range r.hosts {
		switch {
		case slices.Contains(r.Strategy.Canary, h.want):
			h.canary = true
			if h.again {
				h.reset()
			}
			if h.outcome == "" {
				canaries = append(canaries, h)
			}
		case h.outcome == "":
			rest = append(rest, h)
		}
	}
	var groups []group
	if len(canaries) > 0 {
		groups = append(groups, group{Batch: report.Batch{Canary: true}, hosts: canaries})
	}
	for _, n := range batch.Cut(len(rest), r.Strategy.Serial) {
		groups = append(groups, group{hosts: rest[:n]})
		rest = rest[n:]
	}
	for i := range groups {
		g := &groups[i]
		g.Number, g.Of = i+1, len(groups)
		g.Hosts = names(g.hosts)
	}
	return groups
}

func names(hosts []*host) []string {
	var list []string
	for _, h := range hosts {
		list = append(list, h.name)
	}
	return list
}

// between waits until the next batch may begin, or has the run stop before it.
func (r *run) between(ctx context.Context, next group) {
	if r.ends(ctx) {
		return
	}
	if pause := r.Strategy.Pause; pause > 0 {
		r.watch(report.Event{Kind: report.Progress, Batch: &next.Batch, Message: fmt.Sprintf("%s of %d begins in %s", next, len(next.hosts), pause)})
		if !sleep(ctx, pause) {
			return
		}
	}
	r.ask(ctx, next)
}

// withoutCanary warns if the canaries have nothing to change, so that they prove nothing
// for the others.
func (r *run) withoutCanary(ctx context.Context, first group) {
	idle := slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return !h.canary || h.outcome != outcome.OK })
	if len(idle) == 0 || r.ends(ctx) {
		return
	}
	r.watch(report.Event{Kind: report.Progress, Batch: &first.Batch, Message: fmt.Sprintf("the canary %s has nothing to change: no host is changed before the others", nodeset.Fold(names(idle)))})
	r.ask(ctx, first)
}

// ask has somebody decide whether a batch begins.
func (r *run) ask(ctx context.Context, next group) {
	if r.Strategy.Ask == nil {
		return
	}
	if err := r.Strategy.Ask(ctx, next.Batch); err != nil && ctx.Err() == nil {
		r.rule.stop(err.Error())
	}
}

// takeGroup takes the hosts of one batch along a road. Hosts that were lost on the way
// are tried again before the batch ends; canaries that could not be reached, too.
func (r *run) takeGroup(ctx context.Context, g group, road []state, oneOfMany bool) error {
	if oneOfMany {
		r.batches = append(r.batches, g.Batch)
		for _, h := range g.hosts {
			h.batch = g.Number
		}
		r.watch(report.Event{Kind: report.BatchBegun, Batch: &g.Batch, Message: fmt.Sprintf("%s: %s", g, nodeset.Fold(g.Hosts))})
	}
	err := r.take(ctx, g.hosts, road)
	if !oneOfMany || err != nil {
		return err
	}
	err = r.retry(ctx, road, false, func() []*host {
		if g.Canary {
			return g.hosts
		}
		return slices.DeleteFunc(slices.Clone(g.hosts), func(h *host) bool { return h.outcome == outcome.Unreachable })
	})
	r.watch(report.Event{Kind: report.BatchDone, Batch: &g.Batch, Message: fmt.Sprintf("%s: %s", g, counts(g.hosts))})
	if g.Canary && err == nil {
		r.rule.judgeCanaries(r.hosts)
	}
	return err
}

// counts returns how many hosts have which outcome, as "changed 3, failed 1".
func counts(hosts []*host) string {
	var parts []string
	for _, o := range outcome.All() {
		n := 0
		for _, h := range hosts {
			if h.outcome == o {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", o, n))
		}
	}
	return strings.Join(parts, ", ")
}

// retry takes those of some hosts along the road again that are to be tried again,
// until there are none. asBatch makes each try a batch of the report.
func (r *run) retry(ctx context.Context, road []state, asBatch bool, among func() []*host) error {
	for {
		again := slices.DeleteFunc(slices.Clone(among()), func(h *host) bool { return !h.again })
		if len(again) == 0 || r.ends(ctx) {
			return nil
		}
		tries := again[0].tries + 1
		wait := backoff(tries)
		r.watch(report.Event{Kind: report.Progress, Message: fmt.Sprintf("trying again in %s: %s", wait.Round(time.Second), nodeset.Fold(names(again)))})
		if !sleep(ctx, wait) {
			return nil
		}
		for _, h := range again {
			h.reset()
		}
		var b report.Batch
		if asBatch {
			b = report.Batch{Number: len(r.batches) + 1, Of: len(r.batches) + 1, Retry: tries, Hosts: names(again)}
			r.batches = append(r.batches, b)
			r.watch(report.Event{Kind: report.BatchBegun, Batch: &b, Message: fmt.Sprintf("%s: %s", b, nodeset.Fold(b.Hosts))})
		}
		if err := r.take(ctx, again, road); err != nil {
			return err
		}
		if asBatch {
			r.watch(report.Event{Kind: report.BatchDone, Batch: &b, Message: fmt.Sprintf("%s: %s", b, counts(again))})
		}
	}
}

// firstBackoff is the time before a host is tried again for the first time. It doubles
// with each further try.
var firstBackoff = 2 * time.Second

const longestBackoff = time.Minute

// backoff returns the time before a try. It varies, so that controllers which lost a
// host together do not come back together.
func backoff(try int) time.Duration {
	wait := min(firstBackoff<<min(try-1, 10), longestBackoff)
	return wait + rand.N(wait/2+1)
}

// sleep waits, and reports whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// endRest ends the hosts that would have been tried again, and those whose turn did not
// come: because the run has stopped, or because of err or an interrupt.
func (r *run) endRest(err error) {
	o := outcome.NotStarted
	if err == nil && r.rule != nil && r.rule.stopped() != nil {
		o, err = outcome.Stopped, r.rule.stopped()
	}
	for _, h := range r.hosts {
		switch {
		case h.again:
			h.again = false
			r.ended(h)
		case h.outcome == "":
			h.err = err
			r.done(h, o)
		}
	}
}

// helpers returns hosts that build images for the hosts of a batch without being in it
// themselves: the inventory lets only them build. In the report they are in a batch of
// their own.
func (r *run) helpers(hosts []*host) []*host {
	if !r.surveyed {
		return nil
	}
	var list []*host
	for _, b := range plan.Builders(compared(hosts)) {
		in := slices.ContainsFunc(hosts, func(h *host) bool { return h.want == b })
		known := slices.ContainsFunc(r.hosts, func(h *host) bool { return h.want == b && h.outcome != outcome.Unreachable })
		if !in && known {
			h := newHost(b)
			h.helper = true
			list = append(list, h)
		}
	}
	return list
}

// holders returns hosts of other batches that have images which this one needs, as far
// as is known, a few for each; and whether there are some for each.
func (r *run) holders(missing []plan.Image) (list []*inventory.Host, all bool) {
	all = true
	for _, m := range missing {
		if !m.Wanted() {
			continue
		}
		found := 0
		for _, h := range r.hosts {
			if found < exportsAtOnce && !slices.Contains(r.at, h) && h.outcome != outcome.Unreachable && m.HeldBy(h.state) {
				if found++; !slices.Contains(list, h.want) {
					list = append(list, h.want)
				}
			}
		}
		all = all && found > 0
	}
	return list, all
}
