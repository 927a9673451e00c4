package play

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/playbooks"
)

// fakeHost is a host in memory that takes steps of playbooks. A command "fail" fails,
// "say WORDS" writes them, "count" writes how often it was run, "none" finds that there
// is nothing to do.
type fakeHost struct {
	mu       sync.Mutex
	sessions int
	requests [][]string // the steps of each
	counted  int
	guests   []api.GuestState
	files    map[string]string  // digests
	before   func(words string) // called before each command
	die      string             // the command at which the connection breaks
}

var errDied = errors.New("connection reset by peer")

func (h *fakeHost) State(context.Context) (api.State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return api.State{Host: api.Host{CPUs: 4, Arch: "amd64", Controllers: []string{"memory", "cpu", "pids"}}, Guests: slices.Clone(h.guests)}, nil
}

func (h *fakeHost) Stale(context.Context, api.StaleRequest) (api.StaleAnswer, error) {
	return api.StaleAnswer{}, nil
}

func (h *fakeHost) Files(_ context.Context, req api.FilesRequest) (api.FilesAnswer, error) {
	var answer api.FilesAnswer
	for _, g := range req.Guests {
		state := api.GuestFilesState{Guest: g.Guest}
		for _, f := range g.Files {
			if h.files[f.Path] != f.Digest {
				state.Files = append(state.Files, api.FileState{Path: f.Path, Differs: "content"})
			}
		}
		answer.Guests = append(answer.Guests, state)
	}
	return answer, nil
}

func (h *fakeHost) Apply(ctx context.Context, req api.Apply, _ func(api.Event)) (api.ApplyResult, error) {
	var answer api.ApplyResult
	var request []string
	failed := false
	for _, s := range req.Steps {
		r := api.StepResult{Outcome: api.Skipped}
		var words string
		if s.Exec != nil {
			words = string(s.Exec.Argv[len(s.Exec.Argv)-1])
		}
		if h.before != nil && !failed {
			h.before(words)
		}
		if h.die != "" && words == h.die {
			return answer, errDied
		}
		if ctx.Err() == nil && !failed {
			r = h.take(s, words)
			request = append(request, strings.TrimSpace(string(s.Kind)+" "+s.Name+" "+words))
		}
		failed = failed || r.Outcome == api.Failed && !s.Tolerated
		answer.Results = append(answer.Results, r)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, request)
	return answer, nil
}

func (h *fakeHost) take(s api.Step, words string) api.StepResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := api.StepResult{Outcome: api.Changed}
	switch {
	case s.Kind == api.StepFiles:
		if h.files[s.Files[0].Path] == s.Files[0].Digest {
			r.Outcome = api.Unchanged
		}
		h.files[s.Files[0].Path] = s.Files[0].Digest
	case s.Kind == api.StepStat:
		r = api.StepResult{Outcome: api.Unchanged, File: &api.FileInfo{Exists: h.files[s.Path] != "", Kind: "file", Bytes: 5}}
	case s.Kind == api.StepWait:
		r.Outcome = api.Unchanged
	case s.Kind != api.StepExec:
	case words == "none":
		r.Outcome = api.Unchanged
	case words == "fail":
		r = api.StepResult{Outcome: api.Failed, Error: "fail: exit status 3", Ran: &api.Ran{Status: 3}}
	case words == "count":
		h.counted++
		r.Ran = &api.Ran{Stdout: fmt.Appendf(nil, "%d\n", h.counted)}
	default:
		text, _ := strings.CutPrefix(words, "say ")
		r.Ran = &api.Ran{Stdout: []byte(text + "\n")}
	}
	return r
}

func (*fakeHost) Lease(context.Context, api.Lease) (api.LeaseAnswer, error) {
	return api.LeaseAnswer{Held: true}, nil
}
func (h *fakeHost) Lock(context.Context, api.Lock) error { return nil }
func (*fakeHost) Release(context.Context) error          { return nil }
func (*fakeHost) DeleteVolume(context.Context, api.DeleteVolume) (api.Deleted, error) {
	return api.Deleted{}, nil
}

func (*fakeHost) CollectImages(context.Context, api.Collect) (api.Collected, error) {
	return api.Collected{}, nil
}

func (*fakeHost) Arrived(context.Context, api.ExportImage) (api.Arrived, error) {
	return api.Arrived{}, nil
}

func (*fakeHost) RemoveImage(context.Context, api.RemoveImage) (api.RemovedImage, error) {
	return api.RemovedImage{}, nil
}
func (*fakeHost) Check(context.Context) (api.Check, error) { return api.Check{}, nil }
func (*fakeHost) Confirm(context.Context, api.Confirm) (api.Confirmed, error) {
	return api.Confirmed{}, nil
}
func (*fakeHost) ExportImage(context.Context, api.ExportImage, io.Writer) error { return nil }
func (*fakeHost) ImportImage(context.Context, string, io.Reader) error          { return nil }
func (*fakeHost) MakeImage(context.Context, api.MakeImage, io.Reader, func(api.Event)) (api.StepResult, error) {
	return api.StepResult{}, nil
}
func (*fakeHost) Close() error { return nil }

// stage is hosts, and a player for them.
func stage(t *testing.T, names ...string) (*Player, map[string]*fakeHost) {
	t.Helper()
	text := "hosts:\n"
	hosts := map[string]*fakeHost{}
	for i, name := range names {
		text += fmt.Sprintf("  %s: {address: 192.0.2.%d, labels: {site: s%d}, vars: {n: %d}}\n", name, i+1, i, i)
		hosts[name] = &fakeHost{files: map[string]string{}}
	}
	inv, err := inventory.Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return &Player{
		Inventory: inv, Among: inv.Hosts, Vars: map[string]any{"n": 0},
		Read: func(name string) ([]byte, error) { return []byte("of ${host.name}\n"), nil },
		Fleet: &rollout.Fleet{Forks: 4, Connect: func(_ context.Context, h *inventory.Host) (rollout.Node, error) {
			host := hosts[h.Name]
			host.mu.Lock()
			defer host.mu.Unlock()
			host.sessions++
			return host, nil
		}},
	}, hosts
}

func book(t *testing.T, text string) *playbooks.Book {
	t.Helper()
	b, err := playbooks.Load("p.yml", playbooks.Options{Read: func(string) ([]byte, error) { return []byte(text), nil }})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// told are the steps of a host's report: "title outcome: error".
func told(h report.Host) []string {
	var list []string
	for _, s := range h.Steps {
		text := s.Title + " " + string(s.Outcome)
		if s.Error != "" {
			text += ": " + s.Error
		}
		if strings.HasPrefix(s.Why, "skipped") {
			text = s.Title + " skipped"
		}
		list = append(list, text)
	}
	return list
}

func outcomes(r report.Run) string {
	var list []string
	for _, h := range r.Hosts {
		list = append(list, h.Name+" "+string(h.Status))
	}
	return strings.Join(list, ", ")
}

func TestStepsOfOneHost(t *testing.T) {
	for _, row := range []struct {
		name, steps string
		requests    []string // of web1, steps separated by " | "
		want        []string
	}{
		{"steps that need nothing of each other are one request",
			"- exec: [a]\n- copy: {to: /f, content: x}\n- wait: 3\n- exec: [b]\n  in: www\n",
			[]string{"exec  a | guest.files | wait | exec www b"},
			[]string{"exec a changed", "copy /f changed", "wait 3 unchanged", "exec b changed"}},
		{"a step that needs a result begins the next request",
			"- exec: [say 4]\n  register: out\n- exec: [b]\n- exec: [c]\n  when: out.stdout == \"4\"\n- exec: [\"x${out.stdout}\"]\n",
			[]string{"exec  say 4 | exec  b", "exec  c | exec  x4"},
			[]string{"exec say 4 changed", "exec b changed", "exec c changed", "exec x${out.stdout} changed"}},
		{"a step whose condition is not true is skipped, and so is what it would give",
			"- exec: [a]\n  when: facts.cpus > 99\n  register: out\n- exec: [b]\n  when: out.skipped and out.rc == -1\n",
			[]string{"exec  b"}, []string{"exec a skipped", "exec b changed"}},
		{"a failure ends the host's way", "- exec: [fail]\n- exec: [b]\n",
			[]string{"exec  fail"}, []string{"exec fail failed: fail: exit status 3", "exec b skipped"}},
		{"a failure that is ignored does not", "- exec: [fail]\n  ignore_errors: true\n  register: out\n- assert: [out.failed, out.rc == 3]\n- exec: [b]\n",
			[]string{"exec  fail", "exec  b"}, []string{"exec fail changed: ignored: fail: exit status 3", "assert unchanged", "exec b changed"}},
		{"failed_when decides", "- exec: [fail]\n  failed_when: result.rc > 3\n- exec: [say no]\n  register: out\n  failed_when: out.stdout == \"no\"\n- exec: [b]\n",
			[]string{"exec  fail", "exec  say no"},
			[]string{"exec fail changed", `exec say no failed: failed_when: out.stdout == "no"`}},
		{"changed_when decides", "- exec: [a]\n  changed_when: \"false\"\n- exec: [none]\n",
			[]string{"exec  a", "exec  none"}, []string{"exec a unchanged", "exec none unchanged"}},
		{"a loop over a list", "- exec: [\"a${item}\"]\n  loop: [1, 2]\n  register: all\n- assert: [len(all.results) == 2, all.changed, 'all.results[1].stdout == \"a2\"']\n",
			[]string{"exec  a1 | exec  a2"}, []string{"exec a${item} changed", "exec a${item} changed", "assert unchanged"}},
		{"a condition on the items of a loop", "- exec: [\"a${item}\"]\n  loop: [1, 2, 3]\n  when: [item != \"2\", facts.cpus == 4]\n  register: all\n- assert: [len(all.results) == 3, 'all.results[1].skipped', 'all.results[2].stdout == \"a3\"']\n",
			[]string{"exec  a1 | exec  a3"}, []string{"exec a${item} changed", "exec a${item} skipped", "exec a${item} changed", "assert unchanged"}},
		{"a condition that no item of a loop meets", "- exec: [\"a${item}\"]\n  loop: [1, 2]\n  when: item == \"x\"\n  register: all\n- exec: [b]\n  when: not all.changed and all.results[0].skipped\n",
			[]string{"exec  b"}, []string{"exec a${item} skipped", "exec a${item} skipped", "exec b changed"}},
		{"a condition on the value of a label", "- exec: [\"${item}\"]\n  loop: {labels: \"*\"}\n  when: value == \"s0\"\n",
			[]string{"exec  site"}, []string{"exec ${item} changed"}},
		{"a loop over guests that are there", "- exec: [a]\n  in: \"${item}\"\n  loop: {guests: \"w*\"}\n",
			[]string{"exec web a | exec www a"}, []string{"exec a changed", "exec a changed"}},
		{"a loop over labels", "- exec: [\"${item}-${value}\"]\n  loop: {labels: \"*\"}\n",
			[]string{"exec  site-s0"}, []string{"exec ${item}-${value} changed"}},
		{"an action on guests", "- guest: {name: \"w*\", do: restart}\n- guest: {name: x, do: stop}\n",
			[]string{"guest.restart www | guest.restart web | guest.stop x"},
			[]string{"guest w* changed", "guest w* changed", "guest x changed"}},
		{"until", "- exec: [count]\n  until: int(result.stdout) == 3\n  delay: 0.001\n  register: n\n- assert: n.stdout == \"3\"\n",
			[]string{"exec  count", "exec  count", "exec  count"}, []string{"exec count changed", "assert unchanged"}},
		{"until its tries are used up", "- exec: [count]\n  until: result.stdout == \"9\"\n  retries: 1\n  delay: 0.001\n- exec: [b]\n",
			[]string{"exec  count", "exec  count"}, []string{`exec count failed: not true after 2 tries: result.stdout == "9"`}},
		{"an assertion", "- assert: {that: facts.cpus == 5, message: \"${facts.cpus} are too few\"}\n- exec: [b]\n",
			nil, []string{"assert failed: 4 are too few"}},
		{"a stat", "- copy: {to: /f, content: x}\n- stat: /f\n  register: f\n- stat: {guest: www}\n  register: g\n- assert: [f.exists, f.size == 5, g.exists, not g.running]\n",
			[]string{"guest.files | stat"}, []string{"copy /f changed", "stat /f unchanged", "stat unchanged", "assert unchanged"}},
		{"limits of a guest", "- limits: {guest: www, memory: 1G}\n", []string{"guest.configure www"}, []string{"limits www changed"}},
		{"limits that are lists, and one that ends", "- limits: {guest: www, ulimits: [nofile=1024:4096], cpu_weight: 50, swap: 0}\n", []string{"guest.configure www"}, []string{"limits www changed"}},
		{"processors that are none", "- limits: {guest: www, cpus: many}\n", nil, []string{`limits www failed: cpus: want numbers from 0 to 8191, as 0-3,8, have "many"`}},
		{"limits that are none", "- limits: {guest: www, memory: much}\n", nil,
			[]string{`limits www failed: memory: want a size of at least 1M, as 512M or 2G, have "much"`}},
		{"a variable that the host lacks", "- exec: [\"${vars.m}\"]\n", nil,
			[]string{"exec ${vars.m} failed: p.yml:3:12: host web1 has no variable ${vars.m} (give a default: ${vars.m:-…})"}},
		{"a handler runs once, after the steps",
			"- copy: {to: /f, content: x}\n  notify: h\n- copy: {to: /g, content: x}\n  notify: [h, i]\n- exec: [a]\n  handlers:\n  - {name: h, exec: [h]}\n  - {name: i, exec: [i]}\n  - {name: j, exec: [j]}\n",
			[]string{"guest.files | guest.files | exec  a", "exec  h | exec  i"},
			[]string{"copy /f changed", "copy /g changed", "exec a changed", "h changed", "i changed"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, hosts := stage(t, "web1")
			hosts["web1"].guests = []api.GuestState{{Guest: api.Guest{Name: "www", Context: 100}}, {Guest: api.Guest{Name: "web", Context: 101}}, {Guest: api.Guest{Name: "x", Context: 102}}}
			text := row.steps
			if strings.Contains(text, "name: j") {
				text = strings.Replace(text, "  - {name: j, exec: [j]}\n", "", 1)
			}
			run, err := p.Play(within(t), book(t, "- hosts: all\n  steps:\n"+indent(text)))
			if err != nil {
				t.Fatal(err)
			}
			if got := told(run.Hosts[0]); !slices.Equal(got, row.want) {
				t.Errorf("steps\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(row.want, "\n  "))
			}
			var requests []string
			for _, r := range hosts["web1"].requests {
				requests = append(requests, strings.Join(r, " | "))
			}
			if !slices.Equal(requests, row.requests) {
				t.Errorf("requests\n  %s\nwant\n  %s", strings.Join(requests, "\n  "), strings.Join(row.requests, "\n  "))
			}
			if n := hosts["web1"].sessions; n != 1 {
				t.Errorf("%d sessions, want 1", n)
			}
		})
	}
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "  handlers") && !strings.HasPrefix(line, "  - {name") {
			line = "  " + line
		}
		b.WriteString(line)
	}
	return b.String()
}
