package report

import (
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/playbooks"
)

// PlaybookRecord is a playbook that comes with vsfleet.
type PlaybookRecord struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// PlaybookRecords returns the records of playbooks.
func PlaybookRecords(list []playbooks.Shipped) []PlaybookRecord {
	records := make([]PlaybookRecord, len(list))
	for i, s := range list {
		records[i] = PlaybookRecord{s.Name, s.About}
	}
	return records
}

// PlayRecord is the result of a step of a playbook on a host, or with --check the
// expected result.
type PlayRecord struct {
	Host    string       `json:"host"`
	Title   string       `json:"title"` // its name in the playbook
	Step    api.StepKind `json:"step"`
	Name    string       `json:"name"` // of the guest or the image that it is about
	Why     string       `json:"why"`
	Diff    string       `json:"diff,omitempty"`
	Outcome api.Outcome  `json:"outcome"`
	Took    float64      `json:"tookSeconds"`
	Output  string       `json:"output,omitempty"` // the beginning of what a command wrote
	Result
	Batch int `json:"batch,omitempty"` // of the host, if there were several
}

// PlayRecords returns the records of a run of a playbook.
func PlayRecords(run Run) []PlayRecord {
	return records(run.Hosts, func(h Host, s Step) PlayRecord {
		return PlayRecord{
			Host: h.Name, Title: s.Title, Step: s.Kind, Name: s.Name, Why: s.Why, Diff: s.Diff,
			Outcome: s.Outcome, Took: Seconds(s.Took), Output: s.Output, Result: s.Result, Batch: h.Batch,
		}
	})
}

// PlayStepRecord is a step of a playbook.
type PlayStepRecord struct {
	Play  string   `json:"play"`
	Hosts []string `json:"hosts"`
	Step  string   `json:"step"`
	Kind  string   `json:"kind"`
	Tags  []string `json:"tags"`
}

// PlayStepRecords returns the records of the steps of a playbook. hosts returns the
// hosts of a play.
func PlayStepRecords(book *playbooks.Book, hosts func(*playbooks.Play) []string) []PlayStepRecord {
	var list []PlayStepRecord
	for _, p := range book.Plays {
		on := hosts(p)
		name := p.Name
		if name == "" {
			name = p.Hosts
		}
		for _, s := range p.Steps {
			step := s.Name.Raw()
			if step == "" {
				step = s.Title(&playbooks.Scope{})
			}
			tags := append(append([]string{}, p.Tags...), s.Tags...)
			list = append(list, PlayStepRecord{Play: name, Hosts: on, Step: step, Kind: s.Kind.Name, Tags: tags})
		}
	}
	return list
}

// PlayHostRecord is a host that a playbook works on.
type PlayHostRecord struct {
	Host  string `json:"host"`
	Plays string `json:"plays"` // with commas between them
}

// PlayHostRecords returns the records of the hosts of a playbook.
func PlayHostRecords(names []string, book *playbooks.Book, hosts func(*playbooks.Play) []string) []PlayHostRecord {
	plays := map[string][]string{}
	for _, p := range book.Plays {
		name := p.Name
		if name == "" {
			name = p.Hosts
		}
		for _, h := range hosts(p) {
			plays[h] = append(plays[h], name)
		}
	}
	list := make([]PlayHostRecord, len(names))
	for i, name := range names {
		list[i] = PlayHostRecord{name, strings.Join(plays[name], ", ")}
	}
	return list
}
