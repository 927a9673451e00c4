package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// request does what a message of one method asks for.
type request func(ctx context.Context, s *server, m wire.Message) (answer any, err error)

// requests are all that a host can be asked, by method.
var requests = table(
	plain(api.MethodState, Host.State),
	plain(api.MethodCheck, Host.Check),
	plain(api.MethodStat, Host.Stat),
	plain(api.MethodInstall, Host.Install),
	plain(api.MethodRelease, func(h Host, ctx context.Context) (api.None, error) { return api.None{}, h.Release(ctx) }),
	with(api.MethodLease, Host.Lease),
	with(api.MethodFiles, Host.Files),
	with(api.MethodRemoveImage, Host.RemoveImage),
	emitting(api.MethodApply, Host.Apply),
)

// row is one method and what does it.
type row struct {
	method string
	do     request
}

func table(rows ...row) map[string]request {
	t := map[string]request{}
	for _, r := range rows {
		t[r.method] = r.do
	}
	return t
}

// plain is a method that says all by its name.
func plain[A any](method api.Method[api.None, A], do func(Host, context.Context) (A, error)) row {
	return row{string(method), func(ctx context.Context, s *server, _ wire.Message) (any, error) { return do(s.host, ctx) }}
}

// with is a method that asks for something.
func with[R, A any](method api.Method[R, A], do func(Host, context.Context, R) (A, error)) row {
	return emitting(method, func(h Host, ctx context.Context, req R, _ func(api.Event)) (A, error) { return do(h, ctx, req) })
}

// emitting is a method whose work emits events.
func emitting[R, A any](method api.Method[R, A], do func(Host, context.Context, R, func(api.Event)) (A, error)) row {
	return row{string(method), func(ctx context.Context, s *server, m wire.Message) (any, error) {
		var req R
		if err := decode(m, &req); err != nil {
			return nil, err
		}
		return do(s.host, ctx, req, s.say)
	}}
}

// decode reads what a request asks for. Both ends are one version: a field that
// this one does not know is a mistake, and it must not be a plan that is half
// understood.
func decode(m wire.Message, into any) error {
	dec := json.NewDecoder(bytes.NewReader(m.Params))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return &wire.Error{Code: wire.CodeInvalidParams, Message: fmt.Sprintf("%s: %v", m.Method, err)}
	}
	return nil
}
