package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// methods are all methods that can be called, by name.
type methods map[string]func(ctx context.Context, params json.RawMessage) (answer any, err error)

// methodsOf returns the methods of a session.
func methodsOf(h Host, emit func(api.Event)) methods {
	m := methods{}
	plain(m, api.MethodState, h.State)
	plain(m, api.MethodCheck, h.Check)
	plain(m, api.MethodStat, h.Stat)
	plain(m, api.MethodUsage, h.Usage)
	plain(m, api.MethodGenerations, h.Generations)
	plain(m, api.MethodInstall, h.Install)
	plain(m, api.MethodRelease, func(ctx context.Context) (api.None, error) { return api.None{}, h.Release(ctx) })
	with(m, api.MethodLease, h.Lease)
	plain(m, api.MethodLocks, h.Locks)
	with(m, api.MethodLock, func(ctx context.Context, req api.Lock) (api.None, error) { return api.None{}, h.Lock(ctx, req) })
	with(m, api.MethodUnlock, h.Unlock)
	with(m, api.MethodConfirm, h.Confirm)
	with(m, api.MethodFiles, h.Files)
	with(m, api.MethodStale, h.Stale)
	with(m, api.MethodRemoveImage, h.RemoveImage)
	with(m, api.MethodHashify, h.Hashify)
	plain(m, api.MethodVolumes, h.Volumes)
	with(m, api.MethodDelVolume, h.DeleteVolume)
	with(m, api.MethodCollect, h.CollectImages)
	with(m, api.MethodArrived, h.Arrived)
	plain(m, api.MethodCheckStore, h.CheckStore)
	with(m, api.MethodApply, func(ctx context.Context, req api.Apply) (api.ApplyResult, error) { return h.Apply(ctx, req, emit) })
	return m
}

// plain adds a method without parameters.
func plain[A any](m methods, method api.Method[api.None, A], do func(context.Context) (A, error)) {
	m[string(method)] = func(ctx context.Context, _ json.RawMessage) (any, error) { return do(ctx) }
}

// with adds a method with parameters.
func with[R, A any](m methods, method api.Method[R, A], do func(context.Context, R) (A, error)) {
	name := string(method)
	m[name] = func(ctx context.Context, params json.RawMessage) (any, error) {
		var req R
		if err := decode(name, params, &req); err != nil {
			return nil, err
		}
		return do(ctx, req)
	}
}

// decode reads the parameters of a request. Both ends are one version, so an unknown
// field is a mistake; it must not lead to a plan that is half understood.
func decode(method string, params json.RawMessage, into any) error {
	dec := json.NewDecoder(bytes.NewReader(params))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return &wire.Error{Code: wire.CodeInvalidParams, Message: fmt.Sprintf("%s: %v", method, err)}
	}
	return nil
}

// answer carries out a request and returns the response. A panic is an error of this
// request.
func (m methods) answer(ctx context.Context, req wire.Message) (response wire.Message) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "vsnode: %s: panic: %v\n%s", req.Method, p, debug.Stack())
			response = wire.Message{ID: req.ID, Error: &wire.Error{Code: wire.CodeInternal, Message: fmt.Sprintf("%s: panic: %v", req.Method, p)}}
		}
	}()
	if req.ID == 0 || req.Method == "" {
		return respond(req.ID, nil, &wire.Error{Code: wire.CodeInvalidRequest, Message: "not a request: id or method is missing"})
	}
	do := m[req.Method]
	if do == nil {
		return respond(req.ID, nil, &wire.Error{Code: wire.CodeNoSuchMethod, Message: fmt.Sprintf("unknown request %q", req.Method)})
	}
	answer, err := do(ctx, req.Params)
	return respond(req.ID, answer, err)
}

// respond returns the response to a request, with its result or its error.
func respond(id int64, answer any, err error) wire.Message {
	m := wire.Message{ID: id}
	if err == nil {
		if m.Result, err = json.Marshal(answer); err != nil {
			err = &wire.Error{Code: wire.CodeInternal, Message: err.Error()}
		}
	}
	if err != nil && !errors.As(err, &m.Error) {
		m.Error = &wire.Error{Code: wire.CodeFailed, Message: err.Error()}
	}
	return m
}
