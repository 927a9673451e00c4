// Command vsnode is for the tests of fleet/push and fleet/remote: it answers for a
// made-up host, and does in each step what the step's name says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/serve"
)

// flavour gives builds different hashes.
var flavour string

func main() {
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve.Serve(context.Background(), os.Stdin, os.Stdout, host{})
	case "stream":
		err = serve.Stream(context.Background(), os.Stdin, os.Stdout, host{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// host has no answer to requests without a method here: they panic, which package serve
// answers by an error.
type host struct {
	serve.Host
	serve.StreamHost
}

func (host) State(context.Context) (api.State, error) {
	return api.State{Host: api.Host{Hostname: "fake", Version: flavour}}, nil
}

func (host) Check(context.Context) (api.Check, error) {
	return api.Check{}, errors.New("check\x1b[2J fails\nhere")
}

func (host) Stat(ctx context.Context) (api.Stat, error) {
	<-ctx.Done()
	return api.Stat{}, ctx.Err()
}

func (host) Lease(_ context.Context, req api.Lease) (api.LeaseAnswer, error) {
	return api.LeaseAnswer{By: api.Holder{Owner: "root@\x1b[2Jctl", Reason: req.Holder.Reason + strings.Repeat("!", 10_000)}}, nil
}

func (host) Files(context.Context, api.FilesRequest) (api.FilesAnswer, error) {
	return api.FilesAnswer{}, nil
}
func (host) Heard() {}

func (host) Release(context.Context) error { return nil }

func (host) Install(context.Context) (api.Installed, error) { return api.Installed{}, nil }

func (host) RemoveImage(context.Context, api.RemoveImage) (api.RemovedImage, error) {
	return api.RemovedImage{ID: "../../etc"}, nil
}

// Apply carries out each step by its name; Why is a file.
func (host) Apply(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error) {
	var r api.ApplyResult
	for i, s := range req.Steps {
		result := api.StepResult{Outcome: api.Changed}
		switch s.Name {
		case "count":
			for n := range 500 {
				emit(api.Event{Run: req.Run, Kind: api.Progress, Step: i, Message: "counting", Done: int64(n), Total: 500})
			}
		case "wait":
			emit(api.Event{Run: req.Run, Kind: api.Progress, Step: i, Message: "waiting"})
			<-ctx.Done()
			for range 100 { // nobody reads them if the controller is gone
				emit(api.Event{Run: req.Run, Kind: api.Progress, Step: i, Message: "undoing"})
			}
			if err := os.WriteFile(s.Why, []byte("undone"), 0o600); err != nil {
				return r, err
			}
			result.Outcome = api.Skipped
		case "panic":
			panic("as asked")
		case "die":
			os.Exit(3)
		case "lie":
			emit(api.Event{Run: req.Run, Kind: api.Progress, Step: 1 << 40})
		case "forget":
			continue
		}
		r.Results = append(r.Results, result)
	}
	return r, nil
}
