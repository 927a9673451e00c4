package history

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// kept is a run that began some minutes after noon.
func kept(minute int, change ...func(*report.KeptRecord)) report.KeptRecord {
	when := noon.Add(time.Duration(minute) * time.Minute)
	exit := 0
	k := report.KeptRecord{HistoryRecord: report.HistoryRecord{
		ID: report.NewID(when), When: when, Who: "root@ctl", Verb: "apply", Status: report.KeptOK, Exit: &exit, Hosts: "web[01-03]",
		Outcomes: map[outcome.Outcome]int{outcome.Changed: 3}, Args: []string{"apply"},
	}}
	for _, f := range change {
		f(&k)
	}
	return k
}

func failed(k *report.KeptRecord) { exit := 2; k.Status, k.Exit = report.KeptFailed, &exit }

func on(hosts string) func(*report.KeptRecord) {
	return func(k *report.KeptRecord) { k.Hosts = hosts }
}

// keepers are one of each store, empty.
func keepers(t *testing.T) map[string]Keeper {
	return map[string]Keeper{
		"SQLite":     {Dir: t.TempDir(), Context: t.Context()},
		"PostgreSQL": {Dir: t.TempDir(), Store: newDatabase(t), Context: t.Context()},
	}
}

func opened(t *testing.T, k Keeper) *store {
	t.Helper()
	s, err := k.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *store) listed(t *testing.T, q Query) (minutes []int) {
	t.Helper()
	err := s.list(t.Context(), q, func(r report.HistoryRecord) bool {
		minutes = append(minutes, int(r.When.Sub(noon)/time.Minute))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return minutes
}

func (s *store) mustPut(t *testing.T, k report.KeptRecord, journal string) {
	t.Helper()
	if err := s.put(t.Context(), k, []byte(journal)); err != nil {
		t.Fatal(err)
	}
}

// TestStores is what each store promises.
func TestStores(t *testing.T) {
	suite := map[string]func(*testing.T, Keeper){
		"runs are listed, the newest first": func(t *testing.T, k Keeper) {
			s := opened(t, k)
			for _, minute := range []int{2, 1, 3} {
				s.mustPut(t, kept(minute), "")
			}
			if got := s.listed(t, Query{}); !slices.Equal(got, []int{3, 2, 1}) {
				t.Error(got)
			}
			if got := s.listed(t, Query{Limit: 2}); !slices.Equal(got, []int{3, 2}) {
				t.Errorf("two of them: %v", got)
			}
		},
		"a list is narrowed by time, verb and outcome": func(t *testing.T, k Keeper) {
			s := opened(t, k)
			s.mustPut(t, kept(1, failed, on("db[1-2]")), "")
			s.mustPut(t, kept(2, func(k *report.KeptRecord) { k.Verb = "run now" }), "")
			s.mustPut(t, kept(3, func(k *report.KeptRecord) { k.Status, k.Exit = report.KeptInterrupted, nil }, on("db1,web09")), "")
			s.mustPut(t, kept(4, func(k *report.KeptRecord) { k.Status, k.Exit, k.Seen = report.KeptRunning, nil, time.Now() }), "")
			for want, q := range map[string]Query{
				"[4 3 2]": {Since: noon.Add(2 * time.Minute)},
				"[2]":     {Verb: "run"},
				"[3 1]":   {Failed: true},
				"[]":      {Failed: true, Verb: "run"},
				"[2 ]":    {Verb: "run now"},
				"[  ]":    {Verb: "r_n"},
				"[   ]":   {Verb: "run n"},
				"[4]":     {Limit: 1},
				"[4 2]":   {Host: func(name string) bool { return name == "web02" }},
				"[4 ]":    {Host: func(name string) bool { return name == "web02" }, Limit: 1},
				"[3 1 ]":  {Host: func(name string) bool { return name == "db1" }, Failed: true},
				"[ ]":     {Host: func(name string) bool { return name == "web04" }},
			} {
				if got := fmt.Sprint(s.listed(t, q)); got != "["+strings.TrimSpace(strings.Trim(want, "[]"))+"]" {
					t.Errorf("%+v: %s, want %s", q, got, want)
				}
			}
		},
		"a run that is put twice is there once, as it was put last": func(t *testing.T, k Keeper) {
			s, run := opened(t, k), kept(1)
			s.mustPut(t, run, "first")
			failed(&run)
			s.mustPut(t, run, "second")
			if got := s.listed(t, Query{}); len(got) != 1 {
				t.Errorf("listed: %v", got)
			}
			if got := s.listed(t, Query{Failed: true}); len(got) != 1 {
				t.Errorf("failed: %v", got)
			}
			if data, err := s.journal(t.Context(), run.ID); err != nil || string(data) != "second" {
				t.Errorf("its journal is %q, %v", data, err)
			}
		},
		"a record survives with every character": func(t *testing.T, k Keeper) {
			s := opened(t, k)
			run := kept(1, func(k *report.KeptRecord) { k.Args = []string{"run", "a'b\"c\\d\n\x00é☃"}; k.Error = "bad\xff" })
			journal := strings.Repeat("x\x00\xff\n", 100_000)
			s.mustPut(t, run, journal)
			err := s.list(t.Context(), Query{}, func(r report.HistoryRecord) bool {
				if want := strings.ReplaceAll(run.Args[1], "\x00", ""); r.Args[1] != want {
					t.Errorf("%q, want %q", r.Args[1], want)
				}
				return true
			})
			if err != nil {
				t.Error(err)
			}
			if data, err := s.journal(t.Context(), run.ID); err != nil || string(data) != journal {
				t.Errorf("%d bytes of the journal, want %d, %v", len(data), len(journal), err)
			}
		},
		"a run is found by the beginning of its ID, or of its last part": func(t *testing.T, k Keeper) {
			s, run := opened(t, k), kept(1)
			s.mustPut(t, run, "")
			s.mustPut(t, kept(2), "")
			for _, name := range []string{run.ID, run.ID[:15], run.ID[len(run.ID)-8:], run.ID[len(run.ID)-8 : len(run.ID)-2]} {
				if ids, err := s.ids(t.Context(), name); err != nil || !slices.Equal(ids, []string{run.ID}) {
					t.Errorf("%s: %v, %v", name, ids, err)
				}
			}
			if ids, err := s.ids(t.Context(), "20261128"); err != nil || len(ids) != 2 {
				t.Errorf("a day: %v, %v", ids, err)
			}
			if ids, err := s.ids(t.Context(), "%"); err != nil || ids != nil {
				t.Errorf("a wildcard: %v, %v", ids, err)
			}
		},
		"what is not kept is named": func(t *testing.T, k Keeper) {
			var unknown *UnknownError
			if _, err := opened(t, k).journal(t.Context(), "20261128T120000Z-00000000"); !errors.As(err, &unknown) {
				t.Error(err)
			}
		},
		"what is removed is gone": func(t *testing.T, k Keeper) {
			s, run := opened(t, k), kept(1)
			s.mustPut(t, run, "x")
			if n, err := s.remove(t.Context(), []string{run.ID, "nothing"}); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if _, err := s.journal(t.Context(), run.ID); err == nil || s.listed(t, Query{}) != nil {
				t.Error("it is still there")
			}
		},
		"runs beyond a number are pruned, the oldest first, some at once": func(t *testing.T, k Keeper) {
			s := opened(t, k)
			for minute := range 6 {
				s.mustPut(t, kept(minute), "")
			}
			if n, err := s.prune(t.Context(), Keep{Runs: 3}, 2); n != 2 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if n, err := s.prune(t.Context(), Keep{Runs: 3}, 2); n != 1 || err != nil {
				t.Errorf("then %d, %v", n, err)
			}
			if got := s.listed(t, Query{}); !slices.Equal(got, []int{5, 4, 3}) {
				t.Error(got)
			}
		},
		"runs of a certain age are pruned": func(t *testing.T, k Keeper) {
			s := opened(t, k)
			s.mustPut(t, kept(0, func(k *report.KeptRecord) { k.When = time.Now().Add(-48 * time.Hour); k.ID = report.NewID(k.When) }), "")
			s.mustPut(t, kept(0, func(k *report.KeptRecord) { k.When = time.Now(); k.ID = report.NewID(k.When) }), "")
			if n, err := s.prune(t.Context(), Keep{For: 24 * time.Hour}, 100); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		},
		"many open a new store and write to it at once": func(t *testing.T, k Keeper) {
			var group sync.WaitGroup
			for n := range 8 {
				group.Go(func() {
					s, err := k.open(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					defer s.Close()
					for i := range 5 {
						if err := s.put(t.Context(), kept(10*n+i), []byte("x")); err != nil {
							t.Error(err)
						}
					}
				})
			}
			group.Wait()
			if got := opened(t, k).listed(t, Query{}); len(got) != 40 {
				t.Errorf("%d runs, want 40", len(got))
			}
		},
		"a store that a newer vsfleet made is refused": func(t *testing.T, k Keeper) {
			s := opened(t, k)
			if _, err := s.db.ExecContext(t.Context(), `INSERT INTO vsfleet_schema (version) VALUES (99)`); err != nil {
				t.Fatal(err)
			}
			if _, err := k.open(t.Context()); err == nil || !strings.Contains(err.Error(), "newer vsfleet") {
				t.Error(err)
			}
		},
		"a store without a later version of the schema gets it": func(t *testing.T, k Keeper) {
			opened(t, k).mustPut(t, kept(1), "x")
			was := migrations
			defer func() { migrations = was }()
			migrations = append(slices.Clone(was), `ALTER TABLE runs ADD COLUMN later TEXT; CREATE INDEX runs_later ON runs (later)`)
			for range 2 {
				s := opened(t, k)
				if got := s.listed(t, Query{}); len(got) != 1 {
					t.Error(got)
				}
				if _, err := s.db.ExecContext(t.Context(), `UPDATE runs SET later = 'x'`); err != nil {
					t.Error(err)
				}
			}
		},
	}
	for name, test := range suite {
		t.Run(name, func(t *testing.T) {
			for store, k := range keepers(t) {
				t.Run(store, func(t *testing.T) { test(t, k) })
			}
		})
	}
}
