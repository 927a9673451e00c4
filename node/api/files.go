package api

import (
	"crypto/sha256"
	"encoding/hex"
)

// Limits of the files that an inventory provides to a guest or an image.
const (
	MaxFile  = 1 << 20 // bytes of one file
	MaxFiles = 4 << 20 // bytes of all files of a guest or image

	MaxShown    = 32 << 10 // bytes of a file that a host shows for a diff
	MaxShownAll = 4 << 20  // bytes of all that it shows in one answer
)

// File is a file that a guest or an image should have.
type File struct {
	Path   string `json:"path"`   // absolute and clean
	Digest string `json:"digest"` // FileDigest of the content
	// Content is set only if the file is to be written.
	Content  []byte   `json:"content,omitempty"`
	Mode     uint32   `json:"mode"`             // permission bits, set-ids and sticky among them
	Owner    string   `json:"owner"`            // "user:group", names or ids of the guest
	Secret   bool     `json:"secret,omitempty"` // shown to nobody
	OnChange OnChange `json:"onChange,omitzero"`
	Absent   bool     `json:"absent,omitempty"` // it should not be there; of the rest only Path counts
}

// OnChange describes what a running guest needs once a file has changed.
type OnChange struct {
	Restart bool     `json:"restart,omitempty"`
	Command []string `json:"command,omitempty"` // to run inside
}

// IsZero reports whether nothing is to be done.
func (o OnChange) IsZero() bool { return !o.Restart && len(o.Command) == 0 }

// FileDigest identifies a file's content.
func FileDigest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// FilesRequest asks which files of guests are not as they should be.
type FilesRequest struct {
	Guests []GuestFiles `json:"guests"`
	// Contents asks for what differing files hold, for a diff. Secret files
	// are left out.
	Contents bool `json:"contents,omitempty"`
}

// GuestFiles are the files of one guest, without their contents.
type GuestFiles struct {
	Guest string `json:"guest"`
	Files []File `json:"files"`
	// Sources are paths of the host that the guest cannot start without: sources of its
	// bind mounts, and devices.
	Sources []string `json:"sources,omitempty"`
	Devices []string `json:"devices,omitempty"`
}

// FilesAnswer has an entry for each guest of the request that the host has, or that
// lacks something.
type FilesAnswer struct {
	Guests []GuestFilesState `json:"guests"`
}

// GuestFilesState describes how a guest's files differ from those wanted.
type GuestFilesState struct {
	Guest string `json:"guest"`
	// Files are those that differ.
	Files []FileState `json:"files,omitempty"`
	// Pending is what an earlier run should have done after it wrote files, but did
	// not get to.
	Pending []OnChange `json:"pending,omitempty"`
	Problem string     `json:"problem,omitempty"` // why the state is unknown
	// Missing are the errors that a start would fail with for Sources and Devices. It is
	// empty if the guest has hooks that run before: they may make what is missing.
	Missing []string `json:"missing,omitempty"`
}

// FileState describes how a file differs.
type FileState struct {
	Path    string `json:"path"`
	Differs string `json:"differs"`           // "it is not there", "content", "mode 0644 → 0600"
	Content []byte `json:"content,omitempty"` // its content, if the request asked for it
	Large   bool   `json:"large,omitempty"`   // the content is too large to show
}
