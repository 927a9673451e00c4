package view

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

func TestRecordsOfManyPlaces(t *testing.T) {
	type record struct {
		Host string `json:"host"`
		report.Result
	}
	lost := record{"web01", report.Result{Status: outcome.Unreachable, Class: outcome.KindUnreachable, Error: "no route to host"}}
	here := record{"web02", report.Result{Status: outcome.OK}}
	for _, row := range []struct {
		format      Format
		first, want string // after the second place alone, and in the end
	}{
		{AsNDJSON, `{"host":"web02","status":"ok","class":"","error":""}` + "\n", `{"host":"web02","status":"ok","class":"","error":""}` + "\n" +
			`{"host":"web01","status":"unreachable","class":"unreachable","error":"no route to host"}` + "\n"},
		{AsCSV, "", "host,status,class,error\nweb01,unreachable,unreachable,no route to host\nweb02,ok,,\n"},
		{AsYAML, "", "- host: web01\n  status: unreachable\n  class: unreachable\n  error: no route to host\n- host: web02\n  status: ok\n  class: \"\"\n  error: \"\"\n"},
		{AsJSON, "", `[{"host":"web01","status":"unreachable","class":"unreachable","error":"no route to host"},{"host":"web02","status":"ok","class":"","error":""}]`},
		{AsTable, "", "a table\n"},
	} {
		t.Run(string(row.format), func(t *testing.T) {
			var out strings.Builder
			r := NewRecords[record](&out, row.format, 2)
			if err := r.Put(1, here); err != nil || out.String() != row.first {
				t.Errorf("after the first that ends: %q, %v; want %q", out.String(), err, row.first)
			}
			if err := r.Put(0, lost); err != nil {
				t.Error(err)
			}
			if err := r.Close(func(w io.Writer, _ []record) error { _, err := io.WriteString(w, "a table\n"); return err }); err != nil {
				t.Error(err)
			}
			got := out.String()
			if row.format == AsJSON {
				var list []record
				if err := json.Unmarshal([]byte(got), &list); err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal(list)
				if err != nil {
					t.Fatal(err)
				}
				got = string(b)
			}
			if got != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
		})
	}
}
