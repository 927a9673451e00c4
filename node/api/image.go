package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Key identifies what an image is built from: equal method, arguments and
// packages have equal keys, whatever the image is called.
func (s ImageSpec) Key() string {
	s.Name = ""
	b, err := json.Marshal(s)
	if err != nil { // strings only: cannot happen
		panic(fmt.Sprintf("marshal image spec: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
