package inventory

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Rollout holds defaults for how runs change many hosts; flags override them.
type Rollout struct {
	Serial      []batch.Size
	Canary      string        // a pattern; empty: none
	Pause       time.Duration // between batches
	MaxFail     batch.Size
	OnFailure   string // "revert" or "keep"; empty: revert
	Retries     int
	HostTimeout time.Duration
	Budget      map[string]batch.Size // by label
}

var onFailure = []string{"revert", "keep"}

// rollout reads the block rollout.
func (b *builder) rollout(d *decoder) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		to := &b.inv.Rollout
		if pos := d.At(yamlpos.Target(v)); b.rolloutAt.Line > 0 {
			d.Add(pos, "", "rollout is given twice, first at %s", b.rolloutAt)
		} else {
			b.rolloutAt = pos
		}
		var retries given[int]
		d.Fields(name, v, `a mapping, as {serial: [1, 10%, 100%], max_fail: 2}`, []key{
			{Name: "serial", Read: func(name string, v *yaml.Node) { d.sizes(&to.Serial, name, v) }},
			{Name: "canary", Read: d.parsed("a pattern of hosts, as web01", func(s string) error { to.Canary = s; return nil })},
			{Name: "pause", Read: d.time(&to.Pause)},
			{Name: "max_fail", Read: d.parsed("a number of hosts or a percentage, as 3 or 10%", to.MaxFail.Set)},
			{Name: "on_failure", Read: d.parsed(orList(onFailure), func(s string) error {
				to.OnFailure = s
				if !slices.Contains(onFailure, s) {
					return fmt.Errorf("want %s, have %q", orList(onFailure), s)
				}
				return nil
			})},
			{Name: "retries", Read: d.Number(&retries, 0, 100)},
			{Name: "host_timeout", Read: d.time(&to.HostTimeout)},
			{Name: "budget", Read: func(name string, v *yaml.Node) {
				to.Budget = map[string]batch.Size{}
				d.Entries(name, v, "a mapping of labels to numbers of hosts, as {site: 1}", func(k text, v *yaml.Node) {
					var size batch.Size
					d.parsed("a number of hosts or a percentage, as 1 or 10%", size.Set)(name, v)
					to.Budget[k.Value] = size
				})
			}},
		})
		to.Retries = retries.Value
	}
}

// sizes reads the sizes of batches, one or a list of them.
func (d *decoder) sizes(to *[]batch.Size, name string, v *yaml.Node) {
	const want = `sizes of batches, as 10% or [1, 10%, 100%]`
	var list []text
	if v = yamlpos.Target(v); v.Kind == yaml.SequenceNode {
		d.Texts(&list, want)(name, v)
	} else {
		var one text
		if d.Text(&one, want)(name, v); one.OK() {
			for part := range strings.SplitSeq(one.Value, ",") {
				list = append(list, text{Value: part, Pos: one.Pos})
			}
		}
	}
	for _, t := range list {
		sizes, err := batch.ParseSizes(t.Value)
		if err != nil {
			d.Add(t.Pos, "", "%s: %v", name, err)
			return
		}
		*to = append(*to, sizes...)
	}
	if v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
		d.Add(d.At(v), "", "%s: want %s, have an empty list", name, want)
	}
}

// parsed returns a function that reads a text with read.
func (d *decoder) parsed(want string, read func(string) error) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		var t text
		d.Text(&t, want)(name, v)
		if !t.OK() {
			return
		}
		if err := read(t.Value); err != nil {
			d.Add(t.Pos, "", "%s: %v", name, err)
		}
	}
}

func (d *decoder) time(to *time.Duration) func(string, *yaml.Node) {
	return d.parsed(wantTime, func(s string) (err error) {
		*to, err = parseTime(s)
		return err
	})
}

// checkRollout reports names in the block rollout that are not in the inventory.
func (b *builder) checkRollout() {
	r := b.inv.Rollout
	if r.Canary != "" {
		if _, err := b.inv.hosts.match(r.Canary); err != nil {
			err.Msg = "canary: " + err.Msg
			b.Failed(b.rolloutAt, err)
		}
	}
	for _, label := range sortedKeys(r.Budget) {
		if !slices.ContainsFunc(b.inv.Hosts, func(h *Host) bool { return h.Labels[label] != "" }) {
			b.Add(b.rolloutAt, "", "budget: no host has a label %q", label)
		}
	}
}
