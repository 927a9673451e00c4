package play

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/playbooks"
)

// takesItself reports whether a step is taken here and not by vsnode's Apply.
func takesItself(st *playbooks.Step) bool {
	switch st.Kind.Name {
	case playbooks.Assert, playbooks.Check:
		return true
	case playbooks.Stat:
		return st.Has("guest")
	}
	return false
}

// locally takes a step that is taken here; in a run that changes nothing, any step is:
// it is shown if it would change something.
func (t *taking) locally(ctx context.Context, st *playbooks.Step) (playbooks.Result, error) {
	switch st.Kind.Name {
	case playbooks.Assert:
		return playbooks.Result{}, t.assert(st)
	case playbooks.Check:
		return t.check(ctx, st)
	case playbooks.Stat:
		return t.stat(ctx, st)
	}
	// From here on, nothing is to be changed.
	steps, err := t.steps(ctx, st)
	if err != nil {
		return playbooks.Result{}, err
	}
	for _, s := range steps {
		s.Title = st.Title(&t.scope)
		would, err := t.would(ctx, &s)
		if err != nil {
			return playbooks.Result{}, err
		}
		if would {
			t.w.Record(s, api.StepResult{})
			t.notify(st)
		}
	}
	if st.Register != "" {
		t.unknown[st.Register] = true
	}
	return playbooks.Result{Skipped: true}, nil
}

// would reports whether a step would change the host.
func (t *taking) would(ctx context.Context, s *api.Step) (bool, error) {
	have := func() *api.GuestState {
		i := slices.IndexFunc(t.w.State().Guests, func(g api.GuestState) bool { return g.Name == s.Name })
		if i < 0 {
			return nil
		}
		return &t.w.State().Guests[i]
	}
	switch s.Kind {
	case api.StepWait:
		return false, nil
	case api.StepFiles:
		differs, err := t.compare(ctx, s)
		return differs, err
	case api.StepStart:
		g := have()
		return g == nil || g.Status != api.Running, nil
	case api.StepStop:
		g := have()
		return g != nil && g.Status == api.Running, nil
	case api.StepDelete:
		return have() != nil, nil
	case api.StepConfigure:
		g := have()
		return g != nil && report.SettingsDiff(&g.Guest, s.Guest) != "", nil
	}
	return true, nil
}

// compare asks how the files of a step differ from those that are there, and keeps
// that for the diff. A guest that is not there has none.
func (t *taking) compare(ctx context.Context, s *api.Step) (bool, error) {
	files := slices.Clone(s.Files)
	for i := range files {
		files[i].Content = nil
	}
	answer, err := t.w.Node().Files(ctx, api.FilesRequest{Contents: t.w.Diffs(), Guests: []api.GuestFiles{{Guest: s.Name, Files: files}}})
	if err != nil {
		return false, err
	}
	if len(answer.Guests) == 0 {
		return true, nil
	}
	if problem := answer.Guests[0].Problem; problem != "" {
		return false, errors.New(problem)
	}
	t.w.Show(answer)
	return len(answer.Guests[0].Files) > 0, nil
}

// guesses reports whether a step needs what only a run would give: a result, or a key
// that an earlier step brings.
func (t *taking) guesses(st *playbooks.Step) bool {
	if t.Check && st.Has("identity") {
		return true
	}
	for name, unknown := range t.unknown {
		if unknown && name != "" && st.Uses(name) {
			return true
		}
	}
	return false
}

// perhaps shows a step of which only a run knows whether it is taken.
func (t *taking) perhaps(st *playbooks.Step) bool {
	if st.Kind.Name != playbooks.Assert {
		t.w.Record(api.Step{Kind: api.StepKind(st.Kind.Name), Title: st.Title(&t.scope), Why: "it depends on what only a run gives"}, api.StepResult{})
	}
	if st.Register != "" {
		t.unknown[st.Register] = true
	}
	return true
}

func (t *taking) assert(st *playbooks.Step) error {
	ok, not, err := playbooks.All(st.Exprs("that"), &t.scope)
	if err != nil || ok {
		return err
	}
	message, err := st.Text("message", &t.scope)
	if err != nil {
		return err
	}
	return errors.New(cmp.Or(message, "not true: "+not.Source))
}

// check asks whether the host is able, or whether a key leads to it.
func (t *taking) check(ctx context.Context, st *playbooks.Step) (playbooks.Result, error) {
	if st.Has("identity") {
		identity, err := st.Text("identity", &t.scope)
		if err == nil {
			err = t.Reach(ctx, t.w.Host(), identity)
		}
		return playbooks.Result{Values: map[string]any{"able": err == nil}}, err
	}
	answer, err := t.w.Node().Check(ctx)
	if err != nil {
		return playbooks.Result{}, err
	}
	var lost []string
	able := true
	for _, row := range answer.Rows {
		if row.Verdict == api.No {
			lost = append(lost, row.Name)
			able = able && !row.Required
		}
	}
	result := playbooks.Result{Values: map[string]any{"able": able, "lost": strings.Join(lost, "\n")}}
	if !able {
		err = fmt.Errorf("the host is not able to run guests, it lacks %s: see vsfleet check", strings.Join(lost, ", "))
		result.Failed, result.Error = true, err.Error()
	}
	return result, err
}

// stat looks at a guest; in a run that changes nothing, at a file as well.
func (t *taking) stat(ctx context.Context, st *playbooks.Step) (playbooks.Result, error) {
	if !st.Has("guest") {
		steps, err := t.steps(ctx, st)
		if err != nil {
			return playbooks.Result{}, err
		}
		answer, err := t.w.Node().Apply(ctx, api.Apply{Run: "stat", Steps: steps, InOrder: true}, func(api.Event) {})
		switch {
		case err != nil:
			return playbooks.Result{}, err
		case answer.Results[0].Outcome == api.Failed:
			return playbooks.Result{}, errors.New(answer.Results[0].Error)
		}
		return resultOf(st, answer.Results[0]), nil
	}
	name, err := st.Text("guest", &t.scope)
	if err == nil {
		err = t.w.Refresh(ctx)
	}
	if err != nil {
		return playbooks.Result{}, err
	}
	values := map[string]any{}
	for _, g := range t.w.State().Guests {
		if g.Name == name {
			values = map[string]any{"exists": true, "running": g.Status == api.Running, "context": g.Context}
		}
	}
	return playbooks.Result{Values: values}, nil
}

// steps returns what vsnode has to do for a step.
func (t *taking) steps(ctx context.Context, st *playbooks.Step) ([]api.Step, error) {
	s := api.Step{}
	var err error
	if s.Name, err = st.In.In(&t.scope); err != nil {
		return nil, err
	}
	switch st.Kind.Name {
	case playbooks.Exec:
		s.Kind = api.StepExec
		s.Exec, err = t.command(st)
	case playbooks.Copy, playbooks.Template:
		s.Kind = api.StepFiles
		var file api.File
		file, err = t.file(st)
		s.Files = []api.File{file}
		if err == nil && t.w.Diffs() && !t.Check {
			_, err = t.compare(ctx, &s)
		}
	case playbooks.Wait:
		s.Kind = api.StepWait
		s.Wait, err = t.waits(st)
	case playbooks.Stat:
		s.Kind = api.StepStat
		s.Path, err = st.Text("path", &t.scope)
	case playbooks.Guest:
		return t.guestSteps(st)
	case playbooks.Network, playbooks.Limits:
		s, err = t.configure(ctx, st)
	default:
		err = fmt.Errorf("%s is not a step of a host", st.Kind.Name)
	}
	return []api.Step{s}, err
}

// command returns the command of a step.
func (t *taking) command(st *playbooks.Step) (*api.Command, error) {
	argv, err := st.Texts("command", &t.scope)
	if err == nil && argv == nil {
		var line string
		line, err = st.Text("shell", &t.scope)
		argv = []string{"/bin/sh", "-c", line}
	}
	if err != nil {
		return nil, err
	}
	if argv[0] == "" {
		return nil, errors.New("the command is empty")
	}
	c := &api.Command{Argv: bytesOf(argv)}
	if c.Creates, err = st.Text("creates", &t.scope); err != nil {
		return nil, err
	}
	if c.Removes, err = st.Text("removes", &t.scope); err != nil {
		return nil, err
	}
	stdin, err := st.Text("stdin", &t.scope)
	if err != nil {
		return nil, err
	}
	c.Stdin = []byte(stdin)
	env, err := st.Pairs("env", &t.scope)
	for _, pair := range env {
		c.Env = append(c.Env, []byte(pair[0]+"="+pair[1]))
	}
	if err == nil {
		c.Timeout, err = st.Duration("timeout", &t.scope)
	}
	return c, err
}

func bytesOf(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, text := range list {
		out[i] = []byte(text)
	}
	return out
}

// file returns the file of a copy or a template.
func (t *taking) file(st *playbooks.Step) (api.File, error) {
	f := api.File{Mode: 0o644, Owner: "root:root"}
	to, err := st.Text("to", &t.scope)
	if err != nil {
		return f, err
	}
	f.Path = to
	mode, err := st.Text("mode", &t.scope)
	if err != nil {
		return f, err
	}
	if mode != "" {
		n, err := strconv.ParseUint(mode, 8, 32)
		if err != nil {
			return f, err
		}
		f.Mode = uint32(n)
	}
	owner, err := st.Text("owner", &t.scope)
	if err != nil {
		return f, err
	}
	if owner != "" {
		f.Owner = owner
		if !strings.Contains(owner, ":") {
			f.Owner += ":" + owner
		}
	}
	// A file that only its owner may read is not meant for a screen.
	if f.Secret = f.Mode&0o044 == 0; st.Has("secret") {
		f.Secret = st.Flag("secret")
	}
	if f.Content, err = t.content(st); err != nil {
		return f, err
	}
	f.Digest = api.FileDigest(f.Content)
	return f, nil
}

func (t *taking) content(st *playbooks.Step) ([]byte, error) {
	if st.Has("content") {
		text, err := st.Text("content", &t.scope)
		return []byte(text), err
	}
	source, err := st.Text("source", &t.scope)
	if err != nil {
		return nil, err
	}
	source = sourcePath(st, source)
	data, err := t.Read(source)
	if err != nil {
		return nil, err
	}
	if st.Kind.Name == playbooks.Template {
		text, err := playbooks.Expand(string(data), source, &t.scope)
		if err != nil {
			return nil, err
		}
		data = []byte(text)
	}
	if len(data) > api.MaxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", source, api.MaxFile>>20)
	}
	return data, nil
}

// waits returns what a step waits for.
func (t *taking) waits(st *playbooks.Step) (w *api.Wait, err error) {
	w = &api.Wait{Absent: st.Flag("gone")}
	texts := map[string]string{}
	for _, param := range []string{"tcp", "port", "file"} {
		if texts[param], err = st.Text(param, &t.scope); err != nil {
			return nil, err
		}
	}
	w.TCP, w.File = texts["tcp"], texts["file"]
	if texts["port"] != "" {
		w.TCP = "127.0.0.1:" + texts["port"]
	}
	command, err := st.Texts("command", &t.scope)
	if err != nil {
		return nil, err
	}
	w.Command = bytesOf(command)
	if w.For, err = st.Duration("seconds", &t.scope); err != nil {
		return nil, err
	}
	w.Timeout, err = st.Duration("timeout", &t.scope)
	return w, err
}

var actions = map[string]api.StepKind{
	"start": api.StepStart, "stop": api.StepStop, "restart": api.StepRestart, "delete": api.StepDelete,
}

// guestSteps returns a step for each guest of the host that a step names.
func (t *taking) guestSteps(st *playbooks.Step) ([]api.Step, error) {
	pattern, err := st.Text("name", &t.scope)
	if err != nil {
		return nil, err
	}
	kind := actions[st.Raw("do")]
	if !strings.ContainsAny(pattern, "*?[") {
		return []api.Step{{Kind: kind, Name: pattern}}, nil
	}
	var steps []api.Step
	for _, g := range t.w.State().Guests {
		ok, err := path.Match(pattern, g.Name)
		if err != nil {
			return nil, fmt.Errorf("guest %q: %w", pattern, err)
		}
		if ok {
			steps = append(steps, api.Step{Kind: kind, Name: g.Name})
		}
	}
	return steps, nil
}

// configure returns the step that changes some settings of a guest.
func (t *taking) configure(ctx context.Context, st *playbooks.Step) (s api.Step, err error) {
	name, err := st.Text("guest", &t.scope)
	if err == nil {
		err = t.w.Refresh(ctx)
	}
	if err != nil {
		return s, err
	}
	state := t.w.State()
	i := slices.IndexFunc(state.Guests, func(g api.GuestState) bool { return g.Name == name })
	if i < 0 {
		return s, fmt.Errorf("the host has no guest %s", name)
	}
	g := state.Guests[i].Guest
	block := "limits."
	if st.Kind.Name == playbooks.Network {
		block = "network."
	}
	for _, param := range st.Kind.Params {
		at := slices.IndexFunc(setting.Table, func(r *setting.Row) bool { return r.Key == block+param.Name })
		if at < 0 || !st.Has(param.Name) {
			continue
		}
		row := setting.Table[at]
		values, err := st.Texts(param.Name, &t.scope)
		if err != nil {
			return s, err
		}
		if param.Form == playbooks.OneText {
			value, err := st.Text(param.Name, &t.scope)
			if err != nil {
				return s, err
			}
			values = []string{value}
		} else {
			row.Assign(&g, &api.Guest{}) // the list begins empty
		}
		for _, value := range values {
			if err := row.Parse(&g, value); err != nil {
				return s, fmt.Errorf("%s: %w", param.Name, err)
			}
		}
	}
	if err := g.Check(); err != nil {
		return s, err
	}
	return api.Step{Kind: api.StepConfigure, Name: name, Guest: &g}, nil
}
