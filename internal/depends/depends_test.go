package depends_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vsfleet/vsfleet/internal/depends"
)

func TestOrder(t *testing.T) {
	for _, row := range []struct{ name, graph, names, want string }{
		{"without dependencies the order is kept", "", "c a b", "c a b"},
		{"a guest comes after what it needs", "a:b b:c", "a b c", "c b a"},
		{"what is not asked for is left out", "a:b b:c", "a b", "b a"},
		{"the order goes through a guest that is not asked for", "a:b b:c", "a c", "c a"},
		{"a diamond has each once", "a:b,c b:d c:d", "a b c d", "d b c a"},
		{"an unknown guest is as any other", "a:none", "a none", "none a"},
		{"a guest that needs itself", "a:a", "a", "guests depend on each other in a circle: a → a ("},
		{"a circle is named from where it is entered", "x:a a:b b:c c:a", "x", "guests depend on each other in a circle: a → b → c → a ("},
	} {
		t.Run(row.name, func(t *testing.T) {
			order, err := graph(row.graph).Order(strings.Fields(row.names))
			got := strings.Join(order, " ")
			if err != nil {
				got = err.Error()
			}
			if got != row.want && (err == nil || !strings.HasPrefix(got, row.want)) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestAllAndReverse(t *testing.T) {
	g := graph("a:b,c b:d c:d")
	if all := g.All([]string{"a", "x", "a"}); !slices.Equal(all, []string{"a", "x", "b", "c", "d"}) {
		t.Errorf("All is %q", all)
	}
	order, err := g.Reverse().Order([]string{"d", "c", "b", "a"})
	if err != nil || !slices.Equal(order, []string{"a", "b", "c", "d"}) {
		t.Errorf("stops in order %q, %v", order, err)
	}
}

func TestWalkBeginsAGuestAfterWhatItNeeds(t *testing.T) {
	g := graph("web:db,cache db:disk cache:disk mail:disk")
	var mu sync.Mutex
	done := map[string]bool{}
	errs, err := g.Walk(context.Background(), []string{"web", "mail", "db", "cache", "disk"}, 99, func(name string) error {
		mu.Lock()
		defer mu.Unlock()
		for _, on := range g[name] {
			if !done[on] {
				t.Errorf("%s began before %s", name, on)
			}
		}
		done[name] = true
		return nil
	})
	if err != nil || len(errs) != 5 {
		t.Errorf("errors %v, %v", errs, err)
	}
}

func TestWalkIsBounded(t *testing.T) {
	var busy, most atomic.Int32
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprint("g", i))
	}
	full := make(chan struct{}) // closed when three are at work: what was asked for is used
	var once sync.Once
	_, err := depends.Graph{}.Walk(context.Background(), names, 3, func(string) error {
		n := busy.Add(1)
		defer busy.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 3 {
			once.Do(func() { close(full) })
		}
		<-full
		return nil
	})
	if err != nil || most.Load() != 3 {
		t.Errorf("%d at a time, %v", most.Load(), err)
	}
}

func TestWalkDoesNotBeginWhatNeedsAFailure(t *testing.T) {
	broken := errors.New("broken")
	g := graph("web:db db:disk front:web other:fine")
	errs, err := g.Walk(context.Background(), []string{"front", "web", "db", "disk", "other", "fine"}, 2, func(name string) error {
		switch name {
		case "disk":
			return broken
		case "web", "db", "front":
			t.Errorf("%s was begun", name)
		}
		return nil
	})
	if err != nil || errs["other"] != nil || errs["fine"] != nil {
		t.Fatalf("errors %v, %v", errs, err)
	}
	for _, name := range []string{"web", "db", "front"} {
		var needs *depends.NeedsError
		if !errors.As(errs[name], &needs) || needs.On != "disk" || !errors.Is(errs[name], broken) {
			t.Errorf("%s: %v", name, errs[name])
		}
	}
}

func TestWalkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	errs, err := graph("b:a").Walk(ctx, []string{"a", "b", "c"}, 1, func(name string) error {
		cancel()
		return nil
	})
	if err != nil || errs["a"] != nil || !errors.Is(errs["b"], context.Canceled) || !errors.Is(errs["c"], context.Canceled) {
		t.Errorf("errors %v, %v", errs, err)
	}
}

// graph reads "a:b,c d:e".
func graph(text string) depends.Graph {
	g := depends.Graph{}
	for _, f := range strings.Fields(text) {
		name, on, _ := strings.Cut(f, ":")
		g[name] = strings.Split(on, ",")
	}
	return g
}
