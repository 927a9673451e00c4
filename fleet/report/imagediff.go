package report

// Change is how a file or a package differs between two images.
type Change string

// Changes.
const (
	Added      Change = "added"
	Removed    Change = "removed"
	Changed    Change = "changed"
	Upgraded   Change = "upgraded"
	Downgraded Change = "downgraded"
)

// ImageDiff has the differences between two images.
type ImageDiff struct {
	From ComparedImage `json:"from"`
	To   ComparedImage `json:"to"`

	FilesAdded   int   `json:"filesAdded"`
	FilesRemoved int   `json:"filesRemoved"`
	FilesChanged int   `json:"filesChanged"`
	TimesOnly    int   `json:"timesOnly"` // files of which only the time of modification differs; not in Files
	BytesNew     int64 `json:"bytesNew"`  // of contents that only To has

	PackagesFrom int           `json:"packagesFrom"` // installed
	PackagesTo   int           `json:"packagesTo"`
	Packages     []PackageDiff `json:"packages"` // by name
	Files        []FileDiff    `json:"files"`    // in the order of a walk
	Problems     []string      `json:"problems,omitempty"`
}

// ComparedImage is one of two images.
type ComparedImage struct {
	Name    string `json:"name"`
	Version int    `json:"version,omitempty"` // by images.lock
	ID      string `json:"id"`
	Arch    string `json:"arch"`
	Host    string `json:"host"` // that was asked
	Bytes   int64  `json:"bytes"`
	Files   int64  `json:"files"`
}

// PackageDiff is a package that differs.
type PackageDiff struct {
	Name   string `json:"name"`
	Change Change `json:"change"`
	From   string `json:"from,omitempty"` // version
	To     string `json:"to,omitempty"`
}

// FileDiff is a file that differs.
type FileDiff struct {
	Path   string    `json:"path"`
	Change Change    `json:"change"`
	What   []string  `json:"what,omitempty"` // of a changed one: type, content, mode, owner, target, attributes, names
	From   *FileInfo `json:"from,omitempty"`
	To     *FileInfo `json:"to,omitempty"`
}

// FileInfo describes a file of an image.
type FileInfo struct {
	Type   string `json:"type"`           // file, directory, link, pipe
	Mode   string `json:"mode,omitempty"` // octal: 0755, 04755
	Owner  int64  `json:"owner"`
	Group  int64  `json:"group"`
	Size   int64  `json:"size,omitempty"`
	Target string `json:"target,omitempty"` // of a link
	SameAs string `json:"sameAs,omitempty"` // the file that this is another name of
}
