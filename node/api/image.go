package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Key identifies what an image is built from: equal method, arguments,
// packages and files have equal keys, whatever the image is called.
func (s ImageSpec) Key() string {
	s = s.Record()
	s.Name = ""
	b, err := json.Marshal(s)
	if err != nil { // strings and numbers only: cannot happen
		panic(fmt.Sprintf("marshal image spec: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Record is the spec without the contents of its files, which an image holds
// itself: what is kept beside an image, and said of it.
func (s ImageSpec) Record() ImageSpec {
	s.Files = slices.Clone(s.Files)
	for i := range s.Files {
		s.Files[i].Content = nil
	}
	return s
}
