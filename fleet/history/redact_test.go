package history

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

func TestArgsHoldNoSecrets(t *testing.T) {
	s := newSecrets([]string{"s3cret-value"})
	for _, row := range []struct{ name, args, want string }{
		{"a plain command line", "apply -l web01 -D", "apply -l web01 -D"},
		{"a variable that is named as a password", "play x.yml -e db_password=abc", "play x.yml -e db_password=•••"},
		{"a flag of the command with its value", "run -- tool --password abc x", "run -- tool --password ••• x"},
		{"a flag of the command with an equals sign", "run -- tool --api-key=abc", "run -- tool --api-key=•••"},
		{"a variable of the environment", "run -- env TOKEN=abc PATH=/bin tool", "run -- env TOKEN=••• PATH=/bin tool"},
		{"a password in an address", "run -- curl https://me:abc@example.net/x", "run -- curl https://me:•••@example.net/x"},
		{"a user in an address", "run -J ssh://me@example.net x", "run -J ssh://me@example.net x"},
		{"a secret of the inventory", "run -- echo s3cret-value", "run -- echo •••"},
		{"a secret within a word", "run -- echo 'xs3cret-valuex'", "run -- echo 'x•••x'"},
		{"a file with a key is no secret", "apply --private-key id_ed25519 -k", "apply --private-key id_ed25519 -k"},
		{"passwords that are asked for", "apply --ask-pass --ask-become-pass web", "apply --ask-pass --ask-become-pass web"},
		{"a file with a password", "apply --password-file x", "apply --password-file x"},
		{"a name that only looks like one", "run -- cat /etc/passwd compass=x", "run -- cat /etc/passwd compass=x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, redacted := s.args(strings.Fields(row.args))
			if text := strings.Join(got, " "); text != row.want || redacted != (row.args != row.want) {
				t.Errorf("%q (redacted: %t), want %q", text, redacted, row.want)
			}
		})
	}
	got, _ := s.args([]string{"run", "--", "curl -H 'Authorization: Bearer abc.def' x"})
	if want := "curl -H 'Authorization: Bearer ••• x"; got[2] != want {
		t.Errorf("%q, want %q", got[2], want)
	}
}

// TestNothingOfASecretIsKept runs over all places in which a secret may come.
func TestNothingOfASecretIsKept(t *testing.T) {
	const token, key = "s3cret\"val<ue>", "-----BEGIN KEY-----\nabcdefghijklmnopqrstuvwxyz\n-----END KEY-----\n"
	all := []string{token, "started", key}
	r := newRecorder(t, Keeper{})
	r.Args = []string{"run", "--", "echo", token}
	r.Secrets = func([]string) ([]string, bool) { return all, true }
	startRun(r, []string{"web01", "web02"})
	text := "it says " + token + " and abcdefghijklmnopqrstuvwxyz, which has started"
	exit := 1
	result := report.Result{Status: outcome.Failed, Error: text}
	step := report.Step{Kind: "guest.start", Name: "www", Why: text, Diff: text, Result: result}
	r.Watch(report.Event{Kind: report.Warning, Host: "web01", Message: text})
	r.Watch(report.Event{Kind: report.HostPlan, Host: "web01", Steps: []report.Step{step}})
	r.Watch(report.Event{Kind: report.Written, Host: "web01", Output: &report.OutputRecord{Host: "web01", Exit: &exit, Stdout: text, Stderr: text}})
	r.Watch(report.Event{Kind: report.Done, Host: "web01", Result: &result, Report: &report.Host{
		Name: "web01", Result: result, Steps: []report.Step{step}, Notes: []string{text}, Text: text, Hint: text,
		Refused: []report.Refusal{{Guest: "www", Error: text}},
	}})
	paths := journals(t, r.Keeper)
	journal, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if warnings := r.End(t.Context(), 2, &UnknownError{ID: text}); warnings != nil {
		t.Error(warnings)
	}
	kept := load(t, r.Keeper)
	record, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	h := Open(t.Context(), r.Keeper)
	defer h.Close()
	stored, err := h.store.journal(t.Context(), kept.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"journal": string(journal), "record": string(record), "store": string(stored)} {
		for _, secret := range []string{"s3cret", "val<ue", `val\u003cue`, "abcdefghijkl"} {
			if strings.Contains(data, secret) {
				t.Errorf("the %s has %q: %s", name, secret, data)
			}
		}
	}
	// Words of the journal that happen to be a secret stay.
	if kept.Verb != "apply" || len(kept.Outputs) != 1 || kept.Outcomes[outcome.Failed] != 1 || !kept.Redacted || kept.Damaged != nil {
		t.Errorf("%+v", kept)
	}
}

func TestOutputIsNotKeptIfItMayHoldAnUnknownSecret(t *testing.T) {
	r := newRecorder(t, Keeper{})
	r.Secrets = func(hosts []string) ([]string, bool) { return nil, hosts[0] != "web000" }
	startRun(r, hostNames(1))
	exit := 0
	r.Watch(report.Event{Kind: report.Written, Host: "web000", Output: &report.OutputRecord{Host: "web000", Exit: &exit, Stdout: "s3cret", Stderr: "s3cret"}})
	if warnings := r.End(t.Context(), 0, nil); warnings != nil {
		t.Error(warnings)
	}
	if kept := load(t, r.Keeper); len(kept.Outputs) != 1 || kept.Outputs[0].Stdout+kept.Outputs[0].Stderr != "" || !kept.Cut {
		t.Errorf("%+v", kept)
	}
}

func TestSecretsOfALaterPartOfARunAreLearned(t *testing.T) {
	r := newRecorder(t, Keeper{})
	r.Secrets = func(hosts []string) ([]string, bool) { return []string{"s3cret-of-" + hosts[0]}, true }
	startRun(r, []string{"web000"})
	startRun(r, []string{"web001"})
	r.Watch(report.Event{Kind: report.Warning, Host: "web001", Message: "s3cret-of-web001"})
	data, err := os.ReadFile(journals(t, r.Keeper)[0])
	if err != nil || strings.Contains(string(data), "s3cret-of") {
		t.Errorf("%s, %v", data, err)
	}
	r.End(t.Context(), 0, nil)
	if kept := load(t, r.Keeper); len(kept.Report.Hosts) != 2 {
		t.Errorf("%+v", kept.Report)
	}
}

func TestOutputIsBounded(t *testing.T) {
	r := newRecorder(t, Keeper{})
	startRun(r, hostNames(400))
	for _, host := range hostNames(400) {
		exit := 0
		r.Watch(report.Event{Kind: report.Written, Host: host, Output: &report.OutputRecord{Host: host, Exit: &exit, Stdout: strings.Repeat("é", mostOutput)}})
	}
	if warnings := r.End(t.Context(), 0, nil); warnings != nil {
		t.Error(warnings)
	}
	kept := load(t, r.Keeper)
	size := 0
	for _, o := range kept.Outputs {
		size += len(o.Stdout)
	}
	if size > mostRunOutput || size < mostRunOutput/2 || !kept.Cut || !kept.Outputs[0].Cut {
		t.Errorf("%d bytes are kept, cut: %t", size, kept.Cut)
	}
}

func TestDamagedLinesAreNamedAndSkipped(t *testing.T) {
	id := report.NewID(noon)
	began := string(encode(report.Event{Run: id, Time: noon, Kind: report.Started, Verb: "apply", Hosts: []string{"web01"}}))
	done := string(encode(report.Event{Run: id, Time: noon.Add(time.Second), Kind: report.Done, Host: "web01", Result: &report.Result{Status: outcome.OK}}))
	end := string(encode(line{End: &End{Exit: 0}}))
	for _, row := range []struct {
		name, journal string
		damaged       string
		status        report.KeptStatus
		ok            int
	}{
		{"a whole one", began + "\n" + done + "\n" + end + "\n", "", report.KeptOK, 1},
		{"one whose vsfleet was interrupted and ended in order", began + "\n" + done + "\n" + string(encode(line{End: &End{Exit: outcome.ExitInterrupted}})) + "\n", "", report.KeptInterrupted, 1},
		{"one that breaks off between lines", began + "\n" + done + "\n", "", report.KeptInterrupted, 1},
		{"one that breaks off within a line", began + "\n" + done[:40], "line 2: unexpected end of JSON input", report.KeptInterrupted, 0},
		{"a half line before a whole one", began + "\n" + done[:20] + "\n" + done + "\n" + end + "\n", "line 2: unexpected end of JSON input", report.KeptOK, 1},
		{"zeros, as a power cut leaves them", began + "\n" + strings.Repeat("\x00", 4096), "line 2: invalid character", report.KeptInterrupted, 0},
		{"a line of something else", began + "\n{}\n[1]\n" + done + "\n" + end + "\n", "line 2: it is not a line of a journal", report.KeptOK, 1},
		{"fields of a later vsfleet", began + "\n" + strings.Replace(done, "{", `{"later":[1],`, 1) + "\n" + end + "\n", "", report.KeptOK, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			k := read([]byte(row.journal), id)
			if got := strings.Join(k.Damaged, "; "); !strings.HasPrefix(got, row.damaged) || (row.damaged == "") != (got == "") {
				t.Errorf("damaged: %q, want %q", got, row.damaged)
			}
			if k.Status != row.status || k.Outcomes[outcome.OK] != row.ok {
				t.Errorf("%+v", k.HistoryRecord)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	began := string(encode(report.Event{Kind: report.Started, Verb: "apply", Hosts: []string{"web01", "web[01"}, Time: noon}))
	f.Add([]byte(began + "\n" + `{"kind":"done","host":"web01","report":{"name":"x","steps":[{}]},"result":{}}` + "\n" + `{"end":{"exit":-1}}`))
	f.Add([]byte(began + "\n" + `{"kind":"plan","host":"web01","steps":[{"kind":"a","name":"b"}]}` + "\n" + `{"kind":"started","host":"web01","step":{"kind":"a","name":"b"}}`))
	f.Add([]byte(`{"head":{"args":null}}` + "\n\x00\xff\n" + `{"kind":"output","host":"web01","output":{}}`))
	f.Add([]byte(`{"kind":"started","hosts":["",""]}` + "\n" + `{"kind":"done","outcomes":{"x":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k := read(data, "20261128T120000Z-00000000")
		if k.ID == "" || len(k.Damaged) > mostDamaged+1 {
			t.Errorf("%+v", k)
		}
		if _, err := json.Marshal(k); err != nil {
			t.Error(err)
		}
		// What is read is what events are.
		if err := eachEvent(data, func(report.Event) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

func TestInventoriesAreIdentified(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fleet.yml")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) { t.Helper(); run(t, dir, "git", args...) }
	write("fleet.yml", "hosts: {}\n")
	first := Describe(t.Context(), []string{file})
	if first.Revision != "" || first.Dirty || !strings.HasPrefix(first.Digest, "sha256:") || !slices.Equal(first.Files, []string{file}) {
		t.Errorf("without git: %+v", first)
	}
	git("init", "-q")
	git("add", ".")
	git("-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x")
	clean := Describe(t.Context(), []string{file})
	if len(clean.Revision) != 40 || clean.Dirty || clean.Digest != first.Digest {
		t.Errorf("clean: %+v", clean)
	}
	write("other", "not of the inventory\n")
	if r := Describe(t.Context(), []string{file}); r.Dirty {
		t.Errorf("with another file: %+v", r)
	}
	write("group_vars/all.yml", "a: b\n")
	if r := Describe(t.Context(), []string{file}); !r.Dirty || r.Digest == clean.Digest {
		t.Errorf("with new variables beside it: %+v", r)
	}
	if r := Describe(t.Context(), []string{filepath.Join(dir, "nothing")}); r.Digest != "" {
		t.Errorf("of a file that does not exist: %+v", r)
	}
}

func TestKeepIsRead(t *testing.T) {
	for text, want := range map[string]Keep{
		"500": {Runs: 500}, "90d": {For: 90 * 24 * time.Hour}, "500, 2w": {Runs: 500, For: 14 * 24 * time.Hour}, KeepByDefault: {Runs: 10000},
	} {
		if got, err := ParseKeep(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "x", "90", "1,y", "0d", "999999999d"} {
		if got, err := ParseKeep(text); err == nil && text != "90" {
			t.Errorf("%q is %+v", text, got)
		}
	}
}
