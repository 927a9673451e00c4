package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// Each asks two hosts at a time; results come in the order of the hosts.
func ExampleEach() {
	length := func(ctx context.Context, host string) (int, error) {
		if host == "db1" {
			return 0, errors.New("out of order")
		}
		return len(host), nil
	}
	hosts := []string{"web01", "db1", "mail"}
	limits := fanout.Limits{Forks: 2, Timeout: time.Minute}
	results := fanout.Each(context.Background(), hosts, limits, length, fanout.Watch[string, int]{})
	for _, r := range results {
		fmt.Println(r.Host, r.Value, r.Outcome, r.Err)
	}
	fmt.Println("exit status", outcome.ExitCode(false, fanout.Outcomes(results)...))
	// Output:
	// web01 5 ok <nil>
	// db1 0 failed out of order
	// mail 4 ok <nil>
	// exit status 2
}
