package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/packages"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/images"
)

// ExportImage sends an image, or a part of it, to the controller.
func (h *Host) ExportImage(ctx context.Context, req api.ExportImage, out io.Writer) error {
	switch {
	case req.Manifest || req.File != "":
		return h.Images.Read(ctx, req.ID, req.File, packages.MaxDatabase, out)
	case req.Base != "" || req.Parts:
		return h.Images.ExportDifference(ctx, req.ID, req.Base, req.From, out)
	}
	return h.Images.Export(ctx, req.ID, out)
}

// ImportImage receives an image from the controller.
func (h *Host) ImportImage(ctx context.Context, req api.ImportImage, in io.Reader) error {
	_, _, err := h.Images.Import(ctx, in, req.ID)
	return err
}

// MakeImage builds an image of what the controller sends.
func (h *Host) MakeImage(ctx context.Context, req api.MakeImage, in io.Reader, errs io.Writer) (api.StepResult, error) {
	events := json.NewEncoder(errs)
	progress := func(e api.Event) { _ = events.Encode(e) } // the controller is gone: ctx ends
	return built(h.Images.BuildFrom(ctx, req.Spec, req.Anew, images.Input{Archive: in, Source: req.Source}, progress))
}

// Log shows the last lines of a guest's log.
func (h *Host) Log(ctx context.Context, req api.Log, out, errs io.Writer) (api.Exit, error) {
	run := func(prog guest.Program) (int, error) {
		return h.Guests.RunOver(ctx, req.Guest, prog, guest.Streams{In: strings.NewReader(""), Out: out, Errs: errs})
	}
	note := func(text string) { fmt.Fprintln(errs, text) }
	status, err := h.Guests.ShowLog(ctx, req.Guest, req.Lines, req.Follow, out, note, run)
	return api.Exit{Status: status}, err
}

// Exec runs a program inside a guest. A program that could not be run is an answer,
// not an error: a shell would return a status for it as well.
func (h *Host) Exec(ctx context.Context, req api.Exec, in io.Reader, out, errs io.Writer, sizes <-chan api.Size) (api.Exit, error) {
	prog := guest.Program{Account: req.As, Dir: string(req.Dir)}
	for _, word := range req.Argv {
		prog.Argv = append(prog.Argv, string(word))
	}
	for _, kv := range req.Env {
		prog.Env = append(prog.Env, string(kv))
	}
	s := guest.Streams{In: in, Out: out, Errs: errs}
	if t := req.Terminal; t != nil {
		s.Terminal = &guest.Terminal{Type: t.Type, Size: t.Size, Sizes: sizes}
	}
	status, err := h.Guests.RunOver(ctx, req.Guest, prog, s)
	if err != nil {
		return api.Exit{Status: guest.NotRunStatus(err), NotRun: err.Error()}, nil
	}
	return api.Exit{Status: status}, nil
}

// Connect connects to a service of a guest, and copies bytes in both directions until the
// service closes its side.
func (h *Host) Connect(ctx context.Context, req api.Connect, in io.Reader, out io.Writer) error {
	conn, err := h.Guests.Dial(ctx, req.Guest, req.To)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go func() {
		if _, err := io.Copy(conn, in); err == nil {
			_ = conn.CloseWrite() // or the service has closed it
		}
	}()
	if _, err := io.Copy(out, conn); err != nil {
		return fmt.Errorf("connection to %s of guest %s: %w", req.To, req.Guest, err)
	}
	return nil
}

// PutFiles puts a tree of files into a guest, unless a person has locked the host.
func (h *Host) PutFiles(ctx context.Context, req api.PutFiles, in io.Reader) error {
	if err := h.unlocked(); err != nil {
		return err
	}
	return h.Guests.PutFiles(ctx, req, in)
}

// unlocked returns an error if a person has locked the host.
func (h *Host) unlocked() error {
	lock, err := h.readLock()
	if err == nil && lock != nil {
		err = fmt.Errorf("the host is locked by %s until %s (%s); vsfleet lock release ends that", lock.Owner, lock.Until.Local().Format(time.DateTime), lock.Reason)
	}
	return err
}

// SendGuest sends the own files of a guest. A guest is not stopped for that if a person has
// locked the host.
func (h *Host) SendGuest(ctx context.Context, req api.SendGuest, in io.Reader, out, errs io.Writer) (api.SentGuest, error) {
	if req.How == api.SendStopped || req.How == api.SendLast {
		if err := h.unlocked(); err != nil {
			return api.SentGuest{}, err
		}
	}
	return h.Guests.Send(ctx, req, in, out, errs, guest.Options{})
}

// ReceiveGuest receives the own files of a guest, unless a person has locked the host.
func (h *Host) ReceiveGuest(ctx context.Context, req api.ReceiveGuest, in io.Reader) error {
	if err := h.unlocked(); err != nil {
		return err
	}
	if req.Create && req.Guest.Image != "" {
		if here, err := h.Images.Has(req.Guest.Image); err != nil || !here {
			return errors.Join(err, fmt.Errorf("the host lacks its image, %s", req.Guest.Image))
		}
	}
	return h.Guests.Receive(ctx, req, in)
}

// GetFiles writes the files at a path of a guest.
func (h *Host) GetFiles(ctx context.Context, req api.GetFiles, out, errs io.Writer) error {
	return h.Guests.GetFiles(ctx, req, out, func(text string) { fmt.Fprintln(errs, text) })
}
