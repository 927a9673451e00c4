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

	MethodSendGuest    Method[SendGuest, SentGuest] = "guest.send"    // data to the controller: its own files; errors: AllSent; data to the node: an index
	MethodReceiveGuest Method[ReceiveGuest, None]   = "guest.receive" // data to the node: its own files
)

// NotifySize notifies the node's end of a stream of a new window Size.
const NotifySize = "size"

// ExportImage requests an image.
type ExportImage struct {
	ID string `json:"id"`
	// Base is the ID of an image that the receiver has: the difference to it is enough.
	Base string `json:"base,omitempty"`
	// Manifest or File ask for no more than the image's manifest or a regular file of it,
	// which is named without a slash at its front: compressed by zstd.
	Manifest bool   `json:"manifest,omitempty"`
	File     string `json:"file,omitempty"`
	// Parts: it comes in parts also without a base, for a receiver that may continue.
	Parts bool `json:"parts,omitempty"`
	From  int  `json:"from,omitempty"` // number of contents that have arrived
}

// Arrived describes the part of an image that a host has from a transfer that broke off.
type Arrived struct {
	Parts    bool `json:"parts"`    // it takes images in parts
	Contents int  `json:"contents"` // of files, in the order in which they come
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

// SendHow is what a guest does while its own files are read.
type SendHow string

// What a guest does; one that is stopped stays so.
const (
	SendLive    SendHow = "live"    // it goes on: more rounds follow
	SendFrozen  SendHow = "frozen"  // it stands still while they are read
	SendStopped SendHow = "stopped" // it is stopped for that, and started again
	// SendLast stops it for the last round of a move. It is started again unless the data
	// to the node end once the controller has received AllSent.
	SendLast SendHow = "last"
)

// AllSent tells the controller that the last round is complete.
const AllSent = "all sent\n"

// SendGuest asks for a guest's own files.
type SendGuest struct {
	Guest string  `json:"guest"`
	How   SendHow `json:"how"`
	// Index: the headers of files have an IDRecord.
	Index bool `json:"index,omitempty"`
	// Since is when the reading began of what is known already. The data to the node begin with
	// its index then: a line for each file in the order in which it was sent, its path below the
	// root as %q has it and its IDRecord; and IndexEnd. Of files that are unchanged since only the
	// names are sent, as hard links to themselves.
	Since int64 `json:"since,omitempty"`
}

// IndexEnd follows an index. IDRecord is the key of the PAX record that changes whenever a file does.
const (
	IndexEnd = ".\n"
	IDRecord = "VSFLEET.id"
)

// SentGuest describes the guest whose files were sent.
type SentGuest struct {
	Image   string `json:"image,omitempty"` // that its files lie on
	Running bool   `json:"running"`         // before
	// Begun is when reading began, in seconds of the host's clock; 0 if what is sent is not to be
	// relied upon by later indexes.
	Begun int64 `json:"begun,omitempty"`
}

// ReceiveGuest makes a guest of files that were sent. It must not be there.
type ReceiveGuest struct {
	Guest Guest  `json:"guest"` // its settings
	Move  string `json:"move,omitempty"`
	// Create the guest; else this is a round of a move. The data of a move came in rounds before.
	Create bool `json:"create"`
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
