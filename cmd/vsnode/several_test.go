package main

import (
	"slices"
	"testing"

	"github.com/vsfleet/vsfleet/internal/depends"
)

func TestStopsInACircleAreInAnyOrder(t *testing.T) {
	names := []string{"db", "mail", "web"}
	for _, row := range []struct {
		what  string
		graph depends.Graph
		on    []string // what db waits for
	}{
		{"without a circle", depends.Graph{"mail": {"web"}, "web": {"db"}}, []string{"web"}},
		{"in a circle", depends.Graph{"mail": {"web"}, "web": {"db"}, "db": {"mail"}}, nil},
	} {
		if got := stops(row.graph, names)["db"]; !slices.Equal(got, row.on) {
			t.Errorf("%s: db stops after %q, want %q", row.what, got, row.on)
		}
	}
}

func TestMarksAreSeparatedByCommasOrBlanks(t *testing.T) {
	for _, list := range []string{"front,default", "front default", " front, default"} {
		if got := marks(list); !slices.Equal(got, []string{"front", "default"}) {
			t.Errorf("%q: %q", list, got)
		}
	}
}

func TestErrorsBeginWithTheProgram(t *testing.T) {
	for path, want := range map[string]string{"/usr/local/sbin/stop-vservers": "stop-vservers", "vserver": "vserver", "/var/lib/vsnode/vsnode-1.0": "vsnode"} {
		if got := calledAs(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}
