package api

import "net/netip"

// Methods of `vsnode stream`, which answers one request in a session of its own,
// with bytes beside the messages (internal/wire.Stream).
const (
	MethodExportImage Method[ExportImage, None]     = "image.export"  // data to the controller: the image
	MethodImportImage Method[ImportImage, None]     = "image.import"  // data to the node: the image
	MethodMakeImage   Method[MakeImage, StepResult] = "image.make"    // data to the node: an OCI layout; errors to the controller: an [Event] per line
	MethodLog         Method[Log, Exit]             = "guest.log"     // data and errors to the controller: text
	MethodExec        Method[Exec, Exit]            = "guest.exec"    // data both ways, errors: the program's streams
	MethodConnect     Method[Connect, None]         = "guest.connect" // data both ways: a TCP connection
	MethodPutFiles    Method[PutFiles, None]        = "guest.put"     // data to the node: a tar stream (node/rootfs)
	MethodGetFiles    Method[GetFiles, None]        = "guest.get"     // data to the controller: a tar stream; errors: what was left out
)

// NotifySize notifies the node's end of a stream of a new window Size.
const NotifySize = "size"

// ExportImage requests an image.
type ExportImage struct {
	ID string `json:"id"`
}

// ImportImage announces an image to a host, which refuses any other.
type ImportImage struct {
	ID string `json:"id"`
}

// MakeImage has a host build an image from what the controller sends: a tar archive of an
// OCI layout.
type MakeImage struct {
	Spec   ImageSpec `json:"spec"`
	Anew   bool      `json:"anew,omitempty"` // as in [Step]
	Source string    `json:"source"`         // as in [Image]
}

// Log requests the last lines that a guest logged.
type Log struct {
	Guest  string `json:"guest"`
	Lines  int    `json:"lines"`
	Follow bool   `json:"follow,omitempty"` // continue with what is logged from now on
}

// Connect asks for a TCP connection to a service of a guest, as one of its own programs
// would make it. It ends when the service has closed its side.
type Connect struct {
	Guest string         `json:"guest"`
	To    netip.AddrPort `json:"to"`
}

// PutFiles puts a tree of files into a guest.
type PutFiles struct {
	Guest string `json:"guest"`
	Path  string `json:"path"`            // absolute; if it is a directory, the tree goes into it
	Owner string `json:"owner,omitempty"` // "user:group"; empty: of what is replaced, else root
}

// GetFiles asks for what is at a path of a guest.
type GetFiles struct {
	Guest string `json:"guest"`
	Path  string `json:"path"` // absolute
}

// MaxArgv is how long a command with its arguments may be, each with a byte for
// its end. The kernel may take less (execve(2), E2BIG).
const MaxArgv = 1 << 20

// Exec asks for a program to be run inside a guest.
type Exec struct {
	Guest string `json:"guest"`
	// Argv are bytes, as the kernel has them: JSON knows only UTF-8. Without any
	// it is the guest's shell, as a login.
	Argv [][]byte `json:"argv,omitempty"`
	As   string   `json:"as,omitempty"`  // user of the guest, by name or ID; empty: root
	Dir  []byte   `json:"dir,omitempty"` // empty: /
	Env  [][]byte `json:"env,omitempty"` // NAME=VALUE, over what every program gets
	// Terminal of the guest's for the program; nil: pipes.
	Terminal *Terminal `json:"terminal,omitempty"`
}

// Terminal is that of the controller, which a guest's is to be like.
type Terminal struct {
	Type string `json:"type"` // TERM
	Size Size   `json:"size"`
}

// Size of a terminal's window, in characters.
type Size struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// Exit is how a program ended, or why it was not run.
type Exit struct {
	Status int    `json:"status"`           // 128 and its number for a signal; what a shell gives for what was not run
	NotRun string `json:"notRun,omitempty"` // why
}
