package e2e

import (
	"os"
	"testing"
)

// TestNightly runs testdata/nightly/*.txtar as TestScripts does its own: what takes
// minutes, and hundreds of packages from Debian's mirror.
func TestNightly(t *testing.T) {
	if os.Getenv("NIGHTLY") == "" {
		t.Skip("make test-nightly runs it")
	}
	runScripts(t, "testdata/nightly")
}
