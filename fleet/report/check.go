package report

import (
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/node/api"
)

// CheckRecord is one feature of one host.
type CheckRecord struct {
	Host     string      `json:"host"`
	Name     string      `json:"name"`
	For      string      `json:"for"`
	Required bool        `json:"required"`
	Verdict  api.Verdict `json:"verdict"`
	Detail   string      `json:"detail"`
	Lost     string      `json:"lost"`
	Cure     string      `json:"cure"`
	Result
}

// CheckRecords returns the features of a host, or why there are none. A host that
// answered and is not able has failed.
func CheckRecords(host string, c api.Check, result Result) []CheckRecord {
	if result.Status == outcome.OK && !Able(c) {
		result = Result{Status: outcome.Failed, Class: outcome.KindUnable, Error: "the host lacks what every guest needs"}
	}
	if len(c.Rows) == 0 {
		return []CheckRecord{{Host: host, Verdict: api.Unknown, Result: result}}
	}
	var records []CheckRecord
	for _, r := range c.Rows {
		records = append(records, CheckRecord{host, r.Name, r.For, r.Required, r.Verdict, r.Detail, r.Lost, r.Cure, result})
	}
	return records
}

// Able reports whether guests can run on a host at all.
func Able(c api.Check) bool {
	for _, r := range c.Rows {
		if r.Required && r.Verdict == api.No {
			return false
		}
	}
	return true
}
