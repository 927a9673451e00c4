package api

// StaleRequest asks what guests use that newer versions have replaced.
type StaleRequest struct {
	// Images are the images that guests should have, by guest: their packages are
	// compared with the guests', if the host has them.
	Images map[string]string `json:"images,omitempty"`
	// Shadows asks for something else about the guests of Images: what they have of their
	// own where these images differ from those below their files.
	Shadows bool `json:"shadows,omitempty"`
}

// StaleAnswer describes all guests of a host.
type StaleAnswer struct {
	Guests []StaleGuest `json:"guests"` // by name
}

// StaleGuest is what a guest uses that newer versions have replaced.
type StaleGuest struct {
	Name    string `json:"name"`
	Running bool   `json:"running,omitempty"`
	Image   string `json:"image"`          // the ID of its image
	Runs    string `json:"runs,omitempty"` // the ID of the image that it was started with, if that is another
	// Processes use programs or libraries whose files are no longer there; the first
	// MaxStale of Restart.
	Processes []StaleProcess `json:"processes,omitempty"`
	Restart   int            `json:"restart,omitempty"`
	// Packages are older than those of the image that the guest should have; the first
	// MaxStale of Behind.
	Packages []StalePackage `json:"packages,omitempty"`
	Behind   int            `json:"behind,omitempty"`
	Problem  string         `json:"problem,omitempty"` // why something of it is not known

	// Of StaleRequest.Shadows: the first MaxStale of Hidden, databases of packages first;
	// Attributes of all have their data from the image. Image is then the one below its
	// files, and Packages are those that it installed or upgraded itself.
	Shadows    []Shadow `json:"shadows,omitempty"`
	Hidden     int      `json:"hidden,omitempty"`
	Attributes int      `json:"attributes,omitempty"`
}

// StaleProcess is a process that uses files which have been replaced.
type StaleProcess struct {
	PID   int      `json:"pid"` // as the host numbers it
	Name  string   `json:"name"`
	Files []string `json:"files"` // the first three
}

// StalePackage is a package of a guest that an image has newer.
type StalePackage struct {
	Name  string `json:"name"`
	Has   string `json:"has"`
	Newer string `json:"newer"`
}

// MaxStale bounds the lists of a StaleGuest.
const MaxStale = 100
