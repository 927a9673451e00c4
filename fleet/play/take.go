package play

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/playbooks"
)

// taking takes steps on one host. Steps that need nothing of each other are collected,
// and sent in one request.
type taking struct {
	*performance
	*actor
	w       *rollout.Worker
	pending []pending
}

// pending is a step of vsnode's that is to be sent.
type pending struct {
	of   *playbooks.Step
	step rollout.Taking
	item item
	all  *gathered
	loop *loop // nil: the step is not repeated
}

// gathered is the result of a step that is several of vsnode's.
type gathered struct {
	left int
	sum  playbooks.Result
}

// item is what a step is repeated for.
type item struct{ name, value string }

// loop collects the results of a repeated step.
type loop struct {
	results []playbooks.Result
	items   int
}

// step takes a step, or puts it among the pending ones. It reports whether the host
// goes on.
func (t *taking) step(ctx context.Context, st *playbooks.Step) bool {
	if t.needs(st) && !t.flush(ctx) {
		return false
	}
	if t.guesses(st) {
		return t.perhaps(st)
	}
	once, each := st.Conditions()
	if takes, ok := t.when(st, once, nil); !takes {
		return ok
	}
	items, err := t.items(st)
	if err != nil {
		return t.fail(st, err)
	}
	var together *loop
	if st.Loop != nil {
		together = &loop{items: len(items)}
		if len(items) == 0 {
			t.keepLoop(st, together)
		}
	}
	defer t.leave()
	for _, it := range items {
		t.enter(st, it)
		takes, ok := t.when(st, each, together)
		if !ok || takes && !t.one(ctx, st, it, together) {
			return false
		}
	}
	return true
}

// one takes a step for one item.
func (t *taking) one(ctx context.Context, st *playbooks.Step, it item, of *loop) bool {
	if takesItself(st) || t.Check {
		if !t.flush(ctx) {
			return false
		}
		result, err := t.locally(ctx, st)
		if err != nil && !st.IgnoreErrors {
			return t.fail(st, err)
		}
		if takesItself(st) && (!t.Check || err != nil) {
			r := api.StepResult{Outcome: api.Unchanged}
			if err != nil {
				r.Error = ignored + err.Error()
			}
			t.w.Record(api.Step{Kind: api.StepKind(st.Kind.Name), Title: st.Title(&t.scope)}, r)
		}
		t.note(st, result, of)
		return true
	}
	steps, err := t.steps(ctx, st)
	if err != nil {
		return t.flush(ctx) && t.fail(st, err)
	}
	all := &gathered{left: len(steps)}
	for _, s := range steps {
		s.Title, s.Tolerated = st.Title(&t.scope), st.IgnoreErrors
		t.pending = append(t.pending, pending{st, rollout.Taking{Step: s}, it, all, of})
	}
	if len(steps) == 0 {
		t.note(st, playbooks.Result{}, of)
		return true
	}
	if st.Until != nil {
		return t.until(ctx, st)
	}
	if st.ChangedWhen != nil || st.FailedWhen != nil || size(t.pending) > maxRequest {
		return t.flush(ctx)
	}
	return true
}

// maxRequest is how many bytes of files are sent in one request; with the last file it
// stays below wire.MaxMessage in base64.
const maxRequest = 4 << 20

func size(list []pending) (n int) {
	for _, p := range list {
		for _, f := range p.step.Files {
			n += len(f.Content)
		}
		if p.step.Exec != nil {
			n += len(p.step.Exec.Stdin)
		}
	}
	return n
}

// needs reports whether a step needs a result of a pending one, or the state of the
// host after it.
func (t *taking) needs(st *playbooks.Step) bool {
	if len(t.pending) == 0 {
		return false
	}
	switch st.Kind.Name {
	case playbooks.Network, playbooks.Limits:
		return true
	case playbooks.Guest:
		if name := st.Raw("name"); strings.ContainsAny(name, "*?[$") {
			return true
		}
	}
	return slices.ContainsFunc(t.pending, func(p pending) bool {
		return (p.step.Known == nil || p.loop != nil) && p.of.Register != "" && st.Uses(p.of.Register)
	})
}

// flush sends the pending steps, and reports whether the host goes on.
func (t *taking) flush(ctx context.Context) bool {
	list := t.pending
	t.pending = nil
	if len(list) == 0 {
		return true
	}
	// A step may be in the middle of its loop.
	at := item{t.scope.Item, t.scope.Value}
	looping := t.scope.Looping
	defer func() { t.scope.Looping, t.scope.Item, t.scope.Value = looping, at.name, at.value }()
	steps := make([]rollout.Taking, len(list))
	for i, p := range list {
		steps[i] = p.step
	}
	good := true
	results := t.w.Take(ctx, steps, func(i int, r api.StepResult) api.StepResult {
		if r.Outcome == api.Skipped {
			return r
		}
		t.enter(list[i].of, list[i].item)
		defer t.leave()
		judged, err := t.judge(list[i].of, r)
		if err != nil {
			judged.Outcome, judged.Error = api.Failed, err.Error()
		}
		return judged
	})
	for i, r := range results {
		switch {
		case list[i].step.Known != nil:
			if list[i].loop != nil {
				t.note(list[i].of, playbooks.Result{Skipped: true}, list[i].loop)
			}
		case r.Outcome == api.Failed, r.Outcome == api.Skipped:
			good = false
		default:
			p := list[i]
			result := resultOf(p.of, r)
			result.Changed, result.Failed = result.Changed || p.all.sum.Changed, result.Failed || p.all.sum.Failed
			if p.all.sum = result; p.all.left == 1 {
				t.note(p.of, result, p.loop)
			}
			p.all.left--
		}
	}
	return good && !t.w.Broken()
}

// judge returns the result of a step as its failed_when, changed_when and ignore_errors
// have it.
func (t *taking) judge(st *playbooks.Step, r api.StepResult) (api.StepResult, error) {
	sc := t.with(st, resultOf(st, r))
	if st.FailedWhen != nil && (r.Outcome != api.Failed || r.Ran != nil) {
		failed, _, err := playbooks.All(st.FailedWhen, sc)
		switch {
		case err != nil:
			return r, err
		case failed && r.Outcome != api.Failed:
			r.Outcome, r.Error = api.Failed, "failed_when: "+st.FailedWhen[0].Source
		case !failed && r.Outcome == api.Failed:
			r.Outcome, r.Error = api.Changed, ""
		}
	}
	if st.ChangedWhen != nil && r.Outcome != api.Failed {
		changed, _, err := playbooks.All(st.ChangedWhen, sc)
		if err != nil {
			return r, err
		}
		r.Outcome = api.Unchanged
		if changed {
			r.Outcome = api.Changed
		}
	}
	if r.Outcome == api.Failed && st.IgnoreErrors {
		r.Outcome, r.Error = api.Unchanged, ignored+r.Error
		if r.Ran != nil {
			r.Outcome = api.Changed
		}
	}
	return r, nil
}

// with returns the scope with the result of the step at hand.
func (t *taking) with(st *playbooks.Step, r playbooks.Result) *playbooks.Scope {
	sc := t.scope
	sc.Registers = maps.Clone(sc.Registers)
	sc.Register("result", st.Kind, false, r)
	if st.Register != "" {
		sc.Register(st.Register, st.Kind, false, r)
	}
	return &sc
}

// until repeats the last pending step until its conditions hold.
func (t *taking) until(ctx context.Context, st *playbooks.Step) bool {
	last := t.pending[len(t.pending)-1]
	t.pending = t.pending[:len(t.pending)-1]
	if !t.flush(ctx) {
		return false
	}
	for try := 0; ; try++ {
		var holds bool
		var fault error
		results := t.w.Take(ctx, []rollout.Taking{last.step}, func(_ int, r api.StepResult) api.StepResult {
			if r.Outcome == api.Skipped {
				return r
			}
			sc := t.with(st, resultOf(st, r))
			holds, _, fault = playbooks.All(st.Until.That, sc)
			switch {
			case fault != nil:
				r.Outcome, r.Error = api.Failed, fault.Error()
			case !holds && try >= st.Until.Retries:
				r.Outcome, r.Error = api.Failed, fmt.Sprintf("not true after %d tries: %s", try+1, st.Until.That[0].Source)
			case holds && r.Outcome == api.Failed && r.Ran != nil:
				r.Outcome, r.Error = api.Changed, ""
			case !holds && r.Outcome == api.Failed && r.Ran != nil:
				r.Outcome, r.Error = api.Unchanged, ""
			}
			if r.Outcome != api.Failed || fault == nil {
				var err error
				if r, err = t.judge(st, r); err != nil {
					r.Outcome, r.Error = api.Failed, err.Error()
				}
			}
			return r
		})
		r := results[0]
		if t.w.Broken() || r.Outcome == api.Failed || r.Outcome == api.Skipped {
			return false
		}
		if holds || try >= st.Until.Retries {
			t.note(st, resultOf(st, r), last.loop)
			return true
		}
		t.w.Drop()
		select {
		case <-time.After(st.Until.Delay):
		case <-ctx.Done():
			return t.interrupted(st)
		}
	}
}

func (t *taking) interrupted(st *playbooks.Step) bool {
	t.w.Record(api.Step{Kind: api.StepKind(st.Kind.Name), Title: st.Title(&t.scope)}, api.StepResult{Outcome: api.Skipped, Error: "interrupted"})
	return false
}

// fail records that a step failed before it was sent.
func (t *taking) fail(st *playbooks.Step, err error) bool {
	t.w.Record(api.Step{Kind: api.StepKind(st.Kind.Name), Title: st.Title(&t.scope)}, api.StepResult{Outcome: api.Failed, Error: err.Error()})
	t.leave()
	return false
}

// when reports whether conditions of a step, or of one item of its loop, are true; go on
// is false after an error.
func (t *taking) when(st *playbooks.Step, conditions []*playbooks.Expr, of *loop) (takes, goOn bool) {
	ok, not, err := playbooks.All(conditions, &t.scope)
	if err != nil {
		return false, t.fail(st, fmt.Errorf("when: %w", err))
	}
	if !ok {
		if !t.Check {
			s := api.Step{Kind: api.StepKind(st.Kind.Name), Title: st.Title(&t.scope), Why: "skipped: not true: " + not.Source}
			t.pending = append(t.pending, pending{of: st, step: rollout.Taking{Step: s, Known: &api.StepResult{Outcome: api.Unchanged}}, loop: of})
		}
		switch {
		case of == nil:
			t.keep(st, playbooks.Result{Skipped: true})
		case t.Check: // nothing is pending; else it is noted in its turn
			t.note(st, playbooks.Result{Skipped: true}, of)
		}
	}
	return ok, true
}

// items returns what a step is repeated for; without a loop, one item.
func (t *taking) items(st *playbooks.Step) ([]item, error) {
	if st.Loop == nil {
		return []item{{}}, nil
	}
	l := st.Loop
	var list []item
	matching := func(pattern *playbooks.Text, names []string, value func(string) string) error {
		glob, err := pattern.In(&t.scope)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			ok, err := path.Match(glob, name)
			if err != nil {
				return fmt.Errorf("loop: %q: %w", glob, err)
			}
			if ok {
				list = append(list, item{name, value(name)})
			}
		}
		return nil
	}
	switch {
	case l.Guests != nil:
		err := matching(l.Guests, t.guestNames(), func(string) string { return "" })
		return list, err
	case l.Labels != nil:
		own := t.w.Host().Labels
		err := matching(l.Labels, slices.Collect(maps.Keys(own)), func(name string) string { return own[name] })
		return list, err
	case l.List != nil:
		texts, err := l.List.List(&t.scope)
		for _, text := range texts {
			list = append(list, item{name: text})
		}
		return list, err
	}
	for i := range l.Items {
		text, err := l.Items[i].In(&t.scope)
		if err != nil {
			return nil, err
		}
		list = append(list, item{name: text})
	}
	return list, nil
}

// guestNames returns the names of all guests of the host, in the inventory and on it.
func (t *taking) guestNames() []string {
	var names []string
	for _, g := range t.w.Host().Guests {
		names = append(names, g.Name)
	}
	for _, g := range t.w.State().Guests {
		names = append(names, g.Name)
	}
	return names
}

func (t *taking) enter(st *playbooks.Step, it item) {
	t.scope.Looping, t.scope.Item, t.scope.Value = st.Loop != nil, it.name, it.value
}

func (t *taking) leave() { t.scope.Looping, t.scope.Item, t.scope.Value = false, "", "" }

// note keeps what came of a step, and of a loop when it is complete.
func (t *taking) note(st *playbooks.Step, r playbooks.Result, of *loop) {
	if of == nil {
		t.keep(st, r)
		return
	}
	of.results = append(of.results, r)
	if r.Changed {
		t.notify(st)
	}
	if len(of.results) >= of.items {
		t.keepLoop(st, of)
	}
}

func (t *taking) keepLoop(st *playbooks.Step, of *loop) {
	all := playbooks.Result{Results: of.results}
	for _, r := range of.results {
		all.Changed, all.Failed = all.Changed || r.Changed, all.Failed || r.Failed
	}
	if st.Register != "" {
		t.scope.Register(st.Register, st.Kind, true, all)
	}
}

// keep keeps the result of a step.
func (a *actor) keep(st *playbooks.Step, r playbooks.Result) {
	if r.Changed {
		a.notify(st)
	}
	if st.Register != "" {
		a.scope.Register(st.Register, st.Kind, st.Loop != nil, r)
	}
}

func (a *actor) notify(st *playbooks.Step) {
	for _, handler := range st.Notify {
		a.notified[handler.Value] = true
	}
}

// ignored begins the error of a step that failed and whose errors are ignored.
const ignored = rollout.Ignored

// resultOf returns the result of a step of vsnode's as playbooks see it.
func resultOf(st *playbooks.Step, r api.StepResult) playbooks.Result {
	out := playbooks.Result{
		Changed: r.Outcome == api.Changed, Failed: r.Outcome == api.Failed || strings.HasPrefix(r.Error, ignored), Error: r.Error,
		Values: map[string]any{},
	}
	if ran := r.Ran; ran != nil {
		out.Values["rc"] = ran.Status
		out.Values["stdout"] = strings.TrimRight(strings.ToValidUTF8(string(ran.Stdout), "\uFFFD"), "\n")
		out.Values["stderr"] = strings.TrimRight(strings.ToValidUTF8(string(ran.Stderr), "\uFFFD"), "\n")
	} else if st.Kind.Name == playbooks.Exec && r.Outcome == api.Unchanged {
		out.Values["rc"] = 0 // there was nothing to do
	}
	if f := r.File; f != nil {
		maps.Copy(out.Values, map[string]any{
			"exists": f.Exists, "kind": f.Kind, "size": int(f.Bytes), "mode": fmt.Sprintf("%04o", f.Mode),
			"uid": f.UID, "gid": f.GID, "digest": f.Digest,
		})
	}
	return out
}
