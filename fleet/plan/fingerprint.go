package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
)

// Fingerprint identifies what a step does: steps that do the same to a host have equal
// fingerprints. Contents of files are in it by their digests.
func Fingerprint(s api.Step) string {
	s.Files = withoutContent(s.Files)
	if s.Image != nil {
		image := *s.Image
		image.Files = withoutContent(image.Files)
		s.Image = &image
	}
	if s.Kind != api.StepImport { // whose reason names the image that will be taken
		s.Why = ""
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a Step has no field that cannot be marshalled
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func withoutContent(files []api.File) []api.File {
	files = slices.Clone(files)
	for i := range files {
		files[i].Content = nil
	}
	return files
}
