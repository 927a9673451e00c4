package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
)

// Send writes a guest's own files, one zstd frame of a tar archive (imagetree.Upper). With
// SendLast the guest is stopped before, and stays so if in ends once they were sent: whoever
// asked has them then. In all other cases, whatever becomes of the controller, a guest that
// was stopped for this is started again. A guest that stands still waits for no connection:
// what is read meanwhile is kept in a file without a name, and sent when it goes on.
func (h *Host) Send(ctx context.Context, req api.SendGuest, in io.Reader, out, errs io.Writer, opt Options) (sent api.SentGuest, err error) {
	before, err := h.readIndex(req, in)
	if err != nil {
		return sent, err
	}
	defer before.Close()
	var live *imagetree.Upper
	err = h.Hold(ctx, req.Guest, "copy", func(g *Guest) error {
		layers, frozen, err := g.layers(ctx)
		if err != nil {
			return err
		}
		u := imagetree.Upper{Begun: req.Since, Sent: before}
		if sent.Running, err = g.running(); err != nil {
			return err
		}
		if sent.Image, u.Own, err = g.lies(layers.Upper, sent.Running); err != nil {
			return err
		}
		if u.From, err = os.Open(layers.Upper); err != nil {
			return err
		}
		if req.How == api.SendLive {
			u.Changing = true
			live = &u
			return nil
		}
		defer u.From.Close()
		switch {
		case req.How == api.SendLast:
			return g.whileStopped(ctx, sent.Running, opt, func() (stay bool, err error) {
				if err := packLayer(ctx, u, req, &sent, out); err != nil {
					return false, err
				}
				if _, err := io.WriteString(errs, api.AllSent); err != nil {
					return false, err
				}
				_, err = io.Copy(io.Discard, in)
				return err == nil, err
			})
		case !sent.Running:
			return packLayer(ctx, u, req, &sent, out)
		case req.How == api.SendStopped:
			frozen = func(ctx context.Context, do func() error) error {
				return g.whileStopped(ctx, true, opt, func() (bool, error) { return false, do() })
			}
		}
		kept, err := h.unnamed()
		if err != nil {
			return err
		}
		defer kept.Close()
		if err := frozen(ctx, func() error { return packLayer(ctx, u, req, &sent, kept) }); err != nil {
			return err
		}
		if _, err := kept.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err = io.Copy(out, kept)
		return err
	})
	if live != nil {
		defer live.From.Close()
		err = packLayer(ctx, *live, req, &sent, out)
	}
	return sent, err
}

// unnamed returns a file that is gone when it is closed, or vsnode ends.
func (h *Host) unnamed() (*os.File, error) {
	return os.OpenFile(h.DataDir, unix.O_TMPFILE|os.O_RDWR, 0o600)
}

// readIndex reads the index that in begins with, before the guest stands still.
func (h *Host) readIndex(req api.SendGuest, in io.Reader) (f *os.File, err error) {
	if f, err = h.unnamed(); err != nil || req.Since == 0 {
		return f, err
	}
	r, w := bufio.NewReader(in), bufio.NewWriter(f)
	for line := ""; line != api.IndexEnd; {
		_, _ = w.WriteString(line) // Flush has its error
		if line, err = r.ReadString('\n'); err != nil {
			f.Close()
			return nil, fmt.Errorf("read the index: %w", err)
		}
	}
	if err = w.Flush(); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return f, err
}

// whileStopped calls do while the guest is stopped. If it ran, it is started again, even if
// ctx has ended, unless do has it stay stopped.
func (g *Guest) whileStopped(ctx context.Context, ran bool, opt Options, do func() (stay bool, err error)) error {
	stay, err := false, error(nil)
	if ran {
		_, err = g.Stop(ctx)
	}
	if err == nil {
		stay, err = do()
	}
	if !ran || stay && err == nil {
		return err
	}
	if on, rerr := g.running(); rerr != nil || on {
		return errors.Join(err, rerr)
	}
	const patience = 2 * time.Minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if serr := g.Start(ctx, opt); serr != nil {
		err = errors.Join(err, fmt.Errorf("start it again: %w", serr))
	}
	return err
}

// lies returns the image below a guest's own files, and what of these is in a tree of its own
// in place of the image.
func (g *Guest) lies(upper string, running bool) (image string, files *imagetree.Own, err error) {
	o, err := ownOf(upper)
	if err != nil {
		return "", nil, err
	}
	if o.id == "" {
		image, err = baseOf(upper)
		return image, nil, err
	}
	domain := g.knownConfig().TrustDomain
	if n, err := g.notes(); running && err == nil && n.Runs != nil { // the configuration may have been edited since
		domain = n.Runs.TrustDomain
	}
	if files, err = g.host.Own(domain, o.id, o.image); err != nil {
		err = fmt.Errorf("its files that are shared with others: %w", err)
	}
	return o.image, files, err
}

// packLayer writes own files.
func packLayer(ctx context.Context, u imagetree.Upper, req api.SendGuest, sent *api.SentGuest, out io.Writer) error {
	// A page that is dirty and mapped changes without a new time.
	if u.Index = req.Index; u.Index && (u.Changing || !sent.Running) {
		sent.Begun = time.Now().Unix()
		if err := unix.Syncfs(int(u.From.Fd())); err != nil {
			return fmt.Errorf("sync %s: %w", u.From.Name(), err)
		}
	}
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(transferWindow), zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	if err := u.Pack(ctx, z); err != nil {
		return err // closing would end the frame as if all had been sent
	}
	return z.Close()
}

// Receive makes a guest of files that [Host.Send] has sent. Its settings are those of req;
// it is not started. The rounds of a move are kept beside until the guest is created.
func (h *Host) Receive(ctx context.Context, req api.ReceiveGuest, in io.Reader) error {
	name := req.Guest.Name
	return h.Hold(ctx, name, "receive", func(g *Guest) error {
		if err := h.exists(name); !errors.Is(err, ErrNoGuest) {
			return errors.Join(err, fmt.Errorf("%w: delete it first, or take another host", ErrExists))
		}
		if !(req.Create && req.Move != "") {
			if err := g.takeRound(ctx, req.Move, in); err != nil {
				return errors.Join(err, imagetree.Remove(h.data(name)))
			}
		}
		if !req.Create {
			return nil
		}
		if move, err := linux.ReadFile(h.receivedMark(name)); err != nil || string(move) != req.Move {
			return errors.Join(err, errors.New("what was sent before is no longer there"))
		}
		if err := g.create(ctx, req.Guest, g.makeReceived); err != nil {
			return errors.Join(err, imagetree.Remove(h.data(name)))
		}
		return nil
	})
}

// takeRound unpacks what is sent. A round before of the same move is there still.
func (g *Guest) takeRound(ctx context.Context, move string, in io.Reader) error {
	h := g.host
	root, before := h.rootDir(g.name), filepath.Join(h.data(g.name), "before")
	var earlier *os.File
	if was, err := linux.ReadFile(h.receivedMark(g.name)); err == nil && move != "" && string(was) == move {
		err := errors.Join(os.Remove(h.receivedMark(g.name)), imagetree.Remove(before), os.Rename(root, before))
		if err == nil {
			earlier, err = os.Open(before)
		}
		if err != nil {
			return err
		}
		defer earlier.Close()
	} else {
		if err := g.host.roomForData(g.name); err != nil {
			return err
		}
		if err := errors.Join(os.Mkdir(h.data(g.name), 0o700), linux.WriteFile(h.incompleteMark(g.name), nil, 0o600), os.Mkdir(h.workDir(g.name), 0o700)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(2*transferWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	if err := imagetree.UnpackUpper(ctx, root, earlier, z); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(z, transferWindow)); err != nil { // the frame's checksum
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // that the sender has ended, not the connection
		return err
	}
	if err := errors.Join(imagetree.Remove(before), syncFS(root)); err != nil {
		return err
	}
	return linux.WriteFile(h.receivedMark(g.name), []byte(move), 0o600)
}

// makeReceived makes what was received a guest's own files, and writes its configuration.
func (g *Guest) makeReceived(ctx context.Context, to api.Guest) error {
	h := g.host
	if err := h.countDisk(ctx, to); err != nil {
		return err
	}
	if to.Image != "" {
		if err := noteBase(h.rootDir(g.name), to.Image); err != nil {
			return err
		}
	}
	if err := g.writeConfig(to, h.rootDir(g.name)); err != nil {
		return errors.Join(err, os.RemoveAll(h.config(g.name)))
	}
	return errors.Join(os.Remove(h.receivedMark(g.name)), os.Remove(h.incompleteMark(g.name)))
}

// transferWindow is zstd's: the memory that sending and receiving take.
const transferWindow = 4 << 20

func (p Paths) receivedMark(name string) string { return filepath.Join(p.data(name), ".received") }
