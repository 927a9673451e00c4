package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// hostNames returns the names of n hosts.
func hostNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("web%03d", i))
	}
	return names
}

// startRun sends the first event of an apply over hosts.
func startRun(r *Recorder, hosts []string) {
	run := report.Run{When: time.Now(), Who: "root@ctl", Verb: "apply"}
	run.ID = report.NewID(run.When)
	for _, name := range hosts {
		run.Hosts = append(run.Hosts, report.Host{Name: name})
	}
	r.Watch(report.Began(run))
}

// workOn sends the events of one host that is changed.
func workOn(r *Recorder, host string) {
	step := report.StepOf(api.Step{Kind: api.StepStart, Name: "www", Why: "the inventory says running"})
	r.Watch(report.Event{Kind: report.HostPlan, Host: host, Steps: []report.Step{step}})
	r.Watch(report.Event{Kind: report.Started, Host: host, Step: &step})
	r.Watch(report.Event{Kind: report.Progress, Host: host, Step: &step, Message: "half of it"})
	done := step.Ended(api.StepResult{Outcome: api.Changed, Took: time.Millisecond}, "")
	r.Watch(report.Event{Kind: report.Done, Host: host, Step: &done})
	result := report.Result{Status: outcome.Changed}
	r.Watch(report.Event{Kind: report.Done, Host: host, Result: &result, Report: &report.Host{Name: host, Result: result, Steps: []report.Step{done}}})
}

func newRecorder(t *testing.T, k Keeper) *Recorder {
	if k.Dir == "" {
		k.Dir = t.TempDir()
	}
	k.Context = t.Context()
	return &Recorder{Keeper: k, Args: []string{"apply", "-D"}, Version: "v1"}
}

// load returns the only run that is kept.
func load(t *testing.T, k Keeper) report.KeptRecord {
	t.Helper()
	h := Open(t.Context(), k)
	defer h.Close()
	if err := h.Failed(); err != nil {
		t.Error(err)
	}
	list, err := h.List(t.Context(), Query{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d runs are kept, %v", len(list), err)
	}
	kept, err := h.Load(t.Context(), "last")
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// journals returns the names of the journals that are left.
func journals(t *testing.T, k Keeper) []string {
	t.Helper()
	paths, err := k.journalFiles()
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestARunIsKept(t *testing.T) {
	for store, k := range keepers(t) {
		t.Run(store, func(t *testing.T) {
			r := newRecorder(t, k)
			r.Inventory = func(context.Context) report.InventoryRecord { return report.InventoryRecord{Revision: "abc"} }
			startRun(r, hostNames(3))
			var group sync.WaitGroup
			for _, host := range hostNames(2) {
				group.Go(func() { workOn(r, host) })
			}
			group.Wait()
			if warnings := r.End(t.Context(), 2, errors.New("stopped")); warnings != nil {
				t.Error(warnings)
			}
			if left := journals(t, k); left != nil {
				t.Errorf("left: %v", left)
			}
			kept := load(t, r.Keeper)
			if kept.Status != report.KeptFailed || *kept.Exit != 2 || kept.Error != "stopped" || kept.Who != "root@ctl" || kept.Version != "v1" ||
				kept.Hosts != "web[000-002]" || !slices.Equal(kept.Args, r.Args) || kept.Inventory.Revision != "abc" || kept.Cut || kept.Damaged != nil {
				t.Errorf("%+v", kept.HistoryRecord)
			}
			if n := kept.Outcomes[outcome.Changed]; n != 2 || kept.Report.Hosts[0].Steps[0].Outcome != api.Changed || kept.Report.Hosts[2].Status != "" {
				t.Errorf("%+v", kept.Report)
			}
		})
	}
}

func TestWhatChangesNothingLeavesNoTrace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r := newRecorder(t, Keeper{Dir: dir})
	r.Watch(report.Event{Kind: report.Started, Verb: "plan", Hosts: []string{"web01"}, Run: report.NewID(time.Now())})
	r.Watch(report.Event{Kind: report.Done, Host: "web01"})
	if warnings := r.End(t.Context(), 0, nil); warnings != nil {
		t.Error(warnings)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("there is a directory")
	}
}

const victim = "VSFLEET_TEST_HISTORY_VICTIM"

// TestVictim is the vsfleet that TestKilled kills: it says which hosts are done.
func TestVictim(t *testing.T) {
	dir := os.Getenv(victim)
	if dir == "" {
		return // it is for TestKilled
	}
	r := newRecorder(t, Keeper{Dir: dir})
	startRun(r, hostNames(200))
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, part := range slices.Collect(slices.Chunk(hostNames(200), 50)) {
		group.Go(func() {
			for _, host := range part {
				workOn(r, host)
				mu.Lock()
				fmt.Println("done", host)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	r.End(t.Context(), 0, nil)
	fmt.Println("end")
}

func TestKilledAtAnyInstructionLosesNothing(t *testing.T) {
	interrupted := 0
	for range 12 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
		cmd.Env = append(os.Environ(), victim+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		at := rand.IntN(230)
		var done []string
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if host, is := strings.CutPrefix(lines.Text(), "done "); is {
				done = append(done, host)
			}
			if n == at {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		kept := load(t, Keeper{Dir: dir, Context: t.Context()})
		if kept.Status == report.KeptInterrupted {
			interrupted++
		}
		if len(kept.Report.Hosts) != 200 || len(kept.Damaged) > 1 {
			t.Errorf("%d hosts, damaged: %v", len(kept.Report.Hosts), kept.Damaged)
		}
		for _, h := range kept.Report.Hosts {
			if slices.Contains(done, h.Name) && (h.Status != outcome.Changed || len(h.Steps) != 1 || h.Steps[0].Outcome != api.Changed) {
				t.Errorf("%s had ended, and is kept as %+v", h.Name, h)
			}
		}
		if left := journals(t, Keeper{Dir: dir}); left != nil {
			t.Errorf("journals are left: %v", left)
		}
	}
	if interrupted == 0 {
		t.Error("no run was killed")
	}
}

func TestARunThatLivesIsListedAndLeftAlone(t *testing.T) {
	r := newRecorder(t, Keeper{})
	startRun(r, hostNames(2))
	workOn(r, "web000")
	kept := load(t, r.Keeper)
	if kept.Status != report.KeptRunning || kept.Outcomes[outcome.Changed] != 1 {
		t.Errorf("%+v", kept.HistoryRecord)
	}
	h := Open(t.Context(), r.Keeper)
	defer h.Close()
	if _, err := h.Remove(t.Context(), []string{kept.ID}); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Error(err)
	}
	if r.End(t.Context(), 0, nil) != nil {
		t.Error("a warning")
	}
	if kept := load(t, r.Keeper); kept.Status != report.KeptOK {
		t.Errorf("%+v", kept.HistoryRecord)
	}
}

// A team sees runs that are under way on other machines, and what they wait for.
func TestASharedStoreHasRunsThatAreUnderWay(t *testing.T) {
	r := newRecorder(t, Keeper{Store: newDatabase(t)})
	other := opened(t, Keeper{Dir: t.TempDir(), Store: r.Store})
	waitFor := func(status report.KeptStatus, waiting string) (got report.HistoryRecord) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			err := other.list(t.Context(), Query{}, func(r report.HistoryRecord) bool { got = r; return false })
			if err != nil {
				t.Fatal(err)
			}
			if got.Status == status && got.Waiting == waiting {
				return got
			}
		}
		t.Fatalf("it is %+v", got)
		return got
	}
	startRun(r, hostNames(2))
	if got := waitFor(report.KeptRunning, ""); got.Who != "root@ctl" || got.Hosts != "web[000-001]" || got.Verb != "apply" {
		t.Errorf("%+v", got)
	}
	r.Watch(report.Event{Kind: report.Progress, Message: "waiting for web001: held by anna@ctl2"})
	waitFor(report.KeptRunning, "waiting for web001: held by anna@ctl2")
	workOn(r, "web000")
	last := waitFor(report.KeptRunning, "")
	if warnings := r.End(t.Context(), 0, nil); warnings != nil {
		t.Error(warnings)
	}
	waitFor(report.KeptOK, "")
	// What comes late does not replace the end.
	if err := other.putRunning(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	waitFor(report.KeptOK, "")
	// One that has said nothing for long is none.
	silent := kept(1).HistoryRecord
	silent.Status, silent.Seen, silent.When = report.KeptRunning, time.Now().Add(-time.Hour), time.Now()
	if err := other.putRunning(t.Context(), silent); err != nil {
		t.Fatal(err)
	}
	waitFor(report.KeptInterrupted, "")
}

func TestEventsAreFollowed(t *testing.T) {
	r := newRecorder(t, Keeper{})
	h := Open(t.Context(), r.Keeper)
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := make(chan report.Event, 100)
	go func() {
		defer close(seen)
		h.Events(ctx, "", true, func(e report.Event) error { seen <- e; return nil })
	}()
	startRun(r, hostNames(1))
	if e := <-seen; e.Verb != "apply" {
		t.Errorf("the first event is %+v", e)
	}
	workOn(r, "web000")
	r.Watch(report.Event{Kind: report.Done, Message: "the last one"})
	r.End(t.Context(), 0, nil) // the journal is removed at once
	n := 0
	for e := range seen {
		if n++; e.Message == "the last one" {
			break
		}
	}
	if n != 6 {
		t.Errorf("%d events after the first one, want 6", n)
	}
}

// Faults: the run goes on, one warning says what is wrong, and nothing is lost.

func TestAStoreThatIsAwaySlowOrKilled(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // it accepts, by the kernel, and never answers
	own, err := startServer()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(own.dir)
	database := own.database(t)
	for name, row := range map[string]struct {
		store string
		fault func()
		want  string
	}{
		"nobody listens":                      {"postgres://me:" + password + "@127.0.0.1:1/fleet", func() {}, "refused"},
		"it accepts and never answers":        {"postgres://me:" + password + "@" + silent.Addr().String() + "/fleet?sslmode=disable", func() {}, "in time"},
		"it is killed while the run is going": {database, own.stop, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder(t, Keeper{Store: row.store, Patience: time.Second})
			startRun(r, hostNames(1))
			row.fault()
			workOn(r, "web000")
			begun := time.Now()
			warnings := r.End(t.Context(), 0, nil)
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("the end took %s", took)
			}
			if len(warnings) != 1 || !strings.Contains(warnings[0], "a later vsfleet takes it into the store") || !strings.Contains(warnings[0], row.want) {
				t.Errorf("%q", warnings)
			}
			if strings.Contains(fmt.Sprint(warnings), password) {
				t.Errorf("it shows the password: %q", warnings)
			}
			if len(journals(t, r.Keeper)) != 1 {
				t.Error("the journal is gone")
			}
			// The store is back: the next vsfleet takes the run in.
			k := r.Keeper
			k.Store = newDatabase(t)
			if kept := load(t, k); kept.Status != report.KeptOK {
				t.Errorf("%+v", kept.HistoryRecord)
			}
			if len(journals(t, k)) != 0 {
				t.Error("the journal is still there")
			}
		})
	}
}

func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	r := newRecorder(t, Keeper{Dir: dir})
	hosts := hostNames(1000)
	startRun(r, hosts)
	for _, host := range hosts {
		workOn(r, host)
	}
	warnings := r.End(t.Context(), 0, nil)
	if text := strings.Join(warnings, "\n"); len(warnings) > 2 || !strings.Contains(text, "no space left on device") {
		t.Errorf("%q", warnings)
	}
	kept, err := readJournal(journals(t, r.Keeper)[0])
	if err != nil {
		t.Fatal(err)
	}
	if n := kept.Outcomes[outcome.Changed]; n < 100 {
		t.Errorf("%d hosts are kept", n)
	}
}

func TestADirectoryThatCannotBeWrittenTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRecorder(t, Keeper{Dir: filepath.Join(file, "state")})
	startRun(r, hostNames(1))
	workOn(r, "web000")
	if warnings := r.End(t.Context(), 0, nil); len(warnings) != 1 || !strings.Contains(warnings[0], "this run is not kept in the history: ") {
		t.Errorf("%q", warnings)
	}
}

// A disk that does not answer holds a run up once.
func TestADiskThatStalls(t *testing.T) {
	in, out, err := os.Pipe() // whose reader reads nothing
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	j := newJournal(out)
	begun := time.Now()
	line := []byte(strings.Repeat("x", 4096))
	for range 3 * behind {
		j.add(slices.Clone(line), false, false)
	}
	cut, err := j.close()
	if took := time.Since(begun); took > 4*stall {
		t.Errorf("it took %s", took)
	}
	if !cut || !errors.Is(err, errStalled) {
		t.Errorf("cut: %t, %v", cut, err)
	}
	go io.Copy(io.Discard, in) // lets the writer end
	<-j.done
}

func TestManyAtOnce(t *testing.T) {
	k := Keeper{Dir: t.TempDir(), Context: t.Context()}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			r := newRecorder(t, k)
			startRun(r, hostNames(3))
			workOn(r, "web000")
			if warnings := r.End(t.Context(), 0, nil); warnings != nil {
				t.Error(warnings)
			}
		})
	}
	group.Wait()
	h := Open(t.Context(), k)
	defer h.Close()
	if list, err := h.List(t.Context(), Query{}); err != nil || len(list) != 8 {
		t.Errorf("%d runs, %v", len(list), err)
	}
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
