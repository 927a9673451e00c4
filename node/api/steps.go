package api

import "time"

// Kinds of steps that are in no plan, only in playbooks. Name is the guest that a step
// is about; without one it is about the host itself. So may a [StepFiles] be.
const (
	StepExec StepKind = "exec" // Exec
	StepWait StepKind = "wait" // Wait
	StepStat StepKind = "stat" // Path
)

// MaxOutput is how many bytes of each output stream of a command are kept.
const MaxOutput = 32 << 10

// Command is a program to run on a host or inside a guest, as root. Its words are
// bytes, as the kernel has them.
type Command struct {
	Argv    [][]byte      `json:"argv"`
	Env     [][]byte      `json:"env,omitempty"` // NAME=VALUE, besides PATH and HOME
	Stdin   []byte        `json:"stdin,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // 0: none
	// If Creates exists or Removes does not, there is nothing to do.
	Creates string `json:"creates,omitempty"`
	Removes string `json:"removes,omitempty"`
}

// Ran is how a command ended.
type Ran struct {
	Status int    `json:"status"` // 128 and its number for a signal
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Cut    bool   `json:"cut,omitempty"` // there was more output than MaxOutput
}

// Wait is a condition to wait for: one of its fields, or the absence of it.
type Wait struct {
	TCP     string        `json:"tcp,omitempty"`  // ADDRESS:PORT that somebody listens on, as seen from there
	File    string        `json:"file,omitempty"` // that exists
	Command [][]byte      `json:"command,omitempty"`
	For     time.Duration `json:"for,omitempty"`     // only wait
	Absent  bool          `json:"absent,omitempty"`  // until it is no longer so
	Timeout time.Duration `json:"timeout,omitempty"` // until the step fails
}

// FileInfo describes a file of a host or a guest. Links are not followed.
type FileInfo struct {
	Exists bool   `json:"exists"`
	Kind   string `json:"kind,omitempty"` // file, directory, link or other
	Bytes  int64  `json:"bytes,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	UID    int    `json:"uid,omitempty"` // as the guest numbers it
	GID    int    `json:"gid,omitempty"`
	Digest string `json:"digest,omitempty"` // FileDigest, of a file of at most MaxFile
}
