package node

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// leasedHost is a host without guests whose lease the session has.
func leasedHost(t *testing.T) *Host {
	h, _ := sessions(t)
	if got, err := h.Lease(t.Context(), api.Lease{Holder: holder("1")}); err != nil || !got.Held {
		t.Fatalf("lease: %+v, %v", got, err)
	}
	return h
}

// taken are the results of steps in order, as "changed", "failed: why".
func taken(ctx context.Context, t *testing.T, h *Host, steps ...api.Step) ([]string, []api.StepResult) {
	t.Helper()
	answer, err := h.Apply(ctx, api.Apply{Run: "1", Steps: steps, InOrder: true}, func(api.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range answer.Results {
		text := string(r.Outcome)
		if r.Error != "" {
			text += ": " + r.Error
		}
		list = append(list, text)
	}
	return list, answer.Results
}

func sh(script string) api.Step {
	return api.Step{Kind: api.StepExec, Exec: &api.Command{Argv: [][]byte{[]byte("/bin/sh"), []byte("-c"), []byte(script)}}}
}

func with(s api.Step, change func(*api.Step)) api.Step {
	change(&s)
	return s
}

func TestStepsOfAPlaybook(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("hello\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file := func(path, content string) api.Step {
		return api.Step{Kind: api.StepFiles, Files: []api.File{{
			Path: path, Content: []byte(content), Digest: api.FileDigest([]byte(content)), Mode: 0o600, Owner: "root:root",
		}}}
	}
	for _, row := range []struct {
		name  string
		steps []api.Step
		want  []string
	}{
		{"a command changes the host", []api.Step{sh("true")}, []string{"changed"}},
		{"a command that fails ends the steps, with its last line", []api.Step{sh("echo a; echo b >&2; exit 3"), sh("true")},
			[]string{"failed: /bin/sh: exit status 3: b", "skipped: an earlier step did not succeed"}},
		{"a failure that is tolerated ends nothing", []api.Step{with(sh("exit 3"), func(s *api.Step) { s.Tolerated = true }), sh("true")},
			[]string{"failed: /bin/sh: exit status 3", "changed"}},
		{"a program that is not there", []api.Step{{Kind: api.StepExec, Exec: &api.Command{Argv: [][]byte{[]byte("nowhere")}}}},
			[]string{"failed: run nowhere: executable file not found in $PATH"}},
		{"a command that is killed", []api.Step{sh("kill -9 $$")}, []string{"failed: /bin/sh: exit status 137"}},
		{"a command that takes too long", []api.Step{with(sh("sleep 60"), func(s *api.Step) { s.Exec.Timeout = 50 * time.Millisecond })},
			[]string{"failed: /bin/sh: no end after 50ms: it was ended"}},
		{"nothing is run if what it creates is there", []api.Step{with(sh("exit 1"), func(s *api.Step) { s.Exec.Creates = there })}, []string{"unchanged"}},
		{"nothing is run if what it removes is not there", []api.Step{with(sh("exit 1"), func(s *api.Step) { s.Exec.Removes = there + "x" })}, []string{"unchanged"}},
		{"a file is written once", []api.Step{file(dir+"/new/f", "x"), file(dir+"/new/f", "x")}, []string{"changed", "unchanged"}},
		{"a wait for what is there", []api.Step{
			{Kind: api.StepWait, Wait: &api.Wait{File: there}},
			{Kind: api.StepWait, Wait: &api.Wait{TCP: listener.Addr().String()}},
			{Kind: api.StepWait, Wait: &api.Wait{File: there + "x", Absent: true}},
			{Kind: api.StepWait, Wait: &api.Wait{Command: [][]byte{[]byte("true")}}},
			{Kind: api.StepWait, Wait: &api.Wait{For: time.Millisecond}},
		}, []string{"unchanged", "unchanged", "unchanged", "unchanged", "unchanged"}},
		{"a wait for what does not come", []api.Step{{Kind: api.StepWait, Wait: &api.Wait{File: there + "x", Timeout: time.Millisecond}}},
			[]string{"failed: " + there + "x is not there after 1ms: no such file"}},
		{"a step that says nothing", []api.Step{{Kind: api.StepExec}}, []string{"failed: exec: the step does not say what to do"}},
		{"a path that is not absolute", []api.Step{{Kind: api.StepStat, Path: "etc"}}, []string{`failed: "etc" is not an absolute path`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, _ := taken(t.Context(), t, leasedHost(t), row.steps...); !slices.Equal(got, row.want) {
				t.Errorf("got  %q\nwant %q", got, row.want)
			}
		})
	}
}

func TestWhatACommandWrites(t *testing.T) {
	step := sh(`cat; echo "$WHO" >&2; head -c 100000 /dev/zero`)
	step.Exec.Stdin, step.Exec.Env = []byte("in\n"), [][]byte{[]byte("WHO=me")}
	_, results := taken(t.Context(), t, leasedHost(t), step)
	ran := results[0].Ran
	if ran == nil || !strings.HasPrefix(string(ran.Stdout), "in\n") || string(ran.Stderr) != "me\n" || len(ran.Stdout) != api.MaxOutput || !ran.Cut {
		t.Errorf("%d bytes, cut: %v, errors %q", len(ran.Stdout), ran.Cut, ran.Stderr)
	}
}

func TestADaemonThatKeepsItsOutputOpenHoldsUpNobody(t *testing.T) {
	begun := time.Now()
	got, results := taken(t.Context(), t, leasedHost(t), sh(`sleep 60 & echo $!`))
	if got[0] != "changed" || time.Since(begun) > 30*time.Second {
		t.Errorf("%s after %s", got[0], time.Since(begun))
	}
	_, _ = taken(t.Context(), t, leasedHost(t), sh("kill "+string(results[0].Ran.Stdout)))
}

// A command that is under way ends by itself; the steps after it are not begun.
func TestAnInterruptedCommandIsNotCutOff(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	begun := filepath.Join(t.TempDir(), "begun")
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(begun); err == nil {
				interrupt()
			}
		}
	}()
	got, _ := taken(ctx, t, leasedHost(t), sh("touch "+begun+"; sleep 0.3"), sh("true"))
	if want := []string{"changed", "skipped: interrupted"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFilesOfTheHost(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := leasedHost(t)
	_, results := taken(t.Context(), t, h, api.Step{Kind: api.StepStat, Path: dir + "/f"}, api.Step{Kind: api.StepStat, Path: dir},
		api.Step{Kind: api.StepStat, Path: dir + "/g/h"})
	if f := results[0].File; !f.Exists || f.Kind != "file" || f.Bytes != 4 || f.Mode != 0o600 || f.Digest != api.FileDigest([]byte("old\n")) {
		t.Errorf("file %+v", f)
	}
	if f := results[1].File; f.Kind != "directory" || results[2].File.Exists {
		t.Errorf("directory %+v, nothing %+v", f, results[2].File)
	}
	answer, err := h.Files(t.Context(), api.FilesRequest{Contents: true, Guests: []api.GuestFiles{{Files: []api.File{
		{Path: dir + "/f", Digest: api.FileDigest([]byte("new\n")), Mode: 0o600, Owner: "root:root"},
	}}}})
	if err != nil || len(answer.Guests) != 1 || len(answer.Guests[0].Files) != 1 || string(answer.Guests[0].Files[0].Content) != "old\n" {
		t.Errorf("%+v, %v", answer, err)
	}
}
