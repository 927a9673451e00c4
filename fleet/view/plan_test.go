package view

import (
	"bytes"
	"io"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

func planned(name string, steps ...api.Step) report.Host {
	h := report.Host{Name: name, Result: report.Result{Status: outcome.OK}}
	for _, s := range steps {
		h.Status = outcome.Changed
		h.Steps = append(h.Steps, report.StepOf(s))
	}
	return h
}

func plans() report.Run {
	www := &api.Guest{Name: "www", Context: 120}
	web := []api.Step{
		{Kind: api.StepBuildImage, Image: &api.ImageSpec{Name: "bookworm"}, Why: "no host has it"},
		{Kind: api.StepImport, Image: &api.ImageSpec{Name: "trixie"}, Why: "it is on db1"},
		{Kind: api.StepCreate, Guest: www, Why: "context 120 is not there"},
		{Kind: api.StepStart, Name: "www", Why: "it is stopped"},
	}
	return report.Run{Hosts: []report.Host{
		planned("web01", web...),
		planned("web02", web...),
		planned(
			"db1",
			api.Step{Kind: api.StepConfigure, Guest: &api.Guest{Name: "sql"}, Why: "its limits changed"},
			api.Step{Kind: api.StepRestart, Name: "sql", Why: "so that it takes its new\x1b[31m configuration"},
			api.Step{Kind: api.StepStop, Name: "old", Why: "the inventory says stopped"},
			api.Step{Kind: api.StepDelete, Name: "older", Why: "the inventory says absent"},
			api.Step{Kind: api.StepDelete, Name: "oldest", Why: "the inventory says absent"},
		),
		planned("db2"),
		planned("db3"),
		{Name: "db4", Result: report.Result{Status: outcome.Unreachable, Class: outcome.KindUnreachable, Error: "connection refused"}},
	}}
}

func TestPlan(t *testing.T) {
	noted := plans()
	noted.Notes = []string{"image bookworm differs"}
	golden(t, "plan", func(w io.Writer) error { return Plan(Plain(w), AsTable, plans()) })
	golden(t, "plan-colour", func(w io.Writer) error { return Plan(inColour(w), AsTable, plans()) })
	golden(t, "plan-csv", func(w io.Writer) error { return Plan(Plain(w), AsCSV, noted) })
	golden(t, "plan-differs", func(w io.Writer) error {
		return Plan(Plain(w), AsTable, report.Run{
			Hosts: []report.Host{planned("a"), planned("b")},
			Notes: []string{"image bookworm differs: a has sha256:1, b has sha256:2"},
		})
	})
	golden(t, "plan-nothing", func(w io.Writer) error {
		return Plan(Plain(w), AsTable, report.Run{Hosts: []report.Host{planned("a")}})
	})
}

func TestDiff(t *testing.T) {
	files := []api.File{
		{Path: "/etc/motd", Content: []byte("one\ntwo\x1b[2J\n")},
		{Path: "/etc/new", Content: []byte("x\n")},
		{Path: "/etc/key", Content: []byte("geheim\n"), Secret: true},
		{Path: "/etc/bin", Content: []byte{0, 1}},
		{Path: "/etc/long", Content: []byte("short\n")},
	}
	have := []api.FileState{{Path: "/etc/long", Large: true}, {Path: "/etc/motd", Content: []byte("one\nthree\n")}}
	step := report.StepOf(api.Step{Kind: api.StepFiles, Name: "www", Why: "/etc/motd: content"})
	step.Diff = report.Diff(files, "the inventory", have)
	var out bytes.Buffer
	o := Output{Writer: &out}
	if err := Plan(o, AsTable, report.Run{Hosts: []report.Host{{Name: "web1", Steps: []report.Step{step}}}}); err != nil {
		t.Fatal(err)
	}
	want := `web1
  ~ write files of guest www: /etc/motd: content
      --- /etc/motd (on the host)
      +++ /etc/motd (in the inventory)
      @@ -1,2 +1,2 @@
       one
      -three
      +two\x1b[2J
      --- /etc/new (on the host)
      +++ /etc/new (in the inventory)
      @@ -0,0 +1,1 @@
      +x
      /etc/key: (secret)
      /etc/bin: not a text, not shown
      /etc/long: too long, not shown
0 to add, 1 to change, 0 to remove on 1 host
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
