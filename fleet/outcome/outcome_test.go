package outcome

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

type kinded string

func (e kinded) Error() string     { return "it is " + string(e) }
func (e kinded) ErrorKind() string { return string(e) }
func (e kinded) Unreachable() bool { return e == "unreachable" || e == "dns" }

func TestErrors(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want Outcome
		kind Kind
	}{
		{"no error is well", nil, OK, ""},
		{"an error without a kind is the host's", errors.New("disk is full"), Failed, KindHost},
		{"an error of the connection, however wrapped", fmt.Errorf("ping: %w", kinded("unreachable")), Unreachable, KindUnreachable},
		{"an error of the connection with a reason", fmt.Errorf("ping: %w", kinded("dns")), Unreachable, KindDNS},
		{"an error of another kind", fmt.Errorf("apply: %w", kinded("locked")), Failed, KindLocked},
		{"Ctrl-C", fmt.Errorf("plan: %w", ErrInterrupted), Failed, KindInterrupted},
		{"a connection that was cut by Ctrl-C is lost all the same", errors.Join(kinded("unreachable"), context.Canceled), Unreachable, KindInterrupted},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, kind := Of(row.err), KindOf(row.err); got != row.want || kind != row.kind {
				t.Errorf("%q of kind %q, want %q of kind %q", got, kind, row.want, row.kind)
			}
		})
	}
}

func TestWorst(t *testing.T) {
	for _, row := range []struct {
		name string
		of   []Outcome
		want Outcome
	}{
		{"of none all is well", nil, OK},
		{"what has not ended is not bad", []Outcome{"", OK}, OK},
		{"a change is more than none", []Outcome{OK, Changed, OK}, Changed},
		{"one failure outweighs all", []Outcome{Changed, Failed, Unreachable, OK}, Failed},
		{"what was taken back is worse than what was not begun", []Outcome{Stopped, Reverted, NotStarted}, Reverted},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := Worst(row.of...); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestExitCode(t *testing.T) {
	for _, row := range []struct {
		name        string
		interrupted bool
		outcomes    []Outcome
		want        int
	}{
		{"no hosts", false, nil, 0},
		{"all well", false, []Outcome{OK, Changed}, 0},
		{"some host failed", false, []Outcome{OK, Failed, Failed}, 2},
		{"some host unreachable", false, []Outcome{Unreachable, OK}, 4},
		{"failed and unreachable add up", false, []Outcome{Unreachable, OK, Failed}, 6},
		{"a host that was not begun is not done", false, []Outcome{OK, NotStarted}, 2},
		{"what was taken back is not done", false, []Outcome{OK, Reverted}, 2},
		{"the stop rule has a status of its own", false, []Outcome{Failed, Unreachable, Stopped}, 8},
		{"interrupted is interrupted, whatever the hosts say", true, []Outcome{OK, Failed, Stopped}, 130},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := ExitCode(row.interrupted, row.outcomes...); got != row.want {
				t.Errorf("%d, want %d", got, row.want)
			}
		})
	}
}
