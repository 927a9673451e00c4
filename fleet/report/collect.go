package report

import (
	"slices"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// Collector makes the report of a run from its events, even if the run never ended. The
// zero value is ready to use. Several runs in one stream, such as the plays of a
// playbook, become one report.
type Collector struct {
	run     Run
	ended   bool
	index   map[string]int // of hosts
	outputs []OutputRecord
}

// Add adds an event. Events of hosts that are not in the run are ignored: these hosts
// only supply images.
func (c *Collector) Add(e Event) {
	if e.Host == "" {
		c.addRun(e)
		return
	}
	i, known := c.index[e.Host]
	if !known {
		return
	}
	h := &c.run.Hosts[i]
	switch {
	case e.Kind == Written && e.Output != nil:
		c.outputs = append(c.outputs, *e.Output)
	case e.Kind == HostPlan:
		h.Steps = slices.Clone(e.Steps)
	case e.Step != nil:
		h.addStep(e)
	case e.Kind == Done && e.Report != nil:
		*h = *e.Report
		h.Name = e.Host
	case e.Kind == Done && e.State == "" && e.Result != nil:
		h.Result = *e.Result
	case e.State != "":
		h.State = e.State
	}
}

func (c *Collector) addRun(e Event) {
	switch e.Kind {
	case Started:
		if c.index == nil {
			c.index = map[string]int{}
			c.run.ID, c.run.Who, c.run.Verb, c.run.When = e.Run, e.Who, e.Verb, e.Time
		}
		c.ended = false
		for _, name := range e.Hosts {
			if _, known := c.index[name]; !known && name != "" {
				c.index[name] = len(c.run.Hosts)
				c.run.Hosts = append(c.run.Hosts, Host{Name: name})
			}
		}
	case BatchBegun:
		if e.Batch != nil {
			c.run.Batches = append(c.run.Batches, *e.Batch)
		}
	case Done:
		c.ended = true
		c.run.Notes = append(c.run.Notes, e.Notes...)
		c.run.Stopped = e.Stopped
	}
	if took := e.Time.Sub(c.run.When); c.index != nil && took > c.run.Took {
		c.run.Took = took
	}
}

// begunStep is the error of a step that began and whose end is unknown.
const begunStep = "it was begun: what came of it is not known"

// addStep adds an event of a step. Steps of a playbook may be of one kind, such as commands,
// and are not in a plan before.
func (h *Host) addStep(e Event) {
	i := slices.IndexFunc(h.Steps, func(s Step) bool {
		return s.Kind == e.Step.Kind && s.Name == e.Step.Name && s.Title == e.Step.Title && s.Why == e.Step.Why
	})
	if i < 0 {
		i, h.Steps = len(h.Steps), append(h.Steps, *e.Step)
	}
	switch {
	case e.Kind == Done:
		h.Steps[i] = *e.Step
	case h.Steps[i].Status == "":
		h.Steps[i].Error = begunStep
	}
}

// Run returns the report, and whether the run has ended. Hosts without a result have no
// outcome.
func (c *Collector) Run() (run Run, ended bool) { return c.run, c.ended }

// Outputs returns the output of commands, in the order in which they ended.
func (c *Collector) Outputs() []OutputRecord { return c.outputs }

// Counts returns how many hosts have each outcome.
func (r Run) Counts() map[outcome.Outcome]int {
	counts := map[outcome.Outcome]int{}
	for _, h := range r.Hosts {
		counts[h.Status]++
	}
	return counts
}
