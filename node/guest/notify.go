package guest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/procctx"
)

// A guest's init says when the guest is ready by READY=1 on the datagram socket that
// NOTIFY_SOCKET names (sd_notify(3)); systemd does so as process 1 of a container. This
// process listens while it watches a start of a systemd, while a start is to wait until
// the guest is ready (Options.Sync), and while a controller waits for that, for guests
// that it starts itself. Afterwards the socket is closed: what the init sends goes
// nowhere, and sd_notify(3) reports an error that inits ignore.
//
// The socket is in the guest's own /dev, so that only the guest can reach it, and owned
// by its root. What comes is not believed: messages are bounded in size and number, only
// those of process 1 count (their credentials are the kernel's; the guest's root can
// forge those of its own processes, and lies to nobody but its own administrator), and
// descriptors that come with them are dropped by the kernel, as there is no room for
// them.

const (
	notifyName   = ".notify"
	notifySocket = "/dev/" + notifyName

	maxNotes    = 4096 // messages of one start
	maxNote     = 4096 // bytes of one message
	maxStatus   = 200  // bytes of STATUS= that are kept
	readyStatus = "STATUS="
)

// Readiness is what the init of a guest has said since this process started it.
type Readiness struct {
	Started bool // by this process, listening; otherwise nothing is known
	Ready   bool
	Status  string // the last STATUS=
}

// notifiers are the guests whose init is expected to say that it is ready.
type notifiers struct {
	mu sync.Mutex
	of map[string]*notifier
}

type notifier struct {
	mu     sync.Mutex
	socket *os.File // nil: the guest has not been started yet
	said   Readiness
	ready  chan struct{} // closed when said.Ready becomes true
}

// ExpectReady has the starts of a guest listen for READY=1, until ForgetReady.
func (h *Host) ExpectReady(name string) {
	h.notifiers.mu.Lock()
	defer h.notifiers.mu.Unlock()
	if h.notifiers.of == nil {
		h.notifiers.of = map[string]*notifier{}
	}
	if h.notifiers.of[name] == nil {
		h.notifiers.of[name] = &notifier{}
	}
}

// Ready returns what the guest's init has said.
func (h *Host) Ready(name string) Readiness {
	n := h.notifier(name)
	if n == nil {
		return Readiness{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.said.Started {
		return h.readyInUnit(name)
	}
	return n.said
}

// ForgetReady ends the listening.
func (h *Host) ForgetReady(name string) {
	n := h.notifier(name)
	h.notifiers.mu.Lock()
	delete(h.notifiers.of, name)
	h.notifiers.mu.Unlock()
	if n != nil {
		n.close()
	}
}

// notifier returns that of a guest, or nil if nobody waits for it.
func (h *Host) notifier(name string) *notifier {
	h.notifiers.mu.Lock()
	defer h.notifiers.mu.Unlock()
	return h.notifiers.of[name]
}

// wait waits for READY=1.
func (n *notifier) wait(ctx context.Context) error {
	n.mu.Lock()
	ready := n.ready
	n.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (n *notifier) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.socket != nil {
		n.socket.Close() // ends listen
		n.socket = nil
	}
}

// prepare has the guest that is about to be started get a socket, unless its
// administrator has it talk to somebody else. It replaces that of an earlier start.
func (n *notifier) prepare(sp *procctx.Spec, owner int) {
	n.close()
	if hasVariable(sp.Env, "NOTIFY_SOCKET") {
		return
	}
	sp.Env = append(sp.Env, "NOTIFY_SOCKET="+notifySocket)
	sp.AddToDev = func(dev *os.File) error { return n.bind(dev, owner) }
}

func hasVariable(env []string, name string) bool {
	return slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
}

// bind makes the socket in the guest's /dev, which the guest has not seen yet.
func (n *notifier) bind(dev *os.File, owner int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), notifySocket)
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dev.Fd(), notifyName)})
	}
	if err == nil {
		err = unix.Fchmodat(int(dev.Fd()), notifyName, 0o600, 0)
	}
	if err == nil {
		err = unix.Fchownat(int(dev.Fd()), notifyName, owner, owner, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		socket.Close()
		return fmt.Errorf("bind %s: %w", notifySocket, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.socket, n.said, n.ready = socket, Readiness{Started: true}, make(chan struct{})
	return nil
}

// started begins to listen to a guest whose process 1 is known now. What it has sent
// until then waits in the socket.
func (n *notifier) started(initPID int) {
	n.mu.Lock()
	socket := n.socket
	n.mu.Unlock()
	if socket != nil {
		go n.listen(socket, initPID)
	}
}

// listen takes note of messages until the socket is closed. After too many of them it
// closes the socket itself.
func (n *notifier) listen(socket *os.File, initPID int) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	buf, control := make([]byte, maxNote), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for range maxNotes {
		var size, oob int
		var failed error
		err := raw.Read(func(fd uintptr) (done bool) {
			size, oob, _, _, failed = unix.Recvmsg(int(fd), buf, control, unix.MSG_CMSG_CLOEXEC)
			return failed != unix.EAGAIN && failed != unix.EINTR
		})
		if err != nil || failed != nil {
			return
		}
		if senderPID(control[:oob]) == initPID {
			n.note(socket, buf[:size])
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.socket == socket {
		socket.Close()
		n.socket = nil
	}
}

// senderPID returns the process that sent a message, as the kernel says; 0: unknown.
func senderPID(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return 0
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}

// note takes what counts out of a message: lines of NAME=VALUE.
func (n *notifier) note(from *os.File, message []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.socket != from {
		return // of an earlier start
	}
	for line := range bytes.SplitSeq(message, []byte{'\n'}) {
		text := string(line)
		switch status, ok := strings.CutPrefix(text, readyStatus); {
		case text == "READY=1" && !n.said.Ready:
			n.said.Ready = true
			close(n.ready)
		case ok:
			n.said.Status = status[:min(len(status), maxStatus)]
		}
	}
}
