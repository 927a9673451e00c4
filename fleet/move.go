package fleet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/backup"
	"github.com/vsfleet/vsfleet/fleet/remote"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// MoveOptions are how a guest is moved.
type MoveOptions struct {
	Volumes  bool         // a guest with volumes is moved without them
	Delete   bool         // the old copy; else it is set aside
	Progress func(string) // called with what is done
}

// Move moves a guest to another host, which the inventory must already name for it. Its own
// files are sent while it runs; then it is stopped, and sent is what has changed since. The
// old copy is started again if anything fails, by its host itself if this machine is lost.
//
// Never do both run: the old host is told that the guest stays stopped before the new one
// starts it. If vsfleet is killed between the two, none runs, and the next Move goes on.
func (a *Access) Move(ctx context.Context, inv *inventory.Inventory, from, to inventory.Instance, opt MoveOptions) report.Host {
	return a.changed("guest move", to, func() error { return a.move(ctx, inv, from, to, opt) })
}

// move is a move under way.
type move struct {
	*Access
	MoveOptions
	id       string
	from, to inventory.Instance
	old, new *Node
	settings api.Guest
	image    string
	ran      bool
}

func (a *Access) move(ctx context.Context, inv *inventory.Inventory, from, to inventory.Instance, opt MoveOptions) error {
	m := &move{Access: a, MoveOptions: opt, id: report.NewID(time.Now()), from: from, to: to}
	var err error
	if m.old, err = a.Open(ctx, from.Host); err != nil {
		return err
	}
	defer m.old.Close()
	was, release, err := a.lease(ctx, m.old, "guest move")
	if err != nil {
		return fmt.Errorf("%s: %w", from.Host.Name, err)
	}
	defer release()
	if m.new, err = a.Open(ctx, to.Host); err != nil {
		return err
	}
	defer m.new.Close()
	state, release, err := a.lease(ctx, m.new, "guest move")
	if err != nil {
		return err
	}
	defer release()
	now, there := guestOf(was, from.Guest.Name), guestOf(state, to.Guest.Name)
	switch {
	case now == nil && there == nil:
		return fmt.Errorf("neither %s nor %s has a guest %s", from.Host.Name, to.Host.Name, to.Guest.Name)
	case now == nil: // an earlier move has come so far
		return m.finish(ctx, []api.Step{{Kind: api.StepStart, Name: to.Guest.Name}})
	case there != nil && there.Status == api.Running && now.Status != api.Running:
		m.Delete = false // it may be another guest of the same name
		return m.leave(ctx)
	case there != nil:
		return fmt.Errorf("both hosts have it, %s on %s and %s on %s: if an earlier move was cut off, the later copy is that of %s; delete the other one (vsfleet guest delete %s), or this one, and run this again",
			now.Status, from.Host.Name, there.Status, to.Host.Name, to.Host.Name, place(from))
	}
	var steps []api.Step
	if m.settings, steps, err = a.wanted(ctx, inv, to, state); err != nil {
		return err
	}
	if len(now.Volumes) > 0 && !opt.Volumes {
		return fmt.Errorf("its volumes do not move (%s): copy what is in them, and run this again with --leave-volumes", volumes(now.Guest))
	}
	m.ran = now.Status == api.Running
	if err := m.rounds(ctx, inv, state); err != nil {
		return err
	}
	if err := m.finish(ctx, steps); err != nil {
		return m.goBack(ctx, err)
	}
	return m.leave(ctx)
}

// rounds sends the guest's files. When it returns without an error, the old copy is stopped,
// and stays so, and the new one is created.
func (m *move) rounds(ctx context.Context, inv *inventory.Inventory, state api.State) error {
	name, last := m.from.Guest.Name, api.SendGuest{Guest: m.from.Guest.Name, How: api.SendLast}
	var sent api.SentGuest
	var index []byte
	if m.ran {
		m.Progress("copy its files while it runs")
		err := m.round(ctx, func(ctx context.Context, w io.Writer) error {
			var err error
			sent, index, err = sendIndexed(ctx, m.old, api.SendGuest{Guest: name, How: api.SendLive, Index: true}, w)
			m.image = sent.Image
			return err
		})
		if err != nil {
			return err
		}
		last.Since = sent.Begun
		if err := m.bring(ctx, inv, m.image, m.to.Host, m.new, state, m.Progress); err != nil {
			return err
		}
		m.Progress("stop it, copy what has changed")
	}
	complete, commit := io.Pipe() // nothing is written to it; it ends when the new host has all
	defer commit.CloseWithError(errors.New("the move has failed"))
	done := make(chan error, 1)
	arrived := make(chan error, 1)
	r, w := io.Pipe()
	go func() {
		var err error
		sent, err = m.old.SendGuest(ctx, last, remote.Streams{In: io.MultiReader(bytes.NewReader(index), complete), Out: w, Errs: whenSent(func() { w.Close() })})
		w.CloseWithError(cmp.Or(err, io.ErrUnexpectedEOF)) // unless all was sent
		done <- err
	}()
	go func() {
		err := m.new.ReceiveGuest(ctx, api.ReceiveGuest{Guest: api.Guest{Name: name}, Move: m.id}, r)
		r.CloseWithError(err)
		arrived <- err
	}()
	if err := <-arrived; err != nil {
		commit.CloseWithError(err)
		return firstCause(err, <-done)
	}
	commit.Close()
	if err := <-done; err != nil { // whether it stays stopped is not known
		return m.goBack(ctx, err)
	}
	if !m.ran {
		m.image = sent.Image
		if err := m.bring(ctx, inv, m.image, m.to.Host, m.new, state, m.Progress); err != nil {
			return m.goBack(ctx, err)
		}
	}
	m.settings.Image = m.image
	if err := m.new.ReceiveGuest(ctx, api.ReceiveGuest{Guest: m.settings, Move: m.id, Create: true}, strings.NewReader("")); err != nil {
		return m.goBack(ctx, err)
	}
	return nil
}

// sendIndexed has a host send a guest's files, and returns their index.
func sendIndexed(ctx context.Context, node *Node, req api.SendGuest, w io.Writer) (sent api.SentGuest, index []byte, err error) {
	err = piped(ctx, func(ctx context.Context, both io.Writer) (err error) {
		sent, err = node.SendGuest(ctx, req, remote.Streams{Out: io.MultiWriter(w, both)})
		return err
	}, func(ctx context.Context, r io.Reader) (err error) {
		index, err = backup.ReadIndex(ctx, r)
		return err
	})
	return sent, index, err
}

// round sends what send writes to the new host.
func (m *move) round(ctx context.Context, send func(context.Context, io.Writer) error) error {
	return piped(ctx, send, func(ctx context.Context, r io.Reader) error {
		return m.new.ReceiveGuest(ctx, api.ReceiveGuest{Guest: api.Guest{Name: m.from.Guest.Name}, Move: m.id}, r)
	})
}

// firstCause returns the error that is not only the end of the other side's stream.
func firstCause(target, source error) error {
	if source != nil && !errors.Is(target, source) && !errors.Is(source, target) {
		return errors.Join(source, target)
	}
	return target
}

// whenSent is a writer that calls a function when [api.AllSent] is written to it.
type whenSent func()

func (f whenSent) Write(b []byte) (int, error) {
	if string(b) == api.AllSent {
		f()
	}
	return len(b), nil
}

// finish takes the steps that follow the creation: files, start, health.
func (m *move) finish(ctx context.Context, steps []api.Step) error {
	if len(steps) > 0 {
		m.Progress(fmt.Sprintf("start it on %s", m.to.Host.Name))
	}
	return take(ctx, m.new, steps)
}

// goBack removes the new copy and starts the old one, whether ctx has ended or not.
func (m *move) goBack(ctx context.Context, cause error) error {
	const patience = 5 * time.Minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	name := m.from.Guest.Name
	// First the new one ends: never do both run.
	if err := take(ctx, m.new, []api.Step{{Kind: api.StepDelete, Name: name}}); err != nil {
		return errors.Join(cause, fmt.Errorf("the new copy could not be removed, so the old one was not started (vsfleet guest start %s): %w", place(m.from), err))
	}
	if !m.ran {
		return fmt.Errorf("%w; it is as before on %s", cause, m.from.Host.Name)
	}
	if err := take(ctx, m.old, []api.Step{{Kind: api.StepStart, Name: name}}); err != nil {
		return errors.Join(cause, fmt.Errorf("start it again on %s: %w", m.from.Host.Name, err))
	}
	return fmt.Errorf("%w; it runs on %s again", cause, m.from.Host.Name)
}

// leave gives the old copy up.
func (m *move) leave(ctx context.Context) error {
	step := api.Step{Kind: api.StepAside, Name: m.from.Guest.Name}
	if m.Delete {
		step.Kind = api.StepDelete
	}
	if err := take(ctx, m.old, []api.Step{step}); err != nil {
		return fmt.Errorf("it is on %s now; the old copy, which is stopped: %w", m.to.Host.Name, err)
	}
	return nil
}
