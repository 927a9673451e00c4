package api

// Shadow is a file of a guest's own at a path where its image changes.
type Shadow struct {
	Path string     `json:"path"` // "/var/lib/dpkg/status"
	Kind ShadowKind `json:"kind"`
	// Stays means that no rule reaches it: it is shared with others since a hashify, or
	// in a directory that the guest removed, made anew or renamed.
	Stays bool `json:"stays,omitempty"`
}

// ShadowKind is what a guest did with a file of its image.
type ShadowKind string

// Kinds of shadows.
const (
	ShadowChanged    ShadowKind = "changed"    // it has a file of its own there
	ShadowRemoved    ShadowKind = "removed"    // or renamed it, or a directory that it is in
	ShadowAttributes ShadowKind = "attributes" // the owner, mode or times: the data are the new image's
)
