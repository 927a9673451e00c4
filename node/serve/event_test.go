package serve

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// Progress that nobody reads is dropped after a second; a warning waits.
func TestWarningsAreNotLost(t *testing.T) {
	sent := make(chan struct{})
	c := serve(t, t.Context(), host{apply: func(_ context.Context, _ api.Apply, emit func(api.Event)) (api.ApplyResult, error) {
		emit(api.Event{Kind: api.Started})
		for range 5000 {
			emit(api.Event{Kind: api.Progress, Message: strings.Repeat("x", 100)})
		}
		close(sent)
		emit(api.Event{Kind: api.Warning, Message: "sshd listens on it"})
		return api.ApplyResult{}, nil
	}})
	c.send(1, string(api.MethodApply), `{"run":"r"}`)
	<-sent
	kinds := map[api.EventKind]int{}
	for {
		m := c.receive()
		if m.Method != api.NotifyEvent {
			break // the answer, which comes last
		}
		var e api.Event
		if err := json.Unmarshal(m.Params, &e); err != nil {
			t.Fatal(err)
		}
		kinds[e.Kind]++
	}
	if kinds[api.Started] != 1 || kinds[api.Warning] != 1 || kinds[api.Progress] == 0 || kinds[api.Progress] >= 5000 {
		t.Errorf("received %v", kinds)
	}
}
