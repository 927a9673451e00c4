package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/console"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// maxLog limits how much of a log is read: logs written by older vsnodes grew without
// bound.
const maxLog = 1 << 20

// attachConsole gives a guest its console. If there is none the guest starts anyway,
// and its console output is lost.
func (s *start) attachConsole(context.Context) error {
	path := s.host.consoleLog(s.name)
	if st, err := os.Lstat(path); err == nil && st.Size() > 0 {
		_ = os.Rename(path, path+".1") // a convenience for people: not a reason not to start
	}
	err := console.Attach(s.spec.Cgroup, s.noted.console())
	if errors.Is(err, console.ErrUnsupported) {
		if s.Warn != nil {
			s.Warn("what the guest writes to its console is lost: " + err.Error())
		}
		return nil
	}
	if err != nil {
		return err
	}
	s.spec.ConsoleNode = console.Node
	// systemd would start a login there, which wants a terminal and fails.
	s.spec.DevConsole = !s.config.ownInit() || !bootsSystemd(s.spec.Root)
	return nil
}

// bootsSystemd reports whether the /sbin/init of a stopped guest is systemd.
func bootsSystemd(r procctx.Root) bool {
	for _, dir := range []string{r.Upper, r.Image} {
		if dir == "" {
			continue
		}
		if image, ok := r.Described(); ok && dir == r.Image {
			target, err := os.Readlink(image + procctx.InitLink)
			return err == nil && strings.Contains(target, "systemd")
		}
		root, err := os.OpenRoot(dir) // the guest may have made links in it
		if err != nil {
			continue
		}
		target, err := root.Readlink("sbin/init")
		if errors.Is(err, fs.ErrNotExist) {
			target, err = root.Readlink("usr/sbin/init")
		}
		root.Close()
		if err == nil {
			return strings.Contains(target, "systemd")
		}
	}
	return false
}

// output holds what a guest wrote to its console since its last start.
type output struct {
	console.Text
	live bool   // the console still exists; otherwise it was saved
	file uint64 // inode of the guest's cgroup, or of the file it was saved to: differs for each start
}

func (h *Host) output(name string) (o output, err error) {
	_, cg, err := h.cgroup(name)
	if err == nil {
		o.Text, err = console.Read(string(cg))
		if !errors.Is(err, console.ErrNone) {
			o.live = true
			if info, err := os.Stat(string(cg)); err == nil {
				o.file = info.Sys().(*syscall.Stat_t).Ino
			}
			return o, err
		}
	} else if !errors.Is(err, cgroup.ErrNotMounted) {
		return o, err
	}
	f, err := os.Open(h.consoleLog(name))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return o, err
	}
	info, err := f.Stat()
	if err != nil {
		return o, err
	}
	o.file = info.Sys().(*syscall.Stat_t).Ino
	from := max(0, size-maxLog)
	o.Bytes, err = io.ReadAll(io.NewSectionReader(f, from, size-from))
	o.Total = uint64(size)
	return o, err
}

// saveConsole writes the console of a guest that has ended to its log, before the
// cgroup is removed and the console with it. A full disk must not prevent a guest from
// stopping.
func (g *Guest) saveConsole(ctx context.Context) error {
	t, err := console.Read(string(g.cgroup))
	if errors.Is(err, console.ErrNone) { // or it has been removed with its cgroup
		return g.forgetConsole()
	}
	if err == nil {
		err = os.MkdirAll(g.host.LogDir, 0o750)
	}
	if err == nil {
		err = linux.ReplaceFile(g.host.consoleLog(g.name), t.Bytes, 0o640)
	}
	if err != nil {
		warn(ctx, "what it wrote to its console is lost: "+err.Error())
	}
	return g.forgetConsole()
}

func (g *Guest) forgetConsole() error {
	if g.noted == nil {
		return nil
	}
	return console.Forget(string(g.cgroup), g.noted.console())
}

// console identifies what the guest writes to its console from this start on.
func (s notes) console() console.Start {
	return console.Start{Since: s.Boot, Context: s.Context}
}

// Log writes the last lines of a guest's console. With follow it goes on with what the
// guest writes, across stops and starts, until ctx ends or the reader is gone.
func (h *Host) Log(ctx context.Context, name string, lines int, follow bool, w io.Writer) error {
	if err := h.exists(name); err != nil {
		return err
	}
	last, err := h.output(name)
	if err != nil {
		return fmt.Errorf("guest %s: %w", name, err)
	}
	if _, err := w.Write(lastLines(last.Bytes, lines)); err != nil || !follow {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
		now, err := h.output(name)
		if err != nil {
			return fmt.Errorf("guest %s: %w", name, err)
		}
		if _, err := w.Write(newOutput(last, now)); err != nil {
			return err
		}
		if outputAbandoned() {
			return nil
		}
		last = now
	}
}

// followEvery is how often a followed console is polled.
const followEvery = 250 * time.Millisecond

// newOutput returns the part of now that was not in last.
func newOutput(last, now output) []byte {
	switch {
	case last.live == now.live && last.file == now.file && now.Total >= last.Total:
		more := min(now.Total-last.Total, uint64(len(now.Bytes)))
		return now.Bytes[len(now.Bytes)-int(more):]
	case last.live && !now.live:
		// The guest has ended, and the rest of its output has been saved.
		tail := last.Bytes[max(0, len(last.Bytes)-4096):]
		if at := bytes.LastIndex(now.Bytes, tail); at >= 0 {
			return now.Bytes[at+len(tail):]
		}
	}
	return now.Bytes // from another start
}

func lastLines(b []byte, lines int) []byte {
	at := len(b)
	if bytes.HasSuffix(b, []byte("\n")) {
		at--
	}
	for range lines {
		if at = bytes.LastIndexByte(b[:max(0, at)], '\n'); at < 0 {
			return b
		}
	}
	if lines <= 0 {
		return nil
	}
	return b[at+1:]
}

// LogsToJournal reports whether a guest runs systemd, which keeps a journal and does
// not write to a console that is not a terminal.
func (h *Host) LogsToJournal(name string) bool {
	_, cg, err := h.cgroup(name)
	if err != nil {
		return false
	}
	t, err := console.Read(string(cg))
	if err != nil || t.Total > 0 {
		return false
	}
	pid, err := cg.Init()
	return err == nil && pid != 0 && procctx.IsSystemd(pid)
}

// ShowLog shows the last log lines of a guest, from its console (Log) or from its
// journal. For the journal it has run execute journalctl inside the guest. It calls
// note with other places to look. It returns the exit status.
func (h *Host) ShowLog(ctx context.Context, name string, lines int, follow bool, out io.Writer, note func(string), run func(Program) (int, error)) (int, error) {
	if h.LogsToJournal(name) {
		note(fmt.Sprintf("Vserver '%s' logs to its journal, which follows", name))
		argv := []string{"journalctl", "--no-pager", "-n", strconv.Itoa(lines)}
		if follow {
			argv = append(argv, "-f")
		}
		return run(Program{Argv: argv})
	}
	if dir := h.Journal(name); dir != "" {
		note(fmt.Sprintf("Vserver '%s' is not running; its journal is on the host: journalctl -D %s", name, dir))
	}
	return 0, h.Log(ctx, name, lines, follow, WithoutControls(out))
}

// Journal returns the directory on the host that holds a stopped guest's journal, or ""
// if there is none. Reading it is left to the caller: the files are the guest's.
func (h *Host) Journal(name string) string {
	if running, err := h.Running(name); err != nil || running {
		return ""
	}
	c, err := h.Read(name)
	if err != nil {
		return ""
	}
	root, err := os.OpenRoot(c.Root)
	if err != nil {
		return ""
	}
	defer root.Close()
	const dir = "var/log/journal"
	if info, err := root.Stat(dir); err != nil || !info.IsDir() { // links that lead out of the guest are errors
		return ""
	}
	return filepath.Join(c.Root, dir)
}

// lastLine returns the last line that is not blank, shortened and made safe for a
// terminal.
func lastLine(b []byte) string {
	const longest = 300
	line := bytes.TrimSpace(b)
	line = bytes.TrimSpace(line[bytes.LastIndexByte(line, '\n')+1:])
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, string(line[:min(len(line), longest)]))
	if len(line) > longest {
		text += "…"
	}
	return text
}

// plainWriter writes a guest's output without the characters that control a terminal.
type plainWriter struct{ w io.Writer }

// WithoutControls returns a writer to w that drops control characters except line
// breaks and tabs.
func WithoutControls(w io.Writer) io.Writer { return plainWriter{w} }

func (c plainWriter) Write(b []byte) (int, error) {
	safe := bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, b)
	if _, err := c.w.Write(safe); err != nil {
		return 0, err
	}
	return len(b), nil
}
